"""Request logs: read strictly, replayed as vLLM stamps, fitted on a third, scored on the rest."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

import measured_tables
from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.physics import EngineModel, gpu_named, model_named
from flyball_twin.validation.request_deployment import blocks_seen, cap_seen, deployment_of, with_blocks
from flyball_twin.validation.request_fit import Constants, fit, search
from flyball_twin.validation.request_logs import (
    REQUEST_COLUMNS,
    STAMPS,
    TELEMETRY_COLUMNS,
    LoggedRequest,
    RequestLog,
    TelemetryPoint,
    read_request_logs,
    read_telemetry,
)
from flyball_twin.validation.request_replay import Deployment, replay
from flyball_twin.validation.request_section import REQUESTS, UNKNOWN, curves_of, part_of, picture_name
from flyball_twin.validation.rows import rows_of
from flyball_twin.validation.seam import Section

ENGINE = EngineModel(
    gpu=gpu_named("rtx_4090"), model=model_named("llama-3.1-8b"), max_active_requests=64, max_batched_tokens=2048
)
CELLS: dict[str, Any] = {
    "input_toks": 100,
    "output_toks": 10,
    "queued_ts": 1.0,
    "scheduled_ts": 1.5,
    "first_token_ts": 2.0,
    "last_token_ts": 3.0,
    "gpu": "RTX4090",
    "model": "Llama-3.1-8B",
}
GAUGES: dict[str, Any] = {
    "t": 1.0,
    "running": 5,
    "waiting": 0,
    "kv_cache_pct": 12.5,
    "gpu": "RTX4090",
    "model": "Llama-3.1-8B",
}


def saved(rows: list[dict[str, Any]], path: Path) -> Path:
    """A Parquet file with these rows."""
    write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
    return path


def asked(count: int, *, rate_rps: float, seed: int = 1) -> list[LoggedRequest]:
    """Requests at random times, with lengths of chat, that nobody has answered yet."""
    rng = random.Random(seed)
    at_s, requests = 0.0, []
    for _ in range(count):
        requests.append(
            LoggedRequest(
                queued_s=at_s,
                scheduled_s=at_s,
                first_token_s=at_s,
                last_token_s=at_s,
                prompt_tokens=rng.randint(100, 2500),
                output_tokens=rng.randint(50, 400),
            )
        )
        at_s += rng.expovariate(rate_rps)
    return requests


def answered_by(deployment: Deployment, requests: list[LoggedRequest]) -> tuple[LoggedRequest, ...]:
    """The log that an engine would have written that is just like the twin."""
    made = replay(requests, deployment)
    return tuple(
        replace(
            request,
            scheduled_s=request.queued_s + served.queue_s,
            first_token_s=request.queued_s + served.queue_s + served.prefill_s,
            last_token_s=request.queued_s + served.queue_s + served.service_s,
        )
        for request, served in zip(requests, made.served, strict=True)
    )


def test_a_file_may_hold_several_logs_each_from_its_own_zero(tmp_path: Path) -> None:
    """Rows are told apart by GPU and model, put in order, and counted from the first that was queued."""
    later = CELLS | {"queued_ts": 1.4}
    other = CELLS | {"gpu": "H100", "queued_ts": 0.5}
    logs = read_request_logs(rows_of(saved([later, CELLS, other], tmp_path / "log.parquet"), REQUEST_COLUMNS))

    assert [("H100", 1), ("RTX4090", 2)] == [(log.gpu, len(log.requests)) for log in logs]
    first, second = logs[1].requests
    assert (0.0, 0.5, 0.5, 1.5) == (first.queued_s, first.queue_s, first.prefill_s, first.service_s)
    assert pytest.approx(0.4) == second.queued_s
    assert pytest.approx(1.0 / 9) == first.tpot_s


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first_token_ts": 1.2}, "queued, scheduled, answered and finished in this order"),
        ({"input_toks": 0}, "input_toks is 0, below 1"),
        ({"output_toks": None}, "output_toks is None, not a number"),
        ({"queued_ts": float("nan")}, "queued_ts is nan, not a number"),
        ({"gpu": ""}, "gpu is '', not a name"),
    ],
)
def test_a_row_that_is_no_request_is_named_by_file_and_number(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    """Nothing is repaired: a wrong row ends the reading, and the error says which and why."""
    path = saved([CELLS, CELLS | change], tmp_path / "log.parquet")

    with pytest.raises(InvalidDocument, match=says) as caught:
        read_request_logs(rows_of(path, REQUEST_COLUMNS))
    assert (str(path), 2) == (caught.value.file, caught.value.line)


def test_telemetry_has_gauges_that_can_be(tmp_path: Path) -> None:
    """A cache is at most full, and what is no gauge is named by its row."""
    good = read_telemetry(rows_of(saved([GAUGES], tmp_path / "good.parquet"), TELEMETRY_COLUMNS))
    bad = rows_of(saved([GAUGES | {"kv_cache_pct": 100.5}], tmp_path / "bad.parquet"), TELEMETRY_COLUMNS)

    point = TelemetryPoint(at_s=1.0, running=5, waiting=0, kv_share=0.125)
    assert {("RTX4090", "Llama-3.1-8B"): (point,)} == good
    with pytest.raises(InvalidDocument, match="at most full"):
        read_telemetry(bad)


def test_telemetry_needs_its_request_log(tmp_path: Path) -> None:
    """Gauges alone say nothing that could be scored."""
    path = saved([GAUGES], tmp_path / "telemetry.parquet")

    assert REQUESTS.recognises(frozenset(GAUGES))
    with pytest.raises(Rejected, match="needs the request log"):
        REQUESTS.section([path], None)


def test_a_log_too_short_for_a_third_is_refused(tmp_path: Path) -> None:
    """A fit on a handful of requests would say nothing."""
    with pytest.raises(Rejected, match="not 30 or more"):
        REQUESTS.section([saved([CELLS] * 6, tmp_path / "log.parquet")], None)


def test_a_request_that_no_engine_holds_is_told_with_its_log(tmp_path: Path) -> None:
    """Whose log it is, how many tokens were asked for, and how many there are."""
    rows = [CELLS] * 30 + [CELLS | {"input_toks": 10**9}]

    with pytest.raises(Rejected, match=r"the log of RTX4090, Llama-3.1-8B: .*1000000010 tokens"):
        REQUESTS.section([saved(rows, tmp_path / "log.parquet")], None)


def test_a_log_with_a_hole_of_ages_is_refused(tmp_path: Path) -> None:
    """A stamp that is far off would have the replay look at its gauges for ever."""
    ages = dict.fromkeys(STAMPS, 1000000000000.0)

    with pytest.raises(Rejected, match=r"RTX4090, Llama-3.1-8B goes on for 1e\+12 s, longer than 86400 s"):
        REQUESTS.section([saved([CELLS] * 30 + [CELLS | ages], tmp_path / "log.parquet")], None)


def test_a_fit_recovers_the_engine_that_wrote_the_log() -> None:
    """A log that a slower twin wrote is met by a fit on its first third: on the rest as well, queueing with it."""
    truth = Constants(bandwidth=0.75, compute=0.8, host_s=4e-3)
    deployment = Deployment(engine=with_blocks(ENGINE, 2000))
    log = answered_by(replace(deployment, engine=truth.on(deployment.engine)), asked(60, rate_rps=3.0))

    found = fit(log, deployment, 20)

    fitted = replace(deployment, engine=found.constants.on(deployment.engine))
    rest = part_of(log[20:], replay(log, fitted).served[20:])
    before = part_of(log[20:], replay(log, deployment).served[20:])
    assert rest.tpot.p50_ape is not None
    assert rest.prefill.p50_ape is not None
    assert before.tpot.p50_ape is not None
    assert before.tpot.p50_ape > 0.1
    assert rest.tpot.p50_ape < 0.02
    assert rest.prefill.p50_ape < 0.06
    assert pytest.approx(truth.bandwidth, rel=0.2) == found.constants.bandwidth


def test_only_answers_of_the_first_third_are_fitted() -> None:
    """What the log says of later requests' answers changes nothing in the fit."""
    deployment = Deployment(engine=with_blocks(ENGINE, 2000))
    log = answered_by(deployment, asked(40, rate_rps=4.0))
    spoiled = (*log[:13], *(replace(request, last_token_s=request.last_token_s + 99.0) for request in log[13:]))

    assert fit(log, deployment, 13) == fit(spoiled, deployment, 13)


def test_a_replay_of_the_first_requests_is_the_beginning_of_the_whole() -> None:
    """Ending early changes nothing of what is told."""
    deployment = Deployment(engine=with_blocks(ENGINE, 500))
    requests = asked(40, rate_rps=5.0)

    assert replay(requests, deployment).served[:12] == replay(requests, deployment, first=12).served


def test_asynchronous_scheduling_stamps_one_step_early() -> None:
    """A request scheduled while a step runs has that step before its first token; on an idle engine it has none."""
    requests = asked(30, rate_rps=20.0)
    early = replay(requests, Deployment(engine=ENGINE)).served
    late = replay(requests, Deployment(engine=ENGINE, scheduling=Scheduling())).served

    leads = [one.prefill_s - other.prefill_s for one, other in zip(early, late, strict=True)]
    assert leads[0] == 0.0
    assert leads[1] > 0.01
    # From then on the two have different requests in their steps.
    assert [one.queue_s for one in early[:2]] == [other.queue_s for other in late[:2]]
    assert median(leads) > 0.01


def test_requests_are_spread_over_data_parallel_ranks() -> None:
    """Two ranks run twice as many requests as one with the same cap, and are done sooner."""
    requests = asked(40, rate_rps=1000.0)
    roomy = with_blocks(ENGINE, 8000)
    one = replay(requests, Deployment(engine=replace(roomy, max_active_requests=8)), sample_s=0.1)
    two = replay(requests, Deployment(engine=replace(roomy, max_active_requests=8), ranks=2), sample_s=0.1)

    assert (8, 16) == (max(point.running for point in one.curve), max(point.running for point in two.curve))
    assert two.curve[-1].at_s < 0.7 * one.curve[-1].at_s


def test_blocks_are_read_off_the_grid_of_the_caches_use() -> None:
    """Percentages with two digits lie on a grid of as many blocks as there are, unless it is too fine or too few."""
    used = (342, 1027, 1667, 2311, 2580, 2515, 2542, 2581)
    shares = [round(100.0 * blocks / 2587, 2) / 100.0 for blocks in used]

    assert 2587 == blocks_seen([0.0, 1.0, *shares])
    assert blocks_seen(shares[:2]) is None
    assert blocks_seen([round(blocks / 180_000, 4) for blocks in used]) is None
    assert blocks_seen([]) is None


def test_a_cap_is_seen_where_running_stays_flat_while_others_wait() -> None:
    """A plateau below waiting requests is a cap; a full cache's ups and downs are none."""

    def gauges(running: int, waiting: int = 9, kv_share: float = 0.3) -> TelemetryPoint:
        return TelemetryPoint(at_s=0.0, running=running, waiting=waiting, kv_share=kv_share)

    assert 128 == cap_seen([gauges(100, 0), gauges(128), gauges(127), gauges(128), gauges(128)])
    assert cap_seen([gauges(36), gauges(35), gauges(34), gauges(36)]) is None
    assert cap_seen([gauges(40, kv_share=1.0)] * 5) is None
    assert cap_seen([gauges(50, 0)] * 5) is None


def test_an_unpublished_log_says_what_was_assumed() -> None:
    """Where nobody published how an engine was started, the report says what was seen and what was not."""
    requests = tuple(asked(30, rate_rps=1.0))
    known = deployment_of(RequestLog(gpu="H100 SXM", model="Qwen3-14B", requests=requests))

    assert "cap: 256 requests assumed" == known.sources[0]
    assert known.sources[2].startswith("tensor parallel 1 assumed")
    with pytest.raises(Rejected, match="gpu takes one of"):
        deployment_of(RequestLog(gpu="abacus", model="Qwen3-14B", requests=requests))


def test_an_unpublished_model_that_one_gpu_cannot_hold_is_spread_over_more() -> None:
    """The fewest GPUs that hold the weights are assumed, and said so."""
    log = RequestLog(gpu="RTXPRO6000", model="Llama-3.1-70B", requests=tuple(asked(30, rate_rps=1.0)))

    assert 2 == deployment_of(log).deployment.engine.tensor_parallel


def test_a_log_of_what_the_twin_does_not_know_is_left_out_and_counted(tmp_path: Path) -> None:
    """An unknown GPU ends nothing: its requests are counted with the reason."""
    section = REQUESTS.section([saved([CELLS | {"gpu": "abacus"}] * 40, tmp_path / "log.parquet")], None)

    assert {UNKNOWN: 40} == section.left_out
    assert not section.groups


def test_a_search_ends_at_the_least_within_its_bounds() -> None:
    """It follows a valley that no axis runs along, and stays inside."""

    def valley(place: Sequence[float]) -> float:
        one, other = place
        return (one + other - 1.0) ** 2 * 10.0 + (one - other - 0.4) ** 2

    free = search(valley, (0.0, 0.0), [(-2.0, 2.0), (-2.0, 2.0)])
    bound = search(valley, (0.0, 0.0), [(-2.0, 0.5), (-2.0, 2.0)])

    assert pytest.approx((0.7, 0.3), abs=0.06) == free.place
    assert bound.place[0] <= 0.5
    assert free.loss < bound.loss


def test_a_twin_that_is_done_has_empty_gauges() -> None:
    """Where telemetry goes on after the twin's last request, the twin counts as idle."""
    measured = [TelemetryPoint(at_s=float(at), running=4, waiting=2, kv_share=0.0) for at in (1, 2, 3, 4)]
    made = [replace(point, running=4) for point in measured[:2]]

    curves = curves_of(measured, made)

    assert curves is not None
    assert (0.5, 0.5, None) == (curves.running, curves.waiting, curves.kv)
    assert curves_of([], made) is None


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Section, Path]:
    """The section of the real logs, and the folder with their pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ("llmservingsim_real_vllm_requests", "llmservingsim_real_vllm_telemetry_1s")
    return REQUESTS.section([measured_tables.measured(name) for name in names], folder), folder


def _logs(section: Section) -> list[dict[str, Any]]:
    logs = section.details["logs"]
    assert isinstance(logs, list)
    return logs


@pytest.mark.timeout(300)
def test_real_vllm_is_met_after_a_fit_on_the_first_third(real: tuple[Section, Path]) -> None:
    """On the other two thirds: dense models within 5 % per token and 35 % to the first, queueing within 5 %."""
    logs = {(log["gpu"], log["model"]): log for log in _logs(real[0])}
    dense = [log for (_, model), log in logs.items() if model == "Llama-3.1-8B"]

    assert 3 == len(logs)
    assert 2 == len(dense)
    for log in dense:
        assert log["rest"]["tpot"]["p50"] < 0.05
        assert log["rest"]["prefill"]["p50"] < 0.35
        assert log["rest"]["queue"]["p50"] < 0.05
        assert log["curves"]["waiting"] < 0.03
    mixture = logs["RTXPRO6000", "Qwen3-30B-A3B-Instruct-2507"]
    assert mixture["rest"]["tpot"]["p50"] < 0.15
    assert any("2587 KV blocks" in source for source in logs["RTX4090", "Llama-3.1-8B"]["deployment"])


@pytest.mark.timeout(300)
def test_pictures_of_real_logs_are_drawn(real: tuple[Section, Path]) -> None:
    """One picture for each log, small enough for the documentation."""
    for log in _logs(real[0]):
        drawn = real[1] / picture_name(RequestLog(gpu=log["gpu"], model=log["model"], requests=()))
        assert 10_000 < drawn.stat().st_size < 150_000
