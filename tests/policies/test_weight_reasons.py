"""What the routing weights' policy says of its reasons."""

from dataclasses import replace

import pytest

from flyball_policies.weights_speed import WeightsSpeed
from harness.pool_view import view_of


@pytest.mark.parametrize(
    ("variants", "says", "keeps_quiet"),
    [
        (("splitkv", "graphs"), "variant graphs fit 0.", "no variant"),
        (("splitkv", ""), "no variant, fit 0.", "variant  fit"),
        (("", ""), "of its peers", "variant"),
    ],
)
def test_the_variant_is_a_reason_where_there_is_one(variants: tuple[str, str], says: str, keeps_quiet: str) -> None:
    """An engine without a variant is told as such, and only where that counts against it."""
    view = replace(view_of(("e0", "e1"), seed=3), variants=variants, regime="long_context")
    said = [one.reason for one in WeightsSpeed().propose(view, {})]

    assert any(says in reason for reason in said), said
    assert not any(keeps_quiet in reason for reason in said), said
