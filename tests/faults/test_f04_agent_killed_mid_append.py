"""Fault 4: agents are killed at random points, many of them in the middle of an append to their spool."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from flyball_agents.segments import scan
from laboratory.arriving import Arrived, Identity, agent_file, arriving
from laboratory.fleet import POOL, Fleet
from laboratory.lab_agent import MODULE
from laboratory.processes import Actor, Actors, until
from laboratory.record import Record, read_record
from laboratory.scale import full, report, scaled

KILLS = scaled(20, 200)
LIVES = 5
"""Kills of one agent; after them it lives on until everything has arrived."""
LIFE_S = 1.5
"""The longest that one of these lives goes on after its first frame, or, every other time, after its first sync."""
AT_ONCE = 4
SEED = 4
PERIOD_S = 0.04
PIECE_BYTES, PIECE_S = 32, 0.0004
"""The disk takes a record in pieces, so that an append takes about a third of a beat, and a third of the kills fall
into one."""
AWAY_S, BACK_S = 4.0, 1.0
"""The controller is frozen for so long, again and again, so that frames wait in the spool, and get synced."""
START_S = 60.0
"""Longest start of an agent's process on a machine that is busy; no promise."""
DRAIN_S = 60.0


@dataclass(slots=True)
class Killing:
    """The agents, and what their ends were like."""

    fleet: Fleet
    chance: random.Random
    torn: int = 0
    kills: int = 0
    restarts_s: list[float] = field(default_factory=list)

    async def live_and_die(self, name: str) -> None:
        """One agent: killed `LIVES` times, then left running."""
        file = agent_file(self.fleet.folder, name, controllers=[self.fleet.doors["c1"][0]])
        words = ["--config", str(file), "--record", str(self.fleet.record), "--period", str(PERIOD_S), "--engines", "4"]
        words += ["--piece-bytes", str(PIECE_BYTES), "--piece-s", str(PIECE_S), "--pools", POOL]
        agent = self.fleet.actors.add(name, *words, module=MODULE)
        left: set[Path] = set()
        for life in range(LIVES):
            before = await self._start(agent, left)
            if life % 2:
                with suppress(AssertionError):  # the controller may take everything before it is synced
                    await until("a sync", partial(self._synced, agent, before), AWAY_S, every_s=0.05)
            await asyncio.sleep(self.chance.uniform(0.0, LIFE_S))
            agent.kill()
            self.kills += 1
            left = set((self.fleet.folder / name / "agent" / name / "spool").glob("*.seg"))
            self.torn += sum(map(torn, left))
        await self._start(agent, left)

    def _said(self, agent: Actor, before: int) -> bytes:
        """What it wrote to the record since that had so many bytes."""
        file = self.fleet.record / f"agent-{agent.name}.jsonl"
        return file.read_bytes()[before:] if file.exists() else b""

    def _synced(self, agent: Actor, before: int) -> bool:
        """Whether this life has synced anything."""
        return b'"synced"' in self._said(agent, before)

    async def _start(self, agent: Actor, left: set[Path]) -> int:
        """Until it samples; of the segments that its last life left, none ends within a record any more.

        Returns how many bytes it had written to the record before.
        """
        before, began_s = len(self._said(agent, 0)), time.monotonic()
        agent.start()

        def samples() -> bytes:
            assert agent.running, agent.process.last_lines()
            return self._said(agent, before)

        await until("a new frame", samples, START_S, every_s=0.02)
        self.restarts_s.append(time.monotonic() - began_s)
        assert [] == [file.name for file in left if torn(file)]
        return before


def torn(segment: Path) -> bool:
    """Whether a segment ends within a record; one that is gone does not."""
    try:
        return scan(segment.read_bytes()).torn_at is not None
    except FileNotFoundError:
        return False


async def come_and_go(controller: Actor) -> None:
    """The controller stands still and goes on, until cancelled; then it goes on."""
    try:
        while True:
            controller.freeze()
            await asyncio.sleep(AWAY_S)
            controller.thaw()
            await asyncio.sleep(BACK_S)
    finally:
        controller.thaw()


def due(record: Record) -> set[Identity]:
    """What has to arrive: all that was synced, and all that was made before something else was.

    A kill may cost the frame that is being written, which is the last of its boot.
    """
    last: dict[tuple[str, str, str], int] = {}
    for line in record.sampled:
        last[line.identity[:3]] = max(line.seq, last.get(line.identity[:3], 0))
    return {line.identity for line in record.sampled if line.what == "synced" or line.seq != last[line.identity[:3]]}


async def arrived_in_full(arrived: Arrived, record: Record) -> None:
    """Wait until nothing that has to arrive is missing; AssertionError, with what is, if it does not come."""
    end_s, wanted = time.monotonic() + DRAIN_S, due(record)
    while missing := wanted - arrived.copies.keys():
        assert time.monotonic() < end_s, f"{len(missing)} frames never came, such as {sorted(missing)[:3]}"
        await asyncio.sleep(0.2)


async def killed_group(killing: Killing, names: Sequence[str], controller: Actor, arrived: Arrived) -> int:
    """A few agents at once, up to the arrival of everything that they had synced; how many frames were cut short."""
    coming = asyncio.create_task(come_and_go(controller))
    try:
        await asyncio.gather(*(killing.live_and_die(name) for name in names))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    record = read_record(killing.fleet.record)
    # Those of an earlier group were asked to end since: what they had in hand then waits in their spools.
    record.sampled = [line for line in record.sampled if line.agent in names]
    await arrived_in_full(arrived, record)
    for name in names:
        assert killing.fleet.actors.all[name].running
        assert 0 == killing.fleet.actors.all[name].stop()
    return len(arrived.missing(record, "made"))


async def each_counts_once(fleet: Fleet, arrived: Arrived) -> bool:
    """Whether the owner has taken every identity once, and told every further copy by its name."""
    pool = await fleet.pool()
    if pool is None:
        return False
    counts = pool.counts
    return (counts["delivered"], counts["duplicate"]) == (len(arrived.copies), arrived.doubles)


@pytest.mark.timeout(3600 if full() else 240)
async def test_f04_an_agent_killed_at_20_random_points_mid_append_200_in_full_loses_0_synced_samples(
    tmp_path: Path,
) -> None:
    """It starts again, cuts the torn tail off, sends the rest; copies are told by their identity."""
    print(f"seed {SEED}")
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, log=str(tmp_path / "log"))
        controller = fleet.controller("c1")
        controller.start()
        await controller.process.ready(fleet.doors["c1"][1])
        killing = Killing(fleet, random.Random(SEED))
        names = [f"n{number}" for number in range(KILLS // LIVES)]
        short = 0
        async with arriving(fleet.log) as arrived:
            for at in range(0, len(names), AT_ONCE):
                short += await killed_group(killing, names[at : at + AT_ONCE], controller, arrived)
            await until("each identity counted once", lambda: each_counts_once(fleet, arrived), 20.0)
        record = read_record(fleet.record)
    survived = f"{LIVES + 1}-"  # boots are numbered, and this one was not killed
    synced = {line.identity for line in record.sampled if line.what == "synced" and not line.boot.startswith(survived)}

    assert KILLS == killing.kills
    assert killing.torn >= KILLS // 10, "the kills do not fall into appends"
    assert short <= KILLS
    assert len(synced) > 2 * KILLS, "too little was synced to tell"
    assert [] == arrived.unexpected(record)
    assert {line.reason for line in record.sampled if line.what == "dropped"} == set()
    report(
        "4",
        kills=killing.kills,
        torn_tails=killing.torn,
        made=len({line.identity for line in record.sampled if line.what == "made"}),
        synced_before_a_kill=len(synced),
        synced_lost=0,
        cut_short=short,
        copies_beyond_the_first=arrived.doubles,
        longest_restart_s=round(max(killing.restarts_s), 2),
    )
