"""Fault 18: the log is gone for ten minutes, under two controllers, their engines and an agent."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from flyball_core.knobs import Value
from flyball_core.outputs import TickRecord
from flyball_log import open_log
from harness.invariants import Recorded, read_partition
from kafka_broker import KafkaBroker, own_broker as own_broker
from laboratory.fleet import POLICY, Fleet, new_topics
from laboratory.processes import Actors, until
from laboratory.record import Applied, read_record
from laboratory.scale import full, report, scaled

DOWN_S = scaled(12.0, 600.0)
CURRENT_S = 45.0
"""Everybody is current so long after the broker answers again; the longest pauses between tries are 10 s and 15 s."""
WATCHED_S = scaled(2.0, 60.0)
"""For so long after that nothing may change hands any more."""
UP_S = 60.0
"""Longest start of a fleet on a machine that is busy; no promise."""
ENGINES = {"chat": ("a0-chat-0", "a0-chat-1"), "code": ("a0-code-0", "a0-code-1")}
"""By pool; each pool is in a partition of its own."""
CONTROLLERS = ("c1", "c2")


async def a_fleet(actors: Actors, where: str) -> Fleet:
    """Two controllers, the engines of two pools that hold what was ordered, and an agent that tells of them."""
    fleet = Fleet(actors, where, policies=dict.fromkeys(ENGINES, POLICY))
    for name in CONTROLLERS:
        fleet.controller(name).start()
    for pool, engines in ENGINES.items():
        fleet.engines(pool, engines, pool=pool).start()
    fleet.agent("a0", 2, pools=ENGINES).start()
    for name in CONTROLLERS:
        await until(f"{name} with its share", partial(fleet.ready, name), UP_S)
    for pool, engines in ENGINES.items():
        await until(f"engines of {pool}", partial(fleet.attached, engines, pool), UP_S)
    await ordered(fleet, 50)
    return fleet


async def ordered(fleet: Fleet, cap: int) -> None:
    """Every engine is pinned anew, and holds it."""
    for pool, engines in ENGINES.items():
        for engine in engines:
            assert await fleet.order("c1", engine, cap, pool=pool, within_s=10.0) in ("taken", "on_record")
        await fleet.settles(engines, UP_S, pool=pool)


async def waiting(fleet: Fleet) -> bool:
    """Whether every controller says, at `/ready` and to operators, that the log does not answer as it should."""
    for name in CONTROLLERS:
        ready, told = await fleet.waits_for(name), await fleet.says(name)
        if not ready or told is None or not told.waiting_for:
            return False
    return True


async def current(fleet: Fleet) -> None:
    """Wait until every controller is ready and every engine holds what is ordered. AssertionError after `CURRENT_S`."""
    end_s = time.monotonic() + CURRENT_S
    for name in CONTROLLERS:
        await until(f"{name}, ready again", partial(fleet.ready, name), end_s - time.monotonic())
    for pool, engines in ENGINES.items():
        await fleet.settles(engines, end_s - time.monotonic(), pool=pool)


async def recorded(where: str) -> list[Recorded]:
    """Everything in the log, by partition."""
    log = await open_log(where, read_only=True)
    try:
        return [await read_partition(log, partition) for partition in range(log.partitions)]
    finally:
        await log.close()


def told_again(applied: Sequence[Applied], since_s: float) -> Counter[str]:
    """How often engines applied anew just what they held, from a moment on: what policies move is no flapping."""
    held: dict[str, Mapping[str, Value]] = {}
    again: Counter[str] = Counter()
    for line in applied:
        again[line.target] += line.at_s > since_s and line.values == held.get(line.target)
        held[line.target] = line.values
    return again


def ticks_between(found: Recorded, began_s: float, ended_s: float) -> int:
    """How many ticks say that they were made then."""
    walls = {one.version.revision: one.wall_s for one in found.audit if isinstance(one, TickRecord)}
    return sum(began_s < wall_s < ended_s for wall_s in walls.values())


@pytest.mark.timeout(180 + 3 * DOWN_S)
@pytest.mark.parametrize("how", ["killed", "frozen"] if full() else ["killed"])
async def test_f18_the_log_is_down_10_min_nothing_is_decided_engines_hold_and_at_most_1_owner_changes_per_pool(
    tmp_path: Path, own_broker: KafkaBroker, how: str
) -> None:
    """Controllers stay and say what they wait for; 45 s after the log is back everybody is current. Nothing flaps."""
    where = await new_topics(own_broker.bootstrap, partitions=2)
    with Actors(tmp_path) as actors:
        fleet = await a_fleet(actors, where)
        before = await fleet.claims()

        os.kill(own_broker.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        down_s = time.time()
        await until("controllers that say so", lambda: waiting(fleet), UP_S)
        said_s = time.time() - down_s
        await asyncio.sleep(down_s + DOWN_S - time.time())
        assert await waiting(fleet)
        assert all(actor.running for actor in actors.all.values())
        begun_s = time.time()
        if how == "frozen":
            os.kill(own_broker.pid, signal.SIGCONT)
        await asyncio.to_thread(own_broker.start)
        back_s = time.time()
        await current(fleet)
        current_s = time.time() - back_s
        await asyncio.sleep(WATCHED_S)
        after = await fleet.claims()
        record = read_record(fleet.record)
        held = [line for line in (*record.applied, *record.leases) if down_s + 1.0 < line.at_s < begun_s]
        again = told_again(record.applied, begun_s)
        await ordered(fleet, 60)
        assert [0] * 5 == [actor.stop() for actor in actors.all.values()]
        verdict, found = await fleet.judged(), await recorded(where)
    assert [] == verdict.broken, str(verdict)
    assert [] == held, "engines were moved while nobody could decide"
    assert all(len(after[partition]) <= len(before[partition]) + 1 for partition in before), f"{before}, then {after}"
    assert all(number <= 1 for number in again.values()), f"told more than once what they hold already: {again}"
    assert all(ticks_between(one, down_s + 1.0, begun_s) <= 1 for one in found), "more than what was under way"
    report(
        f"f18 {how}",
        down_s=back_s - down_s,
        said_s=said_s,
        current_s=current_s,
        claims_on_recovery=sum(map(len, after.values())) - sum(map(len, before.values())),
        frames=verdict.looked_at["frames made"],
    )
