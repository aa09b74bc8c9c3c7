"""Fault 8: a third controller comes and goes, so that Kafka's group rebalances over and over, under load."""

import asyncio
import itertools
import random
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from flyball_controller.checkpoints import find_checkpoint
from flyball_controller.machine import standard_seams
from flyball_controller.machine.export import export_state
from flyball_controller.replay import stepped
from flyball_core.outputs import TickRecord
from flyball_log import Log, open_log
from harness.invariants import read_partition
from kafka_broker import kafka_broker as kafka_broker
from laboratory.fleet import POLICY, Fleet, new_topics
from laboratory.processes import Actors, until
from laboratory.scale import report, scaled

EVERY_S = scaled(4.0, 30.0)
VISITS = scaled(2, 10)
"""Each makes the group rebalance twice: when the third controller comes, and when it goes."""
SETTLED_S = 30.0
"""Longest until everybody is current after the last one has gone: a dead member's share is given away after 10 s."""
UP_S = 60.0
"""Longest start of a fleet on a machine that is busy; no promise."""
POOLS = ("chat", "long", "code")
ENGINES: Mapping[str, tuple[str, ...]] = {pool: (f"a0-{pool}-0", f"a0-{pool}-1") for pool in POOLS}
"""By pool; each pool is in a partition of its own."""
LOAD = ("--period", "0.1")
"""Each pool's engines are told of so often, in seconds."""


async def ordering(fleet: Fleet, taken: dict[str, int]) -> None:
    """An operator who pins one engine after the other, until cancelled; `taken` is what was last said to be."""
    caps = random.Random(8)
    for pool, engines in itertools.cycle(ENGINES.items()):
        for engine in engines:
            cap = caps.randrange(40, 64)
            if await fleet.order("c1", engine, cap, pool=pool, within_s=12.0) == "taken":
                taken[engine] = cap
        await asyncio.sleep(0.2)


async def visited(fleet: Fleet) -> None:
    """The third controller comes and goes: killed and back at once, stopped, killed for a while, and so on."""
    guest = fleet.actors.all["c3"]
    for _, ending in zip(range(VISITS), itertools.cycle(("back at once", "stopped", "killed")), strict=False):
        guest.start()
        await until("a third controller with its share", lambda: fleet.ready("c3"), UP_S)
        await asyncio.sleep(EVERY_S)
        if ending == "stopped":
            assert 0 == guest.stop()
        else:
            guest.kill()
        if ending != "back at once":
            await asyncio.sleep(EVERY_S)


async def undisturbed(log: Log, partition: int, revision: int) -> bytes:
    """The state that one owner comes to who reads the whole log from its beginning to this input."""
    async for item, state, _ in stepped(log, partition, standard_seams()):
        if item.offset == revision:
            return export_state(state)
    raise AssertionError(f"the log ends before {revision}")


async def without_a_tick_s(log: Log, partition: int) -> float:
    """The longest time between two ticks that were heeded."""
    found = await read_partition(log, partition)
    walls = sorted({one.wall_s for one in found.audit if isinstance(one, TickRecord)})
    return max((after - before for before, after in itertools.pairwise(walls)), default=0.0)


@pytest.mark.timeout(1200)
async def test_f08_a_rebalance_every_30_s_under_load_gives_the_state_of_an_undisturbed_run_each_identity_applied_once(
    tmp_path: Path, kafka_broker: str
) -> None:
    """Whoever owned what when, the log replays to what was decided and kept; every frame and version counts once."""
    where = await new_topics(kafka_broker, partitions=3)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, where, policies=dict.fromkeys(ENGINES, POLICY))
        for name in ("c1", "c2"):
            fleet.controller(name).start()
        fleet.controller("c3")
        for pool, engines in ENGINES.items():
            fleet.engines(pool, engines, pool=pool).start()
        fleet.agent("a0", 2, *LOAD, pools=ENGINES).start()
        for pool, engines in ENGINES.items():
            await until("every engine", partial(fleet.attached, engines, pool), UP_S)
        taken: dict[str, int] = {}
        giving = asyncio.create_task(ordering(fleet, taken))
        await visited(fleet)
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)
        gone_s = time.time()
        for pool, engines in ENGINES.items():
            await fleet.settles(engines, SETTLED_S, pool=pool)
        settled_s = time.time() - gone_s
        for name in ("a0", "c1", "c2", *ENGINES):
            assert 0 == actors.all[name].stop(), name

        verdict = await fleet.judged()
        assert [] == verdict.broken, str(verdict)
        claims = await fleet.claims()
        pairs = [pair for those in claims.values() for pair in itertools.pairwise(those)]
        again = [pair for pair in pairs if pair[0][1] == pair[1][1] != "c3"]
        assert [] == again, "an owner let go of what stayed its own"
        log = await open_log(where, read_only=True)
        try:
            handed_over = 0
            for partition in range(log.partitions):
                kept = await find_checkpoint(log, partition)
                handed_over += sum(offset < kept.revision for offset, _ in claims[partition]) > 1
                assert export_state(kept.state) == await undisturbed(log, partition, kept.revision)
            assert handed_over, "no state was kept by a second owner"
            silent_s = [await without_a_tick_s(log, partition) for partition in range(log.partitions)]
        finally:
            await log.close()
        print(verdict)
    report(
        "f08",
        rebalances=2 * VISITS,
        claims=sum(map(len, claims.values())),
        settled_s=settled_s,
        longest_without_a_tick_s=max(silent_s),
        frames=verdict.looked_at["frames made"],
    )
    print(claims, silent_s, settled_s)
