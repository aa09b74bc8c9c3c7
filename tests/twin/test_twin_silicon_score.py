"""The score on the measured end-to-end rows, each group held out of the fit that predicts it."""

from pathlib import Path

import pytest

from flyball_core.errors import Rejected
from flyball_twin.validation.report import validate
from flyball_twin.validation.seam import errors_of
from flyball_twin.validation.silicon import errors, held_out, trial_of
from flyball_twin.validation.silicon_rows import read_rows
from harness.silicon_tables import a_row, silicon_table
from measured_tables import measured

TABLE = "aiconfigurator_silicon_e2e_dev"
EVERY = 5
"""One row in so many: the whole table takes a minute."""
TPOT_GOAL, TTFT_GOAL = 0.10, 0.20


@pytest.mark.timeout(300)
def test_dense_rows_are_predicted_within_the_goal() -> None:
    """On dense rows of H100 and H200, all held out, the median error is at most 10 % per token, 20 % to the first."""
    rows = read_rows([measured(TABLE)]).rows
    trials = [trial_of(row) for row in rows[::EVERY]]
    predictions, _ = held_out(trials)

    tpot, ttft, _ = errors(one for one in predictions if not one.row.setting.moe)
    assert tpot.rows > 100
    assert tpot.p50_ape is not None
    assert tpot.p50_ape <= TPOT_GOAL
    assert ttft.p50_ape is not None
    assert ttft.p50_ape <= TTFT_GOAL


def test_every_row_is_scored_or_counted() -> None:
    """No row of the measured table is lost: it is compared, part of a median, or left out for a reason."""
    found = read_rows([measured(TABLE)])

    assert len(found.rows) + sum(found.left_out.values()) == 4295
    # A repeat counts beside the row that it went into.
    assert sum(row.repeats - 1 for row in found.rows) == found.left_out["repeat"]


def test_a_report_holds_every_row_in_a_group(tmp_path: Path) -> None:
    """Rows, sorted into groups of model, GPU, backend and load, add up; errors are given where there are rows."""
    rows = [
        a_row(tp_size=float(ranks), x_silicon_concurrency=float(clients), silicon_ttft_ms=100.0 + clients + ranks)
        for ranks in (1, 2)
        for clients in (8, 32, 128)
    ]
    table = silicon_table(tmp_path / "rows.parquet", [*rows, a_row(mode="disagg")])
    document = validate([table]).document()

    groups = document["groups"]
    assert isinstance(groups, list)
    assert [(group["load"], group["rows"], group["ttft"]["rows"]) for group in groups] == [
        ("low", 2, 2),
        ("mid", 2, 2),
        ("high", 2, 2),
    ]
    assert document["left_out"] == {"disaggregated": 1}


def test_a_table_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    """A file with other columns is an error that says which kinds of tables there are."""
    table = silicon_table(tmp_path / "other.parquet", [{"colour": "blue"}])

    with pytest.raises(Rejected, match=r"other\.parquet is no table that validate knows.*silicon_ttft_ms"):
        validate([table])


def test_errors_are_summed_up_as_said() -> None:
    """Quantiles are of the absolute errors, the bias is the median of the signed ones."""
    found = errors_of([-0.1, 0.2, 0.3])

    assert (found.rows, found.p50_ape, found.bias) == (3, 0.2, 0.2)
    assert found.mean_ape == pytest.approx(0.2)
    assert found.p90_ape == pytest.approx(0.28)
    assert errors_of([]).p50_ape is None
