"""Fault 15: the controller of an embedded log is killed in the middle of a storm of orders, again and again."""

import asyncio
import itertools
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc
import pytest

from flyball_core.fencing import Fence, Version
from flyball_core.inputs import Ack
from flyball_core.outputs import DecisionRecord
from flyball_log import open_log
from harness.controller_calls import apply_policy
from harness.invariants import read_partition
from laboratory.fleet import POLICY, POOL, Fleet, events
from laboratory.processes import Actor, Actors, until
from laboratory.record import Applied, read_record
from laboratory.scale import full, report, scaled

KILLS = scaled(25, 250)
"""In each of the runs, one for each seed."""
SEEDS = (15, 16) if full() else (15,)
ENGINES = tuple(f"e{number}" for number in range(6))
CONVERGES_S = 10.0
UP_S = 60.0
"""Longest start of a controller's process on a machine that is busy; no promise."""
QUICK = () if full() else ("--pause", "0.5")
"""Engines seek a controller again sooner than in life; at full length they do as in life."""
QUICK_POLICY = POLICY + "guard: {slew_up: 4.0, slew_down: 0.25}\n"
"""Knobs may move as fast as operators change their minds."""


@dataclass(slots=True)
class Storm:
    """Operators who pin every engine's cap anew as fast as they are answered, and change the policy besides."""

    fleet: Fleet
    random: random.Random
    caps: dict[str, int] = field(default_factory=dict)
    """By engine, the last order that was said to be taken."""
    orders: int = 0
    unanswered: dict[str, set[int]] = field(default_factory=dict)
    """By engine, orders since then whose fate nobody told: they may be on record, or not."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever an order was taken: what follows from it is being told now."""

    async def blow(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as operators:
            for engine in ENGINES:
                operators.create_task(self._pin(engine))
            operators.create_task(self._change_policy())

    async def _pin(self, engine: str) -> None:
        while True:
            cap = self.random.randrange(40, 64)
            self.unanswered.setdefault(engine, set()).add(cap)
            if await self.fleet.order("c1", engine, cap) == "taken":
                self.caps[engine] = cap
                self.unanswered[engine].clear()
                self.orders += 1
                self.news.set()
            else:
                await asyncio.sleep(0.05)

    async def _change_policy(self) -> None:
        while True:
            text = QUICK_POLICY.replace("128", str(self.random.randrange(100, 128)))
            try:
                await apply_policy(self.fleet.doors["c1"][0], text, within_s=2.0)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)

    async def rages(self) -> None:
        """Wait for a moment to kill at: any, or one in which an order has just been taken."""
        await asyncio.sleep(self.random.uniform(0.05, 1.2))
        if self.random.random() < 0.5:
            self.news.clear()
            await self.news.wait()
            await asyncio.sleep(self.random.uniform(0.0, 0.02))

    def standing(self, engine: str) -> set[int]:
        """The caps that the engine may hold in the end: the one last said to be taken, or a later one."""
        return {self.caps[engine]} | self.unanswered.get(engine, set())


def decreases(applied: Sequence[Applied]) -> list[tuple[Applied, Applied]]:
    """Where an engine took a version that is not greater than the one before, over all lives of the controller."""
    histories: dict[str, list[Applied]] = defaultdict(list)
    for line in applied:
        histories[line.target].append(line)
    pairs = [pair for history in histories.values() for pair in itertools.pairwise(history)]
    return [(before, after) for before, after in pairs if after.version.against(before.version) is not Fence.NEWER]


async def pushes_interrupted(where: str) -> int:
    """In how many of its lives the controller had told an engine something that it never heard the answer to."""
    log = await open_log(where, read_only=True)
    try:
        found = await read_partition(log, 0)
    finally:
        await log.close()
    answered = {(item.body.target, item.body.version) for item in found.inputs if isinstance(item.body, Ack)}
    last: dict[tuple[int, str], Version] = {}
    for record in found.audit:
        if isinstance(record, DecisionRecord):
            for key in record.published:
                last[record.version.epoch, key] = record.version
    return len({epoch for (epoch, key), version in last.items() if (key.split("/")[2], version) not in answered})


async def killed_and_back(controller: Actor, chance: random.Random) -> float:
    """Killed and started again at once; one time in five killed once more before it is there. When it last started."""
    controller.kill()
    if chance.random() < 0.2:
        controller.start()
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        controller.kill()
    started_s = time.time()
    controller.start()
    return started_s


async def converged_s(fleet: Fleet, controller: Actor, storm: Storm, started_s: float) -> float:
    """Seconds from the takeover until all engines hold what is ordered. AssertionError if that takes too long."""

    def taken() -> list[float]:
        return [at_s for at_s, _ in events(controller.lines, "partition_taken") if at_s >= started_s]

    claimed: list[float] = await until("the next claim", taken, UP_S)
    taken_s = claimed[-1]
    caps = await fleet.settles(ENGINES, CONVERGES_S + taken_s - time.time())
    assert all(caps[engine] in storm.standing(engine) for engine in ENGINES), f"{caps} of {storm}"
    return time.time() - taken_s


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.timeout(7200 if full() else 300)
async def test_f15_a_controller_killed_at_25_random_points_mid_push_500_in_full_is_converged_10_s_after_takeover(
    tmp_path: Path, seed: int
) -> None:
    """No version is ever taken that is not newer, no order once taken is lost, and no engine is left behind."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    took_s: list[float] = []
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, str(tmp_path / "log"), tick_s=0.1, policies={POOL: QUICK_POLICY})
        controller = fleet.controller("c1")
        controller.start()
        fleet.engines("engines", ENGINES, "--frames", *QUICK).start()
        storm = Storm(fleet, chance)
        await until("every engine", lambda: fleet.attached(ENGINES), UP_S)
        while controller.starts <= KILLS:
            blowing = asyncio.create_task(storm.blow())
            await storm.rages()
            started_s = await killed_and_back(controller, chance)
            blowing.cancel()
            await asyncio.gather(blowing, return_exceptions=True)
            took_s.append(await converged_s(fleet, controller, storm, started_s))
        assert 0 == controller.stop()
        assert 0 == actors.all["engines"].stop()
        verdict, interrupted = await fleet.judged(), await pushes_interrupted(fleet.log)
    assert [] == verdict.broken, str(verdict)
    assert [] == decreases(read_record(fleet.record).applied)
    assert interrupted >= KILLS // 5, f"only {interrupted} of {KILLS} kills came in the middle of a push"
    report(
        "f15",
        kills=controller.starts - 1,
        takeovers=len(took_s),
        mid_push=interrupted,
        p50_s=median(took_s),
        max_s=max(took_s),
        orders_taken=storm.orders,
        applied=verdict.looked_at["applied"],
    )
