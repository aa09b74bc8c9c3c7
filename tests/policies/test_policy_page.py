"""docs/policy.md says what holds: its example is a document, names every key, and shows the defaults."""

import re
from dataclasses import fields
from pathlib import Path

from flyball_policies.document import PolicyDocument
from flyball_policies.reading import read_document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policy.md"


def example() -> str:
    """The page's example."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_values_shown_are_the_defaults() -> None:
    """Whoever leaves a section out gets what the page shows for it."""
    shown, default = read_document(example(), str(PAGE)), PolicyDocument()

    for section in ("mode", "hold_s", "caps", "weights", "guard"):
        assert getattr(default, section) == getattr(shown, section), section
    for name in ("preference", "keep", "settle_s"):
        assert getattr(default.variants, name) == getattr(shown.variants, name), name


def test_the_example_names_every_key() -> None:
    """There is no key of a section that the page keeps quiet about."""
    shown = read_document(example(), str(PAGE))
    text = example()
    abbreviated = {"minimum": "min", "maximum": "max"}
    sections = (shown.caps, shown.weights, shown.variants, shown.guard, shown.lanes[0])
    names = {field.name for section in sections for field in fields(section)} - {"name"}
    missing = [n for n in sorted(names) if not re.search(rf"\b{abbreviated.get(n, n.removesuffix('_s'))}:", text)]

    assert [] == missing
