"""`flyball replay --policy`: what another document would have decided."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_cli.bench_fleet import POLICY
from recorded_logs import ENGINES

Flyball = Callable[..., Answer]


def test_the_same_document_decides_the_same(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """Under its own document the two courses never part: receivers answered as they were told."""
    (tmp_path / "same.yaml").write_text(POLICY)

    answer = flyball("replay", recorded, "--policy", tmp_path / "same.yaml", "--json")

    assert 0 == answer.code
    assert answer.document["first_apart_s"] is None
    assert answer.document["recorded"] == answer.document["other"]
    assert answer.document["recorded"]["changes"]
    assert "never part" in flyball("replay", recorded, "--policy", tmp_path / "same.yaml").out


def test_another_document_is_told_in_numbers(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """Stricter bounds show as other changes, other last settings, and the moment they part."""
    (tmp_path / "other.yaml").write_text(POLICY.replace("max: 256}\nweights", "max: 16}\nweights"))

    document = flyball("replay", recorded, "--policy", tmp_path / "other.yaml", "--json").document
    words = flyball("replay", recorded, "--policy", tmp_path / "other.yaml").out

    assert document["open_loop"] is True
    assert document["first_apart_s"] is not None
    assert all(document["other"]["settings"][engine]["max_active_requests"] <= 16 for engine in ENGINES)
    assert document["other"]["changes_per_knob"] != document["recorded"]["changes_per_knob"]
    assert "They part at" in words
    assert "open loop" in words
    for knob, number in document["other"]["changes_per_knob"].items():
        assert any(line.split()[:1] == [knob] and str(number) in line.split() for line in words.splitlines())


@pytest.mark.parametrize(
    ("wrong", "place", "hint"),
    [
        (POLICY.replace("mode:", "mood:"), ":2:1:", "mode"),
        (POLICY.replace("tpot: 30ms", "tpot: 30"), ":4:", "ms"),
        (POLICY.replace("{min: 4, max: 256}", "{min: 300, max: 256}"), ":7:", ""),
    ],
    ids=["unknown key", "no unit", "inverted bounds"],
)
def test_a_wrong_document_is_refused_with_its_place(
    flyball: Flyball, recorded: Path, tmp_path: Path, wrong: str, place: str, hint: str
) -> None:
    """An unknown key, a missing unit, inverted bounds: file, line and the nearest right answer, exit code 2."""
    file = tmp_path / "wrong.yaml"
    file.write_text(wrong)

    answer = flyball("replay", recorded, "--policy", file)

    assert 2 == answer.code
    assert f"{file}{place}" in answer.err
    assert hint in answer.err
    assert 1 == len(answer.err.splitlines())


def test_a_missing_document_is_bad_input(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """No such file: one line, exit code 2."""
    answer = flyball("replay", recorded, "--policy", tmp_path / "none.yaml")

    assert 2 == answer.code
    assert "none.yaml" in answer.err
