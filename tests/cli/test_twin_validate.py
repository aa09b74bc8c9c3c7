"""`flyball twin validate`: what it prints, as people and programs read it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from harness.silicon_tables import a_row, silicon_table

Flyball = Callable[..., Answer]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A few rows of two models, and one that is left out."""
    rows = [
        a_row(x_silicon_concurrency=8.0, silicon_ttft_ms=272.0, silicon_tpot_ms=18.65),
        a_row(),
        a_row(model_path="meta-llama/Llama-3.1-8B-Instruct", gemm_quant_mode=None, silicon_ttft_ms=144.0),
        a_row(mode="disagg"),
    ]
    return silicon_table(tmp_path / "rows.parquet", rows)


def test_its_document_has_the_documented_shape(flyball: Flyball, table: Path) -> None:
    """The JSON document has the documented keys, the groups, the score and what was left out."""
    answer = flyball("twin", "validate", table, "--json")

    assert answer.code == 0
    same_shape("twin-validate", answer.document)
    assert answer.document["left_out"] == {"disaggregated": 1}
    assert answer.document["score"]["rows"] == 3
    assert 0.0 < answer.document["score"]["tpot_median_ape"] < 1.0


def test_people_get_tables(flyball: Flyball, table: Path) -> None:
    """Without --json there is a table of the groups, one of all rows, and the reasons for what was left out."""
    out = flyball("twin", "validate", table).out

    assert "qwen3-32b h100_sxm trtllm low" in out
    assert "dense, held out" in out
    assert "left out: disaggregated 1" in out


def test_an_unknown_table_is_an_error(flyball: Flyball, tmp_path: Path) -> None:
    """A file that is no table of a known kind ends the command with code 2 and the kinds that there are."""
    answer = flyball("twin", "validate", silicon_table(tmp_path / "odd.parquet", [{"colour": "blue"}]))

    assert answer.code == 2
    assert "odd.parquet is no table that validate knows" in answer.err
    assert "silicon_ttft_ms" in answer.err


def test_a_damaged_row_is_an_error_with_its_number(flyball: Flyball, tmp_path: Path) -> None:
    """A cell that makes no sense ends the command with code 2, the file and the row."""
    answer = flyball("twin", "validate", silicon_table(tmp_path / "rows.parquet", [a_row(), a_row(isl=-1)]))

    assert answer.code == 2
    assert "rows.parquet:2" in answer.err


def test_a_file_that_is_no_parquet_is_an_error(flyball: Flyball, tmp_path: Path) -> None:
    """Bytes that are no Parquet file end the command with code 2 and the file's name."""
    (tmp_path / "text.parquet").write_text("colour\nblue\n")
    answer = flyball("twin", "validate", tmp_path / "text.parquet")

    assert answer.code == 2
    assert "text.parquet" in answer.err
