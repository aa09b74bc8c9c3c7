"""Fault 11: clocks that are an hour off, step back, or stand still.

Frames are ordered by their sequence numbers and aged by the log's time, so a wall clock decides nothing; that it is
wrong is told within three ticks, once.
"""

from collections.abc import Callable, Iterable

import pytest

from flyball_controller.machine.alarms import CLOCK_SKEW, MAX_NAMED
from flyball_core.frames import Frame
from flyball_core.outputs import DecisionRecord, RecordKind
from harness.invariants import check_events
from harness.scripted_engine import Load
from harness.scripted_pool import Message, ScriptedPool, scripted_pool

SECONDS = 150
FROM_S = 40
"""The clock is wrong from here on."""

Skew = Callable[[Frame, float], Frame]
"""A frame as an agent makes it whose clock is wrong at that second."""


def moving_pool(agents: int = 2) -> ScriptedPool:
    """A pool with changing load and a slow engine, so that much is decided."""
    pool = scripted_pool(
        agents=agents,
        load=lambda now: Load(concurrency=120.0 if now % 100 < 50 else 500.0, context_tokens=800.0 + 40.0 * (now % 60)),
    )
    pool.engines["e0-1"].slowness = 2.2
    return pool


def played(skew: Skew, agents: tuple[str, ...] = ("a1",), pool: ScriptedPool | None = None) -> ScriptedPool:
    """A run in which the clocks of these agents are wrong."""
    pool = pool or moving_pool()

    def wrong(frame: Frame) -> Iterable[Frame]:
        return (skew(frame, pool.now_s) if frame.agent in agents and pool.now_s >= FROM_S else frame,)

    pool.on_frame = wrong
    pool.run(SECONDS)
    return pool


def decided(pool: ScriptedPool) -> tuple[list[Message], list[DecisionRecord]]:
    """Everything that was told and decided."""
    kinds = (RecordKind.DECISION, RecordKind.ACK, RecordKind.OUTCOME)
    return pool.log.told(), [record for record in pool.log.decisions() if record.kind in kinds]


def alarms(pool: ScriptedPool) -> list[DecisionRecord]:
    """The alarms about clocks."""
    return [one for one in pool.log.decisions(RecordKind.ALARM) if one.summary.startswith(CLOCK_SKEW)]


def ahead(by_s: float) -> Skew:
    """A wall clock that is wrong by so much."""
    return lambda frame, _: frame._replace(wall_s=frame.wall_s + by_s)


def stopped(frame: Frame, now_s: float) -> Frame:
    """A wall clock that stands still."""
    return frame._replace(wall_s=frame.wall_s - (now_s - FROM_S))


@pytest.fixture(scope="module")
def clean() -> tuple[list[Message], list[DecisionRecord]]:
    """What is decided with every clock right."""
    pool = moving_pool()
    pool.run(SECONDS)

    assert [] == alarms(pool)
    return decided(pool)


@pytest.mark.parametrize(
    ("skew", "says"),
    [
        (ahead(3600.0), "is 3599 s ahead of the controller's"),
        (ahead(-3600.0), "is 3601 s behind the controller's"),
        (ahead(-5.0), "went back by 4 s"),
        (ahead(5.0), "moved 6 s in 1 s"),
        (stopped, "stands still"),
    ],
    ids=["ahead_3600_s", "behind_3600_s", "stepping_back_5_s", "stepping_ahead_5_s", "stopped"],
)
def test_f11_a_wall_clock_skewed_by_3600_s_or_stepping_or_stopped_changes_0_decisions_and_alarms_within_3_ticks(
    clean: tuple[list[Message], list[DecisionRecord]], skew: Skew, says: str
) -> None:
    """Every decision, directive and table is that of the run with right clocks; one alarm names the agent."""
    pool = played(skew)
    first, *_ = alarms(pool)

    assert clean == decided(pool)
    assert FROM_S <= first.time_s <= FROM_S + 3
    assert f"agent a1: its wall clock {says}" in first.summary
    assert [] == check_events(pool.log).all


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_f11_an_agent_that_starts_3600_s_off_is_told_within_3_ticks_and_1_time(by_s: float) -> None:
    """Without a step to be seen the difference to the controller's own clock tells; while it lasts, nothing more."""
    pool = moving_pool()
    pool.on_frame = lambda frame: (ahead(by_s)(frame, pool.now_s) if frame.agent == "a1" else frame,)
    pool.run(SECONDS)
    [alarm] = alarms(pool)

    assert alarm.time_s <= 3
    assert ("3599 s ahead of" if by_s > 0 else "3601 s behind") in alarm.summary
    assert "the controller's" in pool.state.pools["chat"].agents["a1"].clock
    assert "" == pool.state.pools["chat"].agents["a0"].clock


def test_f11_a_controller_3600_s_off_changes_0_decisions() -> None:
    """The owner's own wall clock only serves expiry: ticks that say another hour decide the same, and say so once."""
    right, wrong = moving_pool(), moving_pool()
    wrong.on_frame = lambda frame: (frame._replace(wall_s=frame.wall_s - 3600.0),)  # seen from that owner
    right.run(SECONDS)
    wrong.run(SECONDS)
    [alarm] = alarms(wrong)

    assert decided(right) == decided(wrong)
    assert "agent a0" in alarm.summary
    assert "agent a1" in alarm.summary


def test_f11_a_clock_that_is_right_again_and_wrong_again_is_told_again() -> None:
    """An alarm is raised when a fault begins: an hour off at 40 s, right at 60 s, an hour off at 130 s."""
    pool = moving_pool()

    def wrong(frame: Frame) -> Iterable[Frame]:
        off = frame.agent == "a1" and (40 <= pool.now_s < 60 or pool.now_s >= 130)
        return (frame._replace(wall_s=frame.wall_s + 3600.0 * off),)

    pool.on_frame = wrong
    pool.run(SECONDS)
    times = [one.time_s for one in alarms(pool) if "ahead of" in one.summary]

    assert 2 == len(times)
    assert [True, True] == [40 <= times[0] <= 43, 130 <= times[1] <= 133]


def test_f11_a_clock_that_jumps_every_second_raises_at_most_5_alarms_in_60_ticks() -> None:
    """However mad a clock is, each kind of fault is told once a minute, and nothing else changes."""
    pool = played(lambda frame, now_s: frame._replace(wall_s=frame.wall_s + (7919.0 * now_s) % 5000.0 - 2500.0))
    times = [one.time_s for one in alarms(pool)]

    assert times
    assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 5


def test_f11_40_agents_with_wrong_clocks_make_1_alarm_that_names_8() -> None:
    """Many at once, as when the controller's own clock is wrong, are one record of bounded length."""
    pool = moving_pool(agents=40)
    pool.on_frame = lambda frame: (frame._replace(wall_s=frame.wall_s + 3600.0),)
    pool.run(5)
    [alarm] = alarms(pool)

    assert MAX_NAMED == alarm.summary.count("agent a")
    assert f"and {40 - MAX_NAMED} more" in alarm.summary


@pytest.mark.parametrize("by_s", [3600.0, -900.0])
def test_f11_a_monotonic_clock_that_begins_3600_s_elsewhere_changes_0_decisions(
    clean: tuple[list[Message], list[DecisionRecord]], by_s: float
) -> None:
    """Only differences of an agent's monotonic clock mean anything: where it begins is nothing."""
    pool = moving_pool()
    pool.on_frame = lambda frame: (frame._replace(monotonic_s=frame.monotonic_s + by_s * (frame.agent == "a1")),)
    pool.run(SECONDS)

    assert clean == decided(pool)
    assert [] == alarms(pool)


@pytest.mark.parametrize("back_s", [0.0, 600.0])
def test_f11_a_monotonic_clock_stopped_or_600_s_back_is_read_by_seq_with_0_late_and_alarms_within_3_ticks(
    back_s: float,
) -> None:
    """Frames are read in the order of their numbers, none is late; a rate that they cannot tell is missing.

    Afterwards that agent's engines have rates again. Every promise holds throughout.
    """
    pool = moving_pool()
    stood_s = [0.0]
    rates: list[float] = []

    def wrong(frame: Frame) -> Iterable[Frame]:
        rates.append(pool.state.pools["chat"].features.get("gen_tokens_per_s", 0.0))
        if frame.agent != "a1":
            return (frame,)
        if not FROM_S <= pool.now_s < FROM_S + 20:
            stood_s[0] = frame.monotonic_s
            return (frame,)
        return (frame._replace(monotonic_s=max(stood_s[0] - back_s * (pool.now_s - FROM_S + 1), 0.0)),)

    pool.on_frame = wrong
    pool.run(SECONDS)
    first, *_ = alarms(pool)

    assert FROM_S <= first.time_s <= FROM_S + 3
    assert "agent a1: its monotonic clock" in first.summary
    assert 0 == pool.state.pools["chat"].counts.get("late", 0)
    assert 2 * SECONDS == pool.state.pools["chat"].counts["delivered"]
    assert min(rates) >= 0.0
    assert [] == check_events(pool.log).all
