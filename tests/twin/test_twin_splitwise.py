"""Splitwise's runs: what is no measurement is left out and counted; level and shape are scored apart."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from flyball_core.errors import InvalidDocument
from flyball_twin.physics import FLASH_ATTN, EngineModel, gpu_named, model_named
from flyball_twin.validation.rows import rows_of
from flyball_twin.validation.splitwise import (
    COLUMNS,
    LARGEST_STEP,
    NO_GPU,
    NO_MODEL,
    NO_RANKS,
    NOT_BELIEVED,
    NOT_MEASURED,
    SPLITWISE,
    TOO_LARGE,
    Point,
    predicted_s,
    read_points,
)
from measured_tables import measured

CELLS: dict[str, Any] = {
    "model": "llama2-70b",
    "hardware": "h100-80gb",
    "prompt_size": 512,
    "batch_size": 1,
    "token_size": 128,
    "prompt_time": 84.0,
    "token_time": 37.0,
    "tensor_parallel": 2,
}


def saved(rows: list[dict[str, Any]], path: Path) -> Path:
    """A Parquet file with these rows."""
    write_table(pa.table({name: [row[name] for row in rows] for name in CELLS}), path)
    return path


def twice_as_slow(prompt: int, batch: int) -> dict[str, Any]:
    """A row that an engine twice as slow as the twin would have written."""
    engine = EngineModel(
        gpu=gpu_named("h100_sxm"), model=model_named("llama-2-70b"), tensor_parallel=2, max_batched_tokens=LARGEST_STEP
    )
    point = Point(
        model="llama2-70b",
        hardware="h100-80gb",
        tensor_parallel=2,
        prompt_tokens=prompt,
        batch=batch,
        output_tokens=128,
    )
    prompt_s, token_s = predicted_s(engine.cost(FLASH_ATTN), point)
    return CELLS | {
        "prompt_size": prompt,
        "batch_size": batch,
        "prompt_time": 2e3 * prompt_s,
        "token_time": 2e3 * token_s,
    }


def test_repetitions_of_a_point_count_once(tmp_path: Path) -> None:
    """Their median counts, in seconds, and how many there were is kept."""
    rows = [CELLS | {"prompt_time": time} for time in (80.0, 84.0, 99.0)]
    left_out: dict[str, int] = {}
    ((_, times),) = read_points(list(rows_of(saved(rows, tmp_path / "t.parquet"), COLUMNS)), left_out).items()

    assert pytest.approx(0.084) == times.prompt_s
    assert pytest.approx(0.037) == times.token_s
    assert 3 == times.rows
    assert not left_out


def test_what_is_no_measurement_is_left_out_and_counted(tmp_path: Path) -> None:
    """Power-capped rows were computed; unknown hardware has no datasheet; a larger batch is never that much faster."""
    rows = [
        CELLS,
        CELLS | {"hardware": "h100-80gb-pcap"},
        CELLS | {"hardware": "b580"},
        CELLS | {"model": "bloom-176b"},
        CELLS | {"tensor_parallel": 3},
        CELLS | {"batch_size": 10**9},
        CELLS | {"batch_size": 2, "prompt_time": 156.0},
        CELLS | {"batch_size": 4, "prompt_time": 60.0},
    ]
    section = SPLITWISE.section([saved(rows, tmp_path / "t.parquet")], None)

    once = (NOT_MEASURED, NO_GPU, NO_MODEL, NO_RANKS, TOO_LARGE, NOT_BELIEVED)
    assert dict.fromkeys(once, 1) == section.left_out
    assert [2] == [group.rows for group in section.groups]


def test_a_level_is_told_from_a_shape(tmp_path: Path) -> None:
    """An engine that is slower by one factor has that as its level, and no error in its shape."""
    rows = [twice_as_slow(prompt, batch) for prompt, batch in ((128, 1), (512, 1), (512, 8), (4096, 1))]
    section = SPLITWISE.section([saved(rows, tmp_path / "t.parquet")], None)
    settings: Any = section.details["settings"]
    (setting,) = settings

    assert pytest.approx(-0.5) == setting["prompt"]["bias"]
    assert pytest.approx(-0.5) == setting["token"]["bias"]
    assert pytest.approx(0.0, abs=1e-9) == setting["prompt_shape"]["p90"]
    assert pytest.approx(0.0, abs=1e-9) == setting["token_shape"]["p90"]


def test_a_row_without_times_is_named(tmp_path: Path) -> None:
    """A time of nothing is an error with its row, not an infinite error in the score."""
    with pytest.raises(InvalidDocument, match="above 0") as caught:
        SPLITWISE.section([saved([CELLS, CELLS | {"token_time": 0.0}], tmp_path / "t.parquet")], None)
    assert 2 == caught.value.line


def test_the_real_runs_keep_their_shape_beside_an_older_level() -> None:
    """Every setting of 2023 is slower than the twin, and its median point within 15 % of the twin's shape."""
    section = SPLITWISE.section([measured("splitwise_llama2-70b_tp2_tp8")], None)
    settings: Any = section.details["settings"]

    assert {NOT_MEASURED: 210, NOT_BELIEVED: 10} == section.left_out
    assert 4 == len(settings)
    for setting in settings:
        assert setting["prompt"]["bias"] < 0.0
        assert setting["token"]["bias"] < 0.0
        assert setting["prompt_shape"]["p50"] < 0.15
        assert setting["token_shape"]["p50"] < 0.15
