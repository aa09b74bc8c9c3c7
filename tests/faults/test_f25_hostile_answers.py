"""Fault 25, through the log: answers of a learner that would harm whoever takes them.

They are too long, too many, of no type, or an exit; or the learner changes what it was
only shown. The owner ticks on, bounds hold, and the log replays bit-equal.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from flyball_controller.machine import Seams
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.owner import Owner
from flyball_controller.replay import Verdict, replay_log
from flyball_controller.slow import SlowDesk, SlowRunner
from flyball_core.ids import OwnerId
from flyball_core.inputs import Order, Proposal, SlowProposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.seam import Memory, PoolView
from flyball_policies.weights_speed import WeightsSpeed
from flyball_proto.codec import decode_input
from harness.invariants import check_log
from harness.logged_pool import LoggedPool, logged_pool
from harness.odd_logs import QUICK, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import PRINT, WALL_S

HIGHEST_CAP = 128
"""The operator's bound; engines would take 256."""

Answer = Callable[[PoolView, Memory], object]


class Learner:
    """A policy inside the tick that answers as the test says."""

    name = "learner"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Whatever the test says."""
        return cast("list[Proposal]", self._answer(view, memory))


class NoWords(Exception):
    """An exception that cannot be put into words."""

    def __str__(self) -> str:
        """Another exception."""
        raise RuntimeError


def throws(error: BaseException) -> Answer:
    """It raises this."""

    def answer(_view: PoolView, _memory: Memory) -> object:
        raise error

    return answer


def wish(view: PoolView, **fields: Any) -> Proposal:
    """A sound proposal but for some fields."""
    sound = Proposal(
        policy="learner", kind=TargetKind.ENGINE, target=view.engines[0], knob=BATCH_CAP, value=70, reason="r"
    )
    return replace(sound, **fields)


def scribble(view: PoolView, _memory: Memory) -> object:
    """It normalises what it was shown, in place."""
    for column in (*view.columns.values(), *view.settings.values()):
        column[:] = np.nan
    return []


def unbind(view: PoolView, _memory: Memory) -> object:
    """It takes the operator's bound away and asks for more."""
    cast("dict[str, object]", view.document.knobs).clear()
    return [wish(view, value=256)]


def widen(view: PoolView, _memory: Memory) -> object:
    """It puts the bounds it was shown higher and asks for more."""
    view.ceilings[BATCH_CAP][:] = 1000
    return [wish(view, value=256)]


FAULTY: dict[str, Answer] = {
    "leaves the process": throws(SystemExit(3)),
    "says it was cancelled": throws(asyncio.CancelledError()),
    "raises what has no words": throws(NoWords()),
    "raises what is no text": throws(ValueError("\ud800")),
    "raises a novel": throws(ValueError("y" * 2_000_000)),
    "a novel for a reason": lambda view, _m: [wish(view, reason="x" * 2_000_000)],
    "a novel for a target": lambda view, _m: [wish(view, target="x" * 2_000_000)],
    "a novel for a value": lambda view, _m: [wish(view, value="x" * 2_000_000)],
    "a value of 400 digits": lambda view, _m: [wish(view, value=10**400)],
    "an infinite value": lambda view, _m: [wish(view, value=-math.inf)],
    "no value": lambda view, _m: [wish(view, value=None)],
    "a matrix": lambda view, _m: [wish(view, value=np.eye(3))],
    "no propensity": lambda view, _m: [wish(view, propensity=None)],
    "a propensity of NaN": lambda view, _m: [wish(view, propensity=math.nan)],
    "no kind": lambda view, _m: [wish(view, kind="engine")],
    "no name": lambda view, _m: [wish(view, policy=None)],
    "scribbles over its view": scribble,
    "takes the bounds away": unbind,
    "widens the bounds it is shown": widen,
}

SOUND_BUT_WRONG: dict[str, Answer] = {
    "thousands for engines that are none": lambda view, memory: [
        wish(view, target=f"{memory.setdefault('n', 0)}-{i}") for i in range(5000)
    ],
    "thousands with long words": lambda view, _m: [wish(view, knob="k" * 900 + str(i)) for i in range(3000)],
    "beyond the bounds": lambda view, _m: [wish(view, target=name, value=10**9) for name in view.engines],
    "below the bounds": lambda view, _m: [wish(view, target=name, value=-(10**9)) for name in view.engines],
}


async def governed(folder: Path, seams: Callable[[], Seams]) -> tuple[LoggedPool, Owner]:
    """A pool over a log under an owner with these parts."""
    pool, _ = await logged_pool(EmbeddedLog.create(folder / "log", 1, QUICK))
    pool.scripted.engines["e0-1"].slowness = 2.2
    owner = Owner(pool.log, OwnerId("c2"), seams, PRINT)
    await owner.take(0, WALL_S)
    return pool, owner


def settings_of(pool: LoggedPool) -> dict[str, dict[str, object]]:
    """What every engine holds."""
    return {name: dict(engine.setting) for name, engine in pool.scripted.engines.items()}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What engines hold after 40 s under the baseline alone."""

    async def make() -> dict[str, dict[str, object]]:
        def seams() -> Seams:
            return Seams(slots=(PolicySlot(CapsAimd()), PolicySlot(WeightsSpeed())))

        pool, owner = await governed(tmp_path_factory.mktemp("alone"), seams)
        await pool.run(owner, 40)
        await pool.log.close()
        return settings_of(pool)

    found = asyncio.run(make())
    assert 64 != found["e0-1"][BATCH_CAP]  # or there would be nothing to hold
    return found


@pytest.mark.parametrize("what", FAULTY)
async def test_f25_a_faulty_answer_is_a_trip_and_the_baseline_holds(
    tmp_path: Path, baseline: dict[str, dict[str, object]], what: str
) -> None:
    """Three trips and a quarantine; the engines hold what they hold under the baseline; replay is identical."""

    def seams() -> Seams:
        return Seams(slots=(PolicySlot(Learner(FAULTY[what]), CapsAimd()), PolicySlot(WeightsSpeed())))

    pool, owner = await governed(tmp_path, seams)
    await pool.run(owner, 40)
    found = owner.owned[0].state.pools["chat"]

    assert (3, {"learner"}) == (found.counts["policy_trips"], set(found.quarantined))
    assert len(found.quarantined["learner"]) <= 200
    assert baseline == settings_of(pool)
    report = await replay_log(pool.log, seams, PRINT)
    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert [] == (await check_log(pool.log)).all
    await pool.log.close()


@pytest.mark.parametrize("what", SOUND_BUT_WRONG)
async def test_f25_a_sound_answer_that_is_wrong_meets_the_guard(tmp_path: Path, what: str) -> None:
    """However many and wherever to: nothing leaves the bounds, all of it is on record, replay is identical."""

    def seams() -> Seams:
        return Seams(slots=(PolicySlot(Learner(SOUND_BUT_WRONG[what])),))

    pool, owner = await governed(tmp_path, seams)
    await pool.run(owner, 15)
    found = owner.owned[0].state.pools["chat"]
    caps = [cast("int", engine.setting[BATCH_CAP]) for engine in pool.scripted.engines.values()]

    assert all(4 <= cap <= HIGHEST_CAP for cap in caps)
    assert {} == found.quarantined
    assert len(found.stopped) < 20
    report = await replay_log(pool.log, seams, PRINT)
    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert [] == (await check_log(pool.log)).all
    await pool.log.close()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets those who wait go at the end."""
    event = threading.Event()
    yield event
    event.set()


class Outside:
    """A policy outside the tick: works for ever, until it is mended."""

    name = "outside"

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate
        self.calls = 0

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Nothing for as long as the gate is shut, then a lower cap."""
        memory["calls"] = self.calls = self.calls + 1
        self._gate.wait(30.0)
        return [wish(view, policy=self.name, value=40)]


async def live(pool: LoggedPool, owner: Owner, desk: SlowDesk, seconds: int) -> None:
    """Seconds of life in which slow answers come before the next tick."""
    for _ in range(seconds):
        await pool.second(owner)
        desk.take(owner.owned[0].snapshots)
        await desk.settled()


async def test_f25_outside_step_misses_are_inputs_until_an_operator_resets_it(
    tmp_path: Path, gate: threading.Event
) -> None:
    """Three misses, of which only the first cost a deadline; silence; a reset; an answer; replay is identical."""

    def seams() -> Seams:
        return Seams(slots=(PolicySlot(CapsAimd()),), slow=("outside",))

    pool, owner = await governed(tmp_path, seams)
    policy = Outside(gate)
    desk = SlowDesk(pool.log, SlowRunner([policy], deadline_s=0.02))
    await live(pool, owner, desk, 20)
    found = owner.owned[0].state.pools["chat"]
    inputs = [decode_input(r.offset, r.value).body for r in await records_of(pool.log, Topic.INPUTS, 0)]
    missed = [body.missed for body in inputs if isinstance(body, SlowProposal)]

    assert 1 == policy.calls
    assert "no answer within 0.02 s" == missed[0]
    assert [True, True] == [text.startswith("still at work on the snapshot") for text in missed[1:]]
    assert {"outside"} == set(found.quarantined)
    gate.set()
    await pool.put(Order(pool=POOL, author="op", reset_policy="outside"))
    desk = SlowDesk(pool.log, SlowRunner([policy], deadline_s=10.0))
    await live(pool, owner, desk, 10)

    assert {} == found.quarantined
    assert 40 == pool.scripted.engines["e0-0"].setting[BATCH_CAP]
    report = await replay_log(pool.log, seams, PRINT)
    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert [] == (await check_log(pool.log)).all
    await pool.log.close()
