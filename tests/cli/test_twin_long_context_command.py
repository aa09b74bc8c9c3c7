"""`flyball twin validate --long-context`: a section that needs no table."""

import json
from pathlib import Path

import pytest

from cli_calls import call
from flyball_twin.validation.long_context import Case
from flyball_twin.validation.long_context_section import PICTURE

FEW = (Case(name="14B", model="qwen3-14b", kv_cache="bf16"),)


@pytest.fixture(autouse=True)
def _one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball_twin.validation.long_context_section.CASES", FEW)


def test_the_collapse_is_reported_without_any_table(tmp_path: Path) -> None:
    """The document has the section, no file and no score; the picture lies where it was asked for."""
    done = call("twin", "validate", "--long-context", "--json", "--out", tmp_path)

    assert 0 == done.code, done.err
    document = json.loads(done.out)
    assert ([], []) == (document["files"], document["groups"])
    assert document["score"]["tpot_median_ape"] is None
    assert ["14B"] == [case["name"] for case in document["long_context"]["cases"]]
    assert (tmp_path / PICTURE).is_file()


def test_for_people_the_parts_are_told_uncut() -> None:
    """In a pipe no cell is cut off, however many columns there are."""
    done = call("twin", "validate", "--long-context")

    assert 0 == done.code, done.err
    assert "where the seconds of 3 at once come from" in done.out
    assert "\u2026" not in done.out


def test_nothing_to_validate_is_bad_usage() -> None:
    """Neither a table nor the built-in section: exit code 2, and what could be given."""
    done = call("twin", "validate")

    assert 2 == done.code
    assert "--long-context" in done.err
