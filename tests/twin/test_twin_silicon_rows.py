"""Measured end-to-end rows: what is read, what is refused, and what is left out for which reason."""

from pathlib import Path

import pytest

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.validation.silicon_rows import Readings, read_rows
from harness.silicon_tables import a_row, silicon_table


def readings(tmp_path: Path, *rows: dict[str, object]) -> Readings:
    """What is read of a table of these rows."""
    return read_rows([silicon_table(tmp_path / "table.parquet", rows)])


def test_a_row_says_what_was_measured(tmp_path: Path) -> None:
    """A row is read into the engine, its clients, and seconds."""
    row = readings(tmp_path, a_row(gemm_quant_mode="fp8", tp_size=2.0)).rows[0]

    assert (row.setting.model.name, row.setting.gpu, row.setting.backend) == ("qwen3-32b", "h100_sxm", "trtllm")
    assert (row.setting.tensor_parallel, row.setting.weights, row.setting.kv_cache) == (2, "fp8", "fp8")
    assert (row.setting.prompt_tokens, row.setting.output_tokens, row.setting.clients) == (1024, 128, 16)
    assert (row.ttft_s, row.tpot_s) == (0.309, 0.02425)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"mode": "disagg"}, "disaggregated"),
        ({"silicon_data_source": "source_file=a.csv; wip=True"}, "work_in_progress"),
        ({"backend": "tgi"}, "unknown_backend"),
        ({"system": "x900"}, "unknown_gpu"),
        ({"system": "b200_sxm"}, "gpu_without_kernel_table"),
        ({"model_path": "somebody/their-model"}, "unknown_model"),
        ({"gemm_quant_mode": "nvfp4"}, "unknown_precision"),
        ({"tp_size": 64.0}, "ranks_not_measured"),
        ({"attention_dp_size": 8.0}, "attention_data_parallel"),
        ({"pp_size": 2.0}, "pipeline_parallel"),
        ({"x_silicon_concurrency": None}, "no_concurrency"),
        ({"x_silicon_concurrency": float("nan")}, "no_concurrency"),
        ({"silicon_tpot_ms": None}, "not_measured"),
        ({"silicon_ttft_ms": float("nan")}, "not_measured"),
        ({"osl": 1}, "single_token"),
        ({"model_path": "meta-llama/Llama-3.1-70B-Instruct", "tp_size": 1.0}, "does_not_fit"),
        (
            {"model_path": "Qwen/Qwen3-235B-A22B-FP8", "moe_quant_mode": "fp8", "moe_tp_size": 2.0},
            "attention_data_parallel",
        ),
    ],
)
def test_what_cannot_be_compared_is_counted(tmp_path: Path, changed: dict[str, object], reason: str) -> None:
    """A row whose setting the twin has no physics for is left out, under the reason."""
    found = readings(tmp_path, a_row(**changed))

    assert found.rows == []
    assert dict(found.left_out) == {reason: 1}


def test_repeats_count_once(tmp_path: Path) -> None:
    """Measurements of one setting on several days are one row, their median."""
    found = readings(tmp_path, *(a_row(silicon_tpot_ms=tpot) for tpot in (20.0, 30.0, 22.0)))

    assert [(row.tpot_s, row.repeats) for row in found.rows] == [(0.022, 3)]
    assert found.left_out["repeat"] == 2


def test_a_row_under_another_models_name_is_dropped(tmp_path: Path) -> None:
    """DeepSeek-V3 with the very numbers of R1 is R1, whichever comes first; V3 with numbers of its own stays."""
    on_h200 = {"system": "h200_sxm", "tp_size": 8.0, "gemm_quant_mode": "fp8", "moe_quant_mode": "fp8"}
    v3 = a_row(model_path="deepseek-ai/DeepSeek-V3", **on_h200)
    found = readings(
        tmp_path,
        v3,
        a_row(model_path="deepseek-ai/DeepSeek-R1", **on_h200),
        v3 | {"silicon_tpot_ms": 99.0},
    )

    assert {row.setting.model_path for row in found.rows} == {"deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3"}
    assert dict(found.left_out) == {"copy_of_another_model": 1}


def test_the_same_numbers_in_two_sources_count_once(tmp_path: Path) -> None:
    """A row that was copied from one file of a campaign into another is one measurement."""
    found = readings(tmp_path, a_row(), a_row(silicon_data_source="source_file=other.csv"))

    assert len(found.rows) == 1
    assert found.left_out["copy_of_a_row"] == 1


def test_clients_may_stand_in_the_source(tmp_path: Path) -> None:
    """Without a column of its own the concurrency is read from where the row says it comes from."""
    row = a_row(silicon_data_source="source_file=a.csv; silicon_concurrency=48")
    del row["x_silicon_concurrency"]

    assert readings(tmp_path, row).rows[0].setting.clients == 48


def test_optional_columns_may_be_missing(tmp_path: Path) -> None:
    """A table with only what has to be there is read; what it does not say is as usual: BF16, one rank of each kind."""
    needed = (
        "backend", "model_path", "system", "mode", "isl", "osl", "tp_size", "silicon_ttft_ms", "silicon_tpot_ms",
        "x_silicon_concurrency",
    )  # fmt: skip
    full = a_row(tp_size=2.0)
    row = readings(tmp_path, {name: full[name] for name in needed}).rows[0]

    assert (row.setting.weights, row.setting.version, row.setting.source) == ("bf16", "", "")


@pytest.mark.parametrize(
    "changed", [{"isl": "long"}, {"isl": 0}, {"osl": 1.5}, {"silicon_ttft_ms": float("inf")}, {"tp_size": None}]
)
def test_a_cell_that_makes_no_sense_is_an_error_with_its_row(tmp_path: Path, changed: dict[str, object]) -> None:
    """A number that is none, or none that can be, is an error that names file, row and column."""
    rows = [a_row() | changed] if isinstance(changed.get("isl"), str) else [a_row(), a_row(**changed)]

    with pytest.raises(InvalidDocument, match=rf"table\.parquet:{len(rows)}.*{next(iter(changed))}"):
        readings(tmp_path, *rows)


def test_a_missing_column_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Without a column that has to be there nothing is guessed."""
    row = a_row()
    del row["tp_size"]

    with pytest.raises(Rejected, match="no column tp_size"):
        readings(tmp_path, row)
