"""Fleet logs: read strictly, their knees found, and predicted for every route that HAProxy has."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from flyball_core.errors import InvalidDocument
from flyball_twin.validation.fleet_logs import (
    COLUMNS,
    OPTIONAL,
    FleetLog,
    knee_rps,
    medians,
    read_fleet_logs,
    steps_apart,
)
from flyball_twin.validation.fleet_replay import NOT_EXPLAINED, ROUTES, predict
from flyball_twin.validation.fleet_section import FLEETS, PICTURE, completed_of
from flyball_twin.validation.rows import rows_of
from measured_tables import measured

CELLS: dict[str, Any] = {
    "prompt_tokens": 21073.0,
    "generation_tokens": 100.0,
    "ttft": 1.9,
    "generation_time": 1.4,
    "user_id": 7,
    "question_id": 1,
    "launch_time": 1000.0,
    "variant": "naive",
    "target_qps": 0.5,
}


def saved(rows: list[dict[str, Any]], path: Path) -> Path:
    """A Parquet file with these rows."""
    write_table(pa.table({name: [row[name] for row in rows] for name in CELLS}), path)
    return path


def read(rows: list[dict[str, Any]], folder: Path) -> list[FleetLog]:
    """The logs of these rows."""
    return read_fleet_logs(rows_of(saved(rows, folder / "fleet.parquet"), COLUMNS))


def loaded(variant: str, rates: tuple[float, ...], each: int = 16) -> list[dict[str, Any]]:
    """Requests of new users at rising rates, one after another, that nobody has answered."""
    rows, at_s, user = [], 0.0, 0
    for rate in rates:
        for _ in range(each):
            user += 1
            rows.append(CELLS | {"variant": variant, "target_qps": rate, "launch_time": at_s, "user_id": user})
            at_s += 1.0 / rate
    return rows


def test_the_knee_is_the_lowest_rate_half_as_slow_again_as_unloaded() -> None:
    """Rates are taken in order, whatever order they come in; below the lowest one's median nothing counts."""
    ttfts = {2.0: 3.1, 0.5: 2.0, 1.0: 2.9, 3.0: 9.0}

    assert 2.0 == knee_rps(ttfts)
    assert 1.0 == knee_rps({**ttfts, 1.0: 3.01})
    assert knee_rps({0.5: 2.0, 1.0: 0.1}) is None


def test_steps_apart_are_those_of_the_measured_rates() -> None:
    """No knee lies one step beyond the last rate."""
    rates = (0.1, 0.5, 0.9, 1.3)

    assert 0 == steps_apart(rates, 0.9, 0.9) == steps_apart(rates, None, None)
    assert 1 == steps_apart(rates, 0.5, 0.9) == steps_apart(rates, 1.3, None)
    assert 3 == steps_apart(rates, None, 0.5)


def test_a_median_is_taken_for_each_rate() -> None:
    """Values of a rate are taken together wherever they stand."""
    assert {1.0: 2.0, 2.0: 5.0} == medians([(2.0, 5.0), (1.0, 1.0), (1.0, 3.0)])


def test_logs_are_told_apart_by_variant_and_begin_at_zero(tmp_path: Path) -> None:
    """Each variant has a clock of its own, from its first launch."""
    rows = [CELLS | {"launch_time": 1003.0}, CELLS, CELLS | {"variant": "other", "launch_time": 5.0}]
    naive, other = read(rows, tmp_path)

    assert [0.0, 3.0] == [request.launched_s for request in naive.requests]
    assert ("other", (0.5,), {0.5: 1}) == (other.variant, other.rates_rps, other.counts())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ttft": -0.1}, "ttft is -0.1, below 0"),
        ({"prompt_tokens": 10.5}, "prompt_tokens is 10.5, not a whole number"),
        ({"variant": ""}, "variant is '', not a name"),
    ],
)
def test_a_row_that_is_no_request_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """The error says which row of which file."""
    with pytest.raises(InvalidDocument, match=says) as caught:
        read([CELLS, CELLS | change], tmp_path)
    assert 2 == caught.value.line


def test_prompts_of_one_user_share_all_that_the_shorter_one_has(tmp_path: Path) -> None:
    """Other users share the system prompt only, and a seed renames users but changes no prefix."""
    rows = [
        CELLS,
        CELLS | {"question_id": 2, "launch_time": 1100.0, "prompt_tokens": 21202.0},
        CELLS | {"user_id": 8, "launch_time": 1200.0},
    ]
    (log,) = read(rows, tmp_path)
    first, second, other = log.workload(lane="x", seed=3)

    assert 41 == len(first.prefix)
    assert first.prefix == second.prefix[: len(first.prefix)]
    assert first.prefix[:1] == other.prefix[:1]
    assert first.prefix[1] != other.prefix[1]
    assert ("3-7", 0, 1) == (first.session, first.turn, second.turn)
    assert [one.prefix for one in log.workload(lane="x", seed=4)] == [first.prefix, second.prefix, other.prefix]


def test_a_variant_that_lost_requests_says_so(tmp_path: Path) -> None:
    """What is missing is told by the variant that has the most of the same rate."""
    rows = [CELLS | {"launch_time": float(at)} for at in range(4)]
    rows += [CELLS | {"variant": "worse", "launch_time": float(at)} for at in range(3)]
    logs = read(rows, tmp_path)

    assert [{0.5: 1.0}, {0.5: 0.75}] == [completed_of(log, logs) for log in logs]


def test_variants_that_nobody_explained_are_left_out_and_counted(tmp_path: Path) -> None:
    """No route is guessed from a name."""
    section = FLEETS.section([saved([CELLS | {"variant": "novel"}], tmp_path / "fleet.parquet")], None)

    assert {NOT_EXPLAINED.reason: 1} == section.left_out
    assert not section.groups


@pytest.mark.parametrize("variant", sorted(ROUTES))
def test_a_route_saturates_in_the_twin(tmp_path: Path, variant: str) -> None:
    """Eight engines that each need two seconds for a prompt are past their knee far above four a second."""
    (log,) = read(loaded(variant, (0.2, 1.0, 9.0), each=40), tmp_path)
    predicted = predict(log, ROUTES[variant], (0, 1))

    assert 9.0 == predicted.knee_rps
    assert (9.0, 9.0) == predicted.knees_rps
    assert predicted.ttft_s[1.0] < 1.2 * predicted.ttft_s[0.2]


def test_users_who_come_back_are_answered_from_the_cache_if_they_are_routed_by_hash(tmp_path: Path) -> None:
    """The same users again at the next rate: by hash they meet their cache, at random hardly ever."""
    rows = loaded("ps_naive", (0.3,)) + [
        row | {"launch_time": 900.0 + at, "target_qps": 0.4} for at, row in enumerate(loaded("ps_naive", (0.4,)))
    ]
    for at, row in enumerate(rows):
        row["user_id"] = at % 16
    (log,) = read(rows, tmp_path)

    hashed = predict(log, ROUTES["ps_naive"], (0,))
    drawn = predict(log, ROUTES["naive"], (0,))
    assert hashed.ttft_s[0.4] < 0.1 * hashed.ttft_s[0.3]
    assert drawn.ttft_s[0.4] > 0.5 * drawn.ttft_s[0.3]


def test_a_gpu_without_kernel_tables_takes_its_speed_from_the_lowest_rate(tmp_path: Path) -> None:
    """Then the unloaded median is met by that one constant, and what loading does to it is predicted."""
    rows = [row | {"release": "v030", "ttft": 3.0} for row in loaded("naive", (0.1, 9.0), each=40)]
    path = tmp_path / "fleet.parquet"
    write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    (log,) = read_fleet_logs(rows_of(path, COLUMNS, OPTIONAL))
    predicted = predict(log, ROUTES["naive"], (0,))

    assert ("v030 naive", "h20_sxm") == (log.name, predicted.gpu)
    assert predicted.compute is not None
    assert pytest.approx(3.0, rel=0.03) == predicted.ttft_s[0.1]
    assert predicted.ttft_s[9.0] > 4.5


@pytest.mark.timeout(300)
def test_the_real_fleets_knees_are_met_within_one_step(tmp_path: Path) -> None:
    """For every variant of the real log that HAProxy could route like; the others are left out with their reasons."""
    section = FLEETS.section([measured("aibrix_fleet8_llama3.1-8b_requests_v021")], tmp_path)
    variants: Any = section.details["variants"]

    assert ["aibrix_naive_7", "naive", "ps_naive"] == [variant["variant"] for variant in variants]
    assert all(variant["compute"] is None for variant in variants)
    assert all(variant["within_one"] for variant in variants)
    assert {2.9} == {variant["knee_measured_rps"] for variant in variants}
    assert {"fleet_kv_shared": 1585, "fleet_kv_in_host_memory": 2558 + 2557} == section.left_out
    assert (tmp_path / PICTURE).stat().st_size < 150_000
