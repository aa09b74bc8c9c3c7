"""`flyball twin validate` on logs, and without any table: the sections that its document has then."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from cli_calls import call
from documented_shapes import same_shape
from flyball_twin.validation.long_context import Case
from flyball_twin.validation.long_context_section import PICTURE

FEW = (Case(name="14B", model="qwen3-14b", kv_cache="bf16"),)
OF = {"gpu": "RTX4090", "model": "Llama-3.1-8B"}


@pytest.fixture(autouse=True)
def _one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball_twin.validation.long_context_section.CASES", FEW)


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A Parquet file with these rows."""
    write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    return path


def requests() -> list[dict[str, Any]]:
    """A log of requests that came one a second and were answered in three."""
    return [
        {
            "input_toks": 500,
            "output_toks": 100,
            "queued_ts": float(at),
            "scheduled_ts": at + 1.5,
            "first_token_ts": at + 1.7,
            "last_token_ts": at + 4.7,
            **OF,
        }
        for at in range(30)
    ]


def fleet() -> list[dict[str, Any]]:
    """A few requests at two rates, of a variant that can be predicted and of one that cannot."""
    return [
        {
            "prompt_tokens": 21073.0,
            "generation_tokens": 100.0,
            "ttft": 1.9,
            "generation_time": 1.4,
            "user_id": user,
            "question_id": 1,
            "launch_time": 5.0 * user,
            "variant": variant,
            "target_qps": 0.2 if user < 4 else 0.3,
        }
        for variant in ("naive", "aibrix_high_low")
        for user in range(8)
    ]


def splitwise() -> list[dict[str, Any]]:
    """One point."""
    times = {"prompt_time": 84.0, "token_time": 37.0}
    sizes = {"prompt_size": 512, "batch_size": 1, "token_size": 128, "tensor_parallel": 2}
    return [{"model": "llama2-70b", "hardware": "h100-80gb", **sizes, **times}]


def test_sections_of_logs_have_the_documented_shapes(tmp_path: Path) -> None:
    """One call with a file of each kind: what was not given is null, and a log without telemetry has no curves."""
    gauges = [{"t": float(at), "running": 3, "waiting": 1, "kv_cache_pct": 0.0, **OF} for at in range(1, 9)]
    answer = call(
        "twin",
        "validate",
        saved(tmp_path / "requests.parquet", requests()),
        saved(tmp_path / "telemetry.parquet", gauges),
        saved(tmp_path / "fleet.parquet", fleet()),
        saved(tmp_path / "splitwise.parquet", splitwise()),
        "--json",
    )
    document = answer.document

    assert 0 == answer.code
    same_shape("twin-validate-requests", document["requests"])
    same_shape("twin-validate-fleet", document["fleet"])
    same_shape("twin-validate-splitwise", document["splitwise"])
    assert (None, None) == (document["silicon"], document["long_context"])
    assert ["requests", "requests", "fleet", "splitwise"] == [file["kind"] for file in document["files"]]
    assert {"fleet_kv_shared": 8} == document["left_out"]
    assert 30 == document["requests"]["logs"][0]["requests"]


def test_the_collapse_is_reported_without_any_table(tmp_path: Path) -> None:
    """The document has the section, no file and no score; the picture lies where it was asked for."""
    document = call("twin", "validate", "--long-context", "--json", "--out", tmp_path).document

    same_shape("twin-validate-long-context", document["long_context"])
    assert ([], []) == (document["files"], document["groups"])
    assert document["score"]["tpot_median_ape"] is None
    assert ["14B"] == [case["name"] for case in document["long_context"]["cases"]]
    assert (tmp_path / PICTURE).is_file()


def test_for_people_the_parts_are_told_uncut() -> None:
    """In a pipe no cell is cut off, however many columns there are."""
    answer = call("twin", "validate", "--long-context")

    assert 0 == answer.code
    assert "where the seconds of 3 at once come from" in answer.out
    assert "\u2026" not in answer.out


def test_nothing_to_validate_is_refused() -> None:
    """Neither a table nor the built-in section: exit code 2, and what could be given."""
    answer = call("twin", "validate")

    assert 2 == answer.code
    assert "--long-context" in answer.err
