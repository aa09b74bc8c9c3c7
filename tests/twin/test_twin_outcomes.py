"""A tally says of a run what an exact score says, in memory that does not grow with it."""

import sys
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_twin.fleet.outcomes import Kept, Outcome, Status
from flyball_twin.fleet.scoring import Phase, Score, Slo, percentile, score, timeline
from flyball_twin.fleet.sketches import RELATIVE_ERROR, Sketch
from flyball_twin.fleet.tallies import BINS, Tally
from twin_parts import ask

SLOS = (Slo(lane="realtime", ttft_s=2.0, tpot_s=0.05), Slo(lane="bulk", e2e_s=100.0))
PHASES = (Phase(name="calm", from_s=0.0, to_s=100.0), Phase(name="storm", from_s=100.0, to_s=300.0))
A, B = PoolId("a"), PoolId("b")

ROWS = st.lists(
    st.tuples(
        st.floats(0.0, 299.0),
        st.sampled_from(["realtime", "bulk"]),
        st.sampled_from([A, B]),
        st.sampled_from(list(Status)),
        st.floats(1e-3, 50.0),
        st.floats(1e-4, 1.0),
    ),
    max_size=60,
)


def outcomes_of(rows: list[tuple[float, str, PoolId, Status, float, float]]) -> list[Outcome]:
    """One outcome of each row, with ids in the order of the rows."""
    made = []
    for id_, (arrival_s, lane, pool, status, ttft_s, tpot_s) in enumerate(rows):
        request = ask(id_, arrival_s, output=11, lane=lane)
        first_s = arrival_s + ttft_s
        made.append(
            Outcome(
                request=request,
                pool=pool,
                engine=EngineId("e0"),
                status=status,
                ended_s=first_s + 10 * tpot_s,
                first_token_s=first_s if status is Status.FINISHED else inf,
            )
        )

    return made


def same(found: Score, exact: Score) -> bool:
    """Whether the two agree: exactly, and percentiles within the sketch's error."""
    for name in Score.__dataclass_fields__:
        ours, theirs = getattr(found, name), getattr(exact, name)
        near = "_p" in name and theirs is not None
        if ours != (pytest.approx(theirs, rel=RELATIVE_ERROR * 1.001) if near else theirs):
            return False

    return True


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_a_tally_agrees_with_the_exact_score(rows: list[tuple[float, str, PoolId, Status, float, float]]) -> None:
    """Of all, of each pool, lane and phase, whatever became of the requests."""
    outcomes = outcomes_of(rows)
    tally, kept = Tally(SLOS, 300.0, PHASES), Kept()
    for outcome in outcomes:
        tally.record(outcome)
        kept(outcome)
    requests = [outcome.request for outcome in outcomes]

    assert same(tally.score(), score(requests, kept.outcomes, SLOS, to_s=300.0))
    for pool in (A, B):
        mine = [outcome.request for outcome in outcomes if outcome.pool == pool]

        assert same(tally.score(pool=pool), score(mine, kept.outcomes, SLOS, to_s=300.0))
    for slo in SLOS:
        mine = [request for request in requests if request.lane == slo.lane]

        assert same(tally.score(lane=slo.lane), score(mine, kept.outcomes, SLOS, to_s=300.0))
    for phase in PHASES:
        exact = score(requests, kept.outcomes, SLOS, from_s=phase.from_s, to_s=phase.to_s)

        assert same(tally.score(phase=phase.name), exact)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_a_tally_draws_the_exact_timeline(rows: list[tuple[float, str, PoolId, Status, float, float]]) -> None:
    """Minute by minute, up to the last arrival."""
    outcomes = outcomes_of(rows)
    tally, kept = Tally(SLOS, 300.0), Kept()
    for outcome in outcomes:
        tally.record(outcome)
        kept(outcome)
    exact = timeline([outcome.request for outcome in outcomes], kept.outcomes, SLOS, to_s=300.0)
    drawn = tally.timeline()

    assert drawn == exact[: len(drawn)]
    assert not any(minute.arrivals for minute in exact[len(drawn) :])


def test_a_long_run_has_longer_bins_and_no_more_of_them() -> None:
    """Arrivals over 40 times as many minutes as there are bins: none is lost, and the bins are as wide as they must."""
    tally = Tally(SLOS, 40 * BINS * 60.0)
    arrivals = [at * 60.0 for at in range(0, 40 * BINS, 7)]
    for id_, arrival_s in enumerate(arrivals):
        tally.record(outcomes_of([(arrival_s, "bulk", A, Status.FINISHED, 1.0, 0.1)])[0])
        if id_ % 1000 == 0:
            assert len(tally.timeline()) <= BINS
    drawn = tally.timeline()

    assert sum(minute.arrivals.get("bulk", 0) for minute in drawn) == len(arrivals)
    assert {minute.arrivals["bulk"] for minute in drawn} <= {9, 10}
    assert {minute.length_s for minute in drawn} == {64 * 60.0}
    assert all(later.from_s - minute.from_s == minute.length_s for minute, later in pairwise(drawn))


@given(values=st.lists(st.floats(1e-6, 1e7), min_size=1, max_size=200), share=st.floats(0.0, 1.0))
def test_a_sketch_is_within_its_error(values: list[float], share: float) -> None:
    """Of the nearest-rank percentile, at any share."""
    sketch = Sketch()
    for value in values:
        sketch.add(value)

    assert sketch.quantile(share) == pytest.approx(percentile(values, share), rel=RELATIVE_ERROR * (1 + 1e-6))
    assert sketch.total == pytest.approx(sum(values))


@given(left=st.lists(st.floats(1e-3, 1e3)), right=st.lists(st.floats(1e-3, 1e3)))
def test_merged_sketches_are_the_sketch_of_all(left: list[float], right: list[float]) -> None:
    """What each counted is counted, in whichever order."""
    one, other, whole = Sketch(), Sketch(), Sketch()
    for value in left:
        one.add(value)
    for value in right:
        other.add(value)
    for value in (*right, *left):
        whole.add(value)
    one.merge(other)

    assert (one.bins, one.count) == (whole.bins, whole.count)


def test_a_sketch_stays_small() -> None:
    """Values over all that it can tell apart, and beyond, fill some 1,500 bins; nothing has no percentile."""
    sketch = Sketch()

    assert sketch.quantile(0.5) is None
    value = 1e-9
    while value < 1e9:
        sketch.add(value)
        value *= 1.001

    assert len(sketch.bins) < 1500
    assert sys.getsizeof(sketch.bins) < 100_000
    assert sketch.quantile(0.0) == pytest.approx(1e-6, rel=RELATIVE_ERROR)
    assert sketch.quantile(1.0) == pytest.approx(1e7, rel=RELATIVE_ERROR)


def test_a_tally_that_makes_no_sense_is_refused() -> None:
    """Lanes without objective, phases that overlap or are unknown, no length."""
    tally = Tally(SLOS, 300.0, PHASES)
    with pytest.raises(Rejected, match="lane 'agent'"):
        tally.record(outcomes_of([(0.0, "agent", A, Status.FINISHED, 1.0, 0.1)])[0])
    with pytest.raises(Rejected, match="no phase 'night'"):
        tally.score(phase="night")
    with pytest.raises(Rejected, match="before 'calm' ends"):
        Tally(SLOS, 300.0, (*PHASES, Phase(name="gust", from_s=50.0, to_s=60.0)))
    with pytest.raises(Rejected, match="longer"):
        Tally(SLOS, 0.0)
