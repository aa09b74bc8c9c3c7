"""Fault 9: telemetry duplicated, reordered and replayed from the start.

Within the lateness window the state is bit-equal to that of a clean run, offsets aside;
what is older counts as late; a replay causes no push.
"""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from flyball_controller.machine import standard_seams
from flyball_controller.replay import Verdict, replay_log
from flyball_core.frames import Frame
from flyball_core.inputs import Input
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from harness.invariants import check_events
from harness.logged_pool import logged_pool
from harness.odd_logs import QUICK
from harness.scripted_engine import Load
from harness.scripted_pool import PRINT, ScriptedPool, scripted_pool
from harness.state_text import state_text

SECONDS = 300
QUIET_S = 5


def moving_pool() -> ScriptedPool:
    """A pool with changing load and a slow engine, so that much is decided."""
    pool = scripted_pool(
        load=lambda now: Load(concurrency=120.0 if now % 100 < 50 else 500.0, context_tokens=800.0 + 40.0 * (now % 60))
    )
    pool.engines["e0-1"].slowness = 2.2
    return pool


@pytest.fixture(scope="module")
def clean() -> str:
    """The state after a run in which nothing went wrong."""
    pool = moving_pool()
    pool.run(SECONDS)
    return state_text(pool.state)


@pytest.mark.parametrize("seed", range(5))
def test_f09_duplicates_and_reordering_within_2_s_leave_the_state_bit_equal(clean: str, seed: int) -> None:
    """Up to three copies of each frame, a third of all a tick late and so overtaken, agents shuffled: no difference.

    An agent's first seconds are undisturbed: how its clock stands is learnt from its quickest frames.
    """
    pool, draw = moving_pool(), random.Random(seed)

    def disturb(frame: Frame) -> Iterable[Frame]:
        copies = [frame] * draw.choice([1, 1, 2, 3])
        if QUIET_S < pool.now_s < SECONDS - QUIET_S and draw.random() < 0.33:
            pool.delayed.extend(copies)
            pool.delayed.sort(key=lambda _frame: draw.random())
            return ()
        if draw.random() < 0.2 and pool.now_s < SECONDS - QUIET_S:
            pool.delayed.append(frame)  # a copy overtakes nothing, but comes late
        return copies

    pool.on_frame = disturb
    pool.run(SECONDS)
    counts = pool.state.pools["chat"].counts

    assert clean == state_text(pool.state)
    assert 2 * SECONDS == counts["delivered"]
    assert counts["duplicate"] > SECONDS
    assert "late" not in counts
    assert [] == check_events(pool.log).all


def test_f09_frames_older_than_2_s_are_counted_late_and_not_read() -> None:
    """20 frames that come 6 s after their time: 20 late, none of them learned from."""
    pool, held = moving_pool(), list[Frame]()

    def keep(frame: Frame) -> Iterable[Frame]:
        if frame.agent == "a1" and 100 <= frame.seq < 120:
            held.append(frame)
            return ()
        if frame.agent == "a1" and held and frame.seq >= 126:
            return (held.pop(0), frame)
        return (frame,)

    pool.on_frame = keep
    pool.run(SECONDS)
    counts = pool.state.pools["chat"].counts

    assert 20 == counts["late"]
    assert 2 * SECONDS == counts["delivered"]
    assert 0 == pool.state.pools["chat"].agents["a1"].boots["b0"].seen.missing
    assert [] == check_events(pool.log).all


@pytest.mark.parametrize("at_once", [600, 20])
def test_f09_a_full_replay_of_the_telemetry_causes_0_pushes(clean: str, at_once: int) -> None:
    """All frames from the first on come again, at once or beside live ones: all duplicates, state bit-equal."""
    pool = moving_pool()
    pool.run(SECONDS // 2)
    again = [i.body for i in pool.log.inputs if isinstance(i.body, Frame)]

    def beside(frame: Frame) -> Iterable[Frame]:
        old = again[:at_once]
        del again[:at_once]
        return (*old, frame)

    pool.on_frame = beside
    pool.run(SECONDS - SECONDS // 2)

    assert clean == state_text(pool.state)
    assert SECONDS == pool.state.pools["chat"].counts["duplicate"]


def test_f09_a_replay_after_the_end_causes_0_pushes_and_0_decisions() -> None:
    """600 old frames between two ticks of an idle hour: the second tick tells nobody anything."""
    pool = scripted_pool()
    pool.run(SECONDS)
    told = len(pool.log.told())
    frames = [item for item in pool.log.inputs if isinstance(item.body, Frame)]
    for item in frames:
        pool.put_raw(pool.log.raw[item.offset])
    pool.second()

    assert told == len(pool.log.told())
    assert len(frames) == pool.state.pools["chat"].counts["duplicate"]


async def test_f09_the_replay_engine_appends_nothing_and_pushes_0(tmp_path: Path) -> None:
    """Replaying a recorded log leaves every topic as it is, and no receiver hears of it."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    pool.scripted.engines["e0-1"].slowness = 2.5
    await pool.run(owner, 40)
    ends = [await log.bounds(topic, 0) for topic in Topic]
    pushed = pool.pushed
    report = await replay_log(log, standard_seams, PRINT)

    assert Verdict.IDENTICAL is report.verdict
    assert ends == [await log.bounds(topic, 0) for topic in Topic]
    assert 0 == await pool.pusher.poll()
    assert pushed == pool.pushed
    await log.close()


def test_f09_the_window_is_compared_and_not_assumed(clean: str) -> None:
    """The comparison can fail: one frame lost on the way gives another state."""
    pool = moving_pool()
    pool.on_frame = lambda frame: () if frame.seq == 150 and frame.agent == "a0" else (frame,)
    pool.run(SECONDS)

    assert clean != state_text(pool.state)
    assert isinstance(pool.log.inputs[0], Input)
