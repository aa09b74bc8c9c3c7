"""A cap that binds can be raised from wherever it stands: no step is lost in the guard's dead-band."""

import numpy as np
import pytest

from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.seam import Column, PoolView
from harness.pool_view import view_of


def roomy(cap: float, budget: float) -> PoolView:
    """One engine whose caps bind while there is plenty of room."""
    view = view_of(("e0",))
    columns: dict[str, Column] = {
        **view.columns,
        "running": np.array([cap]),
        "waiting": np.array([5.0]),
        "tpot_s": np.array([0.01]),
        "kv_used_ratio": np.array([0.2]),
        "preemptions_per_s": np.array([0.0]),
    }
    settings = {**view.settings, BATCH_CAP: np.array([cap]), TOKEN_BUDGET: np.array([budget])}
    return PoolView(
        **{
            **{name: getattr(view, name) for name in view.__dataclass_fields__},
            "columns": columns,
            "settings": settings,
        }
    )


@pytest.mark.parametrize("cap", [1, 4, 49, 50, 51, 100, 101, 200])
def test_every_raise_of_a_binding_cap_is_worth_making(cap: int) -> None:
    """What is proposed is at least the rule's step, and at least the dead-band of the value that stands."""
    view = roomy(float(cap), 2048.0)
    [raised] = [p.value for p in CapsAimd().propose(view, {}) if p.knob == BATCH_CAP]

    assert isinstance(raised, int)
    assert raised - cap >= max(view.document.caps.step, view.document.guard.dead_band * cap)


@pytest.mark.parametrize("budget", [512, 3000, 4096, 7000])
def test_every_raise_of_a_token_budget_is_worth_making(budget: int) -> None:
    """The same for the token budget, up to its ceiling."""
    view = roomy(64.0, float(budget))
    [raised] = [p.value for p in CapsAimd().propose(view, {}) if p.knob == TOKEN_BUDGET]

    assert isinstance(raised, int)
    assert raised - budget >= view.document.guard.dead_band * budget
