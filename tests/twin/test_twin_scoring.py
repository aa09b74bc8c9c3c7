"""Scores count every arrival, and a timeline adds up to them."""

import pytest
from hypothesis import given, strategies as st

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.fleet.scoring import Slo, percentile, score, timeline
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request
from twin_parts import ask

SLOS = (Slo(lane="realtime", ttft_s=2.0, tpot_s=0.05), Slo(lane="bulk", e2e_s=100.0))


def done(request: Request, ttft_s: float, tpot_s: float) -> Outcome:
    """An outcome with these latencies."""
    first_s = request.arrival_s + ttft_s
    return Outcome(
        request=request,
        pool=PoolId(""),
        engine=EngineId("e0"),
        first_token_s=first_s,
        ended_s=first_s + tpot_s * (request.output_tokens - 1),
    )


def missed(request: Request, status: Status, first_s: float = NEVER) -> Outcome:
    """One that ended otherwise, a second after it came."""
    at_s = request.arrival_s + 1.0
    return Outcome(
        request=request, pool=PoolId(""), engine=None, status=status, ended_s=at_s, first_token_s=first_s, attempts=0
    )


def test_each_bound_of_an_objective_counts() -> None:
    """Too late a first token, too slow a pace, too late an end, or no end at all: each is a miss."""
    chat, bulk = ask(0, output=11), ask(1, output=11, lane="bulk")

    assert SLOS[0].met(done(chat, 2.0, 0.04))
    assert not SLOS[0].met(done(chat, 2.1, 0.04))
    assert not SLOS[0].met(done(chat, 0.1, 0.06))
    assert SLOS[1].met(done(bulk, 50.0, 4.9))
    assert not SLOS[1].met(done(bulk, 51.0, 5.0))
    assert not SLOS[0].met(None)
    assert SLOS[0].met(done(ask(2, output=1), 1.0, 0.0))


def test_what_did_not_finish_meets_no_objective() -> None:
    """Not even one that promises nothing, nor one whose first token was in time; and it has no pace."""
    free = Slo(lane="realtime")
    for status in (Status.REFUSED, Status.ABANDONED, Status.LOST, Status.OPEN):
        outcome = missed(ask(0), status, first_s=0.1)

        assert not free.met(outcome)
        assert (outcome.finished, outcome.finished_s, outcome.tpot_s) == (False, NEVER, None)
    assert free.met(done(ask(0), 1.0, 0.1))


def test_all_arrivals_count() -> None:
    """Attainment and goodput are over what arrived, percentiles over what finished."""
    requests = [ask(0), ask(1), ask(2, lane="bulk"), ask(3, 50.0)]
    outcomes = {0: done(requests[0], 1.0, 0.01), 2: done(requests[2], 3.0, 0.02)}
    result = score(requests, outcomes, SLOS, to_s=100.0)

    assert (result.arrivals, result.finished, result.attained, result.attainment) == (4, 2, 2, 0.5)
    assert result.lanes == {"realtime": 1 / 3, "bulk": 1.0}
    assert result.slo_goodput_rps == 0.02
    assert (result.ttft_p50_s, result.ttft_p99_s) == (1.0, 3.0)
    assert result.tpot_p99_s == pytest.approx(0.02)
    assert result.unfinished == {"open": 2}


def test_what_did_not_finish_is_told_apart() -> None:
    """Refused, given up, lost and open requests are counted by their names, and leave the percentiles alone."""
    requests = [ask(id_) for id_ in range(5)]
    outcomes = {
        0: done(requests[0], 1.0, 0.01),
        1: missed(requests[1], Status.REFUSED),
        2: missed(requests[2], Status.LOST, first_s=0.5),
        3: missed(requests[3], Status.ABANDONED),
    }
    result = score(requests, outcomes, SLOS, to_s=10.0)

    assert result.unfinished == {"refused": 1, "abandoned": 1, "lost": 1, "open": 1}
    assert (result.arrivals, result.finished, result.attained) == (5, 1, 1)
    assert result.ttft_p50_s == result.ttft_p99_s == 1.0


def test_a_span_holds_the_requests_that_arrived_in_it() -> None:
    """From its start, up to but without its end."""
    requests = [ask(id_, 10.0 * id_) for id_ in range(5)]

    assert score(requests, {}, SLOS, from_s=10.0, to_s=30.0).arrivals == 2


def test_nothing_asked_is_nothing_missed() -> None:
    """Without arrivals attainment is 1 and there are no percentiles."""
    result = score([], {}, SLOS, to_s=1.0)

    assert (result.attainment, result.lanes, result.ttft_p50_s, result.tpot_p99_s) == (1.0, {}, None, None)


@given(rows=st.lists(st.tuples(st.floats(0.0, 299.0), st.booleans(), st.sampled_from(["realtime", "bulk"]))))
def test_the_timeline_adds_up_to_the_score(rows: list[tuple[float, bool, str]]) -> None:
    """Summed over its minutes, arrivals and attained are the score's."""
    requests = [ask(id_, arrival_s, lane=lane) for id_, (arrival_s, _, lane) in enumerate(rows)]
    outcomes = {request.id: done(request, 0.1, 0.01) for request, row in zip(requests, rows, strict=True) if row[1]}
    result = score(requests, outcomes, SLOS, to_s=300.0)
    minutes = timeline(requests, outcomes, SLOS, to_s=300.0)

    assert [minute.from_s for minute in minutes] == [0.0, 60.0, 120.0, 180.0, 240.0]
    assert sum(sum(minute.arrivals.values()) for minute in minutes) == result.arrivals
    assert sum(sum(minute.attained.values()) for minute in minutes) == result.attained


def test_percentiles_are_values_that_occurred() -> None:
    """Nearest rank: no interpolation, and nothing of nothing."""
    values = [float(value) for value in range(1, 101)]

    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([], 0.5) is None
    assert percentile([7.0], 0.99) == 7.0


def test_a_lane_without_objective_is_refused() -> None:
    """It would otherwise be scored by nobody's promise."""
    with pytest.raises(Rejected, match="lane 'agent'"):
        score([ask(0, lane="agent")], {}, SLOS, to_s=1.0)


def test_spans_and_bins_without_length_are_refused() -> None:
    """Neither can hold anything."""
    with pytest.raises(Rejected, match="runs forward"):
        score([], {}, SLOS, from_s=5.0, to_s=5.0)
    with pytest.raises(Rejected, match="bin"):
        timeline([], {}, SLOS, to_s=5.0, bin_s=0.0)
