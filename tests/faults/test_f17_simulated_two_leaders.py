"""Fault 17, simulated: two controllers that both believe that they lead, for half a minute.

Each claims after the other, ticks, publishes and pushes. The log has one order of claims, so what engines apply has one
order too.
"""

from collections import defaultdict
from itertools import pairwise

import pytest

from flyball_controller.machine.alarms import CONTENDED
from flyball_core.fencing import Fence, Version
from flyball_core.outputs import DecisionRecord, RecordKind
from harness.invariants import read_partition
from laboratory.schedule import Schedule, draw
from laboratory.simulation.kernel import run_now
from laboratory.simulation.world import CAST, Outcome, built

WORLDS = 12
LENGTH_S = 36.0
PEACE = Schedule(seed=0, length_s=LENGTH_S, faults=())
BOTH_UNTIL_S = 28.0


def contested(seed: int, schedule: Schedule) -> Outcome:
    """A world in which both controllers are told from the beginning on that the partition is theirs."""
    with built(seed, schedule) as world:
        world.group.both_until_s = BOTH_UNTIL_S
        world.play()
        return world.judged(replays=True)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """Half of the worlds with nothing else wrong, half with faults besides."""
    schedules = [PEACE if seed % 2 else draw(seed, CAST, LENGTH_S, every_s=6.0) for seed in range(WORLDS)]
    return [contested(seed, schedule) for seed, schedule in enumerate(schedules)]


def test_f17_two_leaders_for_28_s_break_0_promises(outcomes: list[Outcome]) -> None:
    """Nothing lost, nothing unexpected, in 12 worlds with at least 5 claims each, by both."""
    claims = [[line.target for line in outcome.record.happened if line.event == "claimed"] for outcome in outcomes]

    assert [] == [finding for outcome in outcomes for finding in outcome.broken]
    assert min(map(len, claims)) >= 5
    assert all({"controller-0", "controller-1"} == set(each) for each in claims)


def test_f17_the_applied_history_is_totally_ordered_with_exactly_1_epoch_active_per_engine(
    outcomes: list[Outcome],
) -> None:
    """What an engine applied are versions each strictly newer than the one before, of epochs that only grow.

    Epochs are claims of the log, and when both have stopped contending every receiver holds the last one's word.
    """
    for outcome in outcomes:
        recorded = run_now(read_partition(outcome.log, 0))
        by_target: dict[str, list[Version]] = defaultdict(list)
        for line in sorted(outcome.record.applied, key=lambda one: one.at_s):
            by_target[line.target].append(line.version)
        told = {one.version for one in recorded.told} | {one.version for one in recorded.audit}

        assert by_target
        for versions in by_target.values():
            pairs = pairwise(versions)
            assert all(later.against(earlier) is Fence.NEWER for earlier, later in pairs)
            assert told.issuperset(versions)
        epochs = {versions[-1].epoch for target, versions in by_target.items() if target != "gateway-0"}
        assert len(epochs) <= 2, "engines that were told nothing new since keep what they hold; the others agree"


def test_f17_the_alarm_is_raised_1_time_for_a_contest_and_names_both(outcomes: list[Outcome]) -> None:
    """Three claims within a minute are told of in the audit, once, by names; a single takeover is not."""
    for outcome in outcomes:
        audit = run_now(read_partition(outcome.log, 0)).audit
        records = [one for one in audit if isinstance(one, DecisionRecord) and one.kind is RecordKind.ALARM]
        alarms = [one for one in records if one.summary.startswith(CONTENDED)]

        assert 1 == len(alarms)
        assert "by controller-0, controller-1:" in alarms[0].summary


def test_f17_an_ordinary_takeover_raises_0_alarms() -> None:
    """A controller that is killed and succeeded is no contest."""
    with built(1, PEACE) as world:
        world.rivalry = 0.0
        world.machine.at(10.0, world.controllers["controller-0"].kill)
        world.play()
        outcome = world.judged(replays=True)
    audit = run_now(read_partition(outcome.log, 0)).audit

    assert [] == outcome.broken
    assert ["controller-0", "controller-1"] == [one.target for one in outcome.record.happened if one.event == "claimed"]
    assert [] == [one for one in audit if isinstance(one, DecisionRecord) and one.summary.startswith(CONTENDED)]
