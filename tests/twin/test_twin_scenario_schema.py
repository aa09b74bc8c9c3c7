"""The JSON schema for editors says what the reader says, and the page's tables say it too."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings, strategies as st
from jsonschema import Draft202012Validator

from flyball_core.errors import InvalidDocument
from flyball_policies.strict_yaml import compose
from flyball_twin.scenario import library
from flyball_twin.scenario.forms import Duration, Form, Number, ScenarioReader, Share
from flyball_twin.scenario.schema import schema, tables
from scenario_documents import MISTAKES, Mistake, good

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = Draft202012Validator(schema())


def loaded(text: str) -> Any:
    """A document as an editor's YAML reader has it."""
    return yaml.safe_load(text)


def test_the_schema_of_the_library_is_that_of_the_reader() -> None:
    """It is valid itself, and up to date; otherwise run `scripts/write_scenario_schema.py`."""
    Draft202012Validator.check_schema(schema())

    assert schema() == json.loads((library.folder() / "scenario.schema.json").read_text())


def test_the_tables_of_the_page_are_those_of_the_reader() -> None:
    """Every key with its form, default and meaning; otherwise run `scripts/write_scenario_schema.py`."""
    assert tables() in (ROOT / "docs" / "scenarios.md").read_text()


def test_what_the_reader_takes_the_schema_takes() -> None:
    """A document with every kind of section, and the whole library."""
    assert VALIDATOR.is_valid(loaded(good()))
    for name in library.names():
        assert VALIDATOR.is_valid(loaded(library.find_scenario(name).read_text())), name


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.line}: {mistake.said}")
def test_mistakes_of_one_place_are_refused_by_both(mistake: Mistake) -> None:
    """What is wrong in itself the schema refuses as the reader does; what two places disagree about it cannot see."""
    assert mistake.form is not VALIDATOR.is_valid(loaded(mistake.made()))


def agree(form: Form, text: str) -> None:
    """Assert that reader and schema judge one value alike."""
    reader = ScenarioReader(Path("v.yaml"))
    try:
        form.read(reader, compose(text, "v.yaml", 1000))
        taken = True
    except InvalidDocument:
        taken = False

    assert taken is Draft202012Validator(form.schema({})).is_valid(loaded(text)), text


@settings(max_examples=300, deadline=None)
@given(
    number=st.one_of(st.integers(-5, 120), st.floats(-2, 120).map(lambda value: round(value, 2) + 0.0)),
    unit=st.sampled_from(["", "%", "s", "ms", "min", "h", "d", " s", " %"]),
)
def test_values_are_judged_alike(number: float, unit: str) -> None:
    """Numbers with all kinds of units, where a duration, a share or a number is wanted."""
    text = f"{number}{unit}"
    for form in (Duration(), Duration(signed=True), Number(0, 100), Number(1, 9, above=True)):
        agree(form, text)
    # To JSON schema 1.0 is a whole number; to the reader it is none.
    if isinstance(number, int) or number % 1.0:
        agree(Number(0, 100, whole=True), text)
    if unit != " %":
        agree(Share(), text)
        agree(Share(above=True), text)
