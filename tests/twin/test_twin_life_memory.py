"""A run remembers as much of a week as of an hour: bins get longer, and of old changes only sums are kept."""

from dataclasses import replace

import pytest

from flyball_core.errors import Rejected
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, LogId, PoolId
from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT
from flyball_core.outputs import DecisionRecord, RecordKind, TickRecord, Verdict
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.governed import observing
from flyball_twin.governed.observing import Chronicle
from flyball_twin.governed.scorecard import LAST_REQUESTS, Scorecard
from flyball_twin.governed.trail import BINS, LENGTHS_S, Trail, bin_length_s
from flyball_twin.scenario.building import build_fleet
from life_parts import scenario
from twin_parts import ask, fleet_of

POOL = PoolId("chat")
VERSION = Version(log_id=LogId("l"), partition=0, epoch=0, revision=1)


def tick(at_s: float, regime: str) -> TickRecord:
    """A tick that names a regime."""
    return TickRecord(
        pool=POOL,
        version=VERSION,
        time_s=at_s,
        wall_s=0.0,
        inputs_digest=0,
        mode="control",
        regime=regime,
        confidence=1.0,
        alarm=False,
    )


def decision(at_s: float, new: int) -> DecisionRecord:
    """A decision that changes one cap."""
    wish = Proposal(policy="p", kind=TargetKind.ENGINE, target="e0", knob=BATCH_CAP, value=new, reason="r")
    return DecisionRecord(
        pool=POOL,
        kind=RecordKind.DECISION,
        version=VERSION,
        decision=f"d{at_s}",
        time_s=at_s,
        wall_s=0.0,
        mode="control",
        regime="idle",
        confidence=1.0,
        summary="",
        verdicts=(Verdict(proposal=wish, before=new - 1, allowed=new, rule="accepted", reason=""),),
    )


def test_old_changes_and_shifts_give_way_and_stay_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest are kept word for word, the rest as counts and times."""
    monkeypatch.setattr(observing, "REMEMBERED", 100)
    chronicle = Chronicle()
    for second in range(1000):
        chronicle.take(tick(float(second), "idle" if second % 2 else "interactive"))
        chronicle.take(decision(float(second), second + 2))
    seen = chronicle.seen

    assert 50 <= len(seen.changes) <= 100
    assert 50 <= len(seen.shifts) <= 100
    assert seen.changes[-1].decided_at_s == seen.shifts[-1].at_s == 999.0
    assert 1000 == seen.changed["chat", BATCH_CAP]
    assert {"interactive": 500.0, "idle": 499.0} == seen.regime_s["chat"]


@pytest.mark.parametrize("end_s", [60.0, 1116.0, 86_400.0, 7 * 86_400.0, 28 * 86_400.0])
def test_a_longer_run_has_longer_bins(end_s: float) -> None:
    """About as many bins as ever, and none longer than it has to be."""
    length_s = bin_length_s(end_s)

    assert length_s in LENGTHS_S
    assert end_s / length_s <= BINS
    assert length_s == LENGTHS_S[0] or end_s / max(one for one in LENGTHS_S if one < length_s) > BINS


def test_a_bin_is_the_mean_of_its_looks() -> None:
    """Running, waiting and queued are means; knobs are as when the bin began; what is down does not count."""
    fleet = fleet_of(2, [ask(id_, 0.0, prompt=2000, output=900) for id_ in range(8)])
    trail = Trail(1000.0)  # bins of 5 s
    for second in range(1, 11):
        fleet.run_until(float(second))
        if second == 8:
            fleet.restart(EngineId("e1"), {VARIANT: "splitkv"})
        trail.look(fleet)
    [pool] = fleet.pools
    first, second_bin = trail.moments(pool)

    assert (first.from_s, second_bin.from_s) == (0.0, 5.0)
    assert (first.running, first.serving, first.queued) == (8.0, 2.0, 0.0)
    assert second_bin.serving == pytest.approx((2 + 2 + 1 + 1 + 1) / 5)
    assert first.kv_mean == pytest.approx(first.kv_max, rel=0.2)
    assert first.knobs[EngineId("e0")].settings[VARIANT] == "graphs"
    assert first.knobs[EngineId("e1")].weight == 100
    with pytest.raises(Rejected, match="ends after 0 s"):
        Trail(0.0)


def test_a_scorecard_counts_what_it_does_not_keep() -> None:
    """Attainment of all and of the latest, and tokens of what finished; a request that did not finish has missed."""
    small = scenario()
    card = Scorecard(small)
    for index in range(LAST_REQUESTS + 100):
        asked = replace(ask(index, 1.0, output=10, lane="batch"), pool="answers")
        done = Outcome(
            request=asked,
            pool=PoolId("answers"),
            engine=EngineId("large"),
            status=Status.FINISHED if index < 100 else Status.LOST,
            ended_s=5.0,
            first_token_s=2.0,
        )
        card.record(done)

    assert card.attainment == pytest.approx(100 / (LAST_REQUESTS + 100))
    assert card.recent == 0.0
    assert {(PoolId("answers"), "batch"): 1000} == card.output_tokens
    assert card.tally.score().arrivals == LAST_REQUESTS + 100


def test_a_fresh_scorecard_blames_nobody() -> None:
    """Before anything has ended attainment is 1, and a fleet can be looked at."""
    small = scenario()
    card = Scorecard(small)
    card.trail.look(build_fleet(small, 1, card.record))

    assert (card.attainment, card.recent) == (1.0, 1.0)
    assert [(0.0, 0.0)] == [(moment.running, moment.kv_max) for moment in card.trail.moments(PoolId("chat"))]
