"""Fault 5: the disk is full, beneath an agent's spool and beneath a controller's log."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.controller_calls import metric
from laboratory import small_disk
from laboratory.arriving import Arrived, agent_file, arriving
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.lab_agent import LATE_BEAT, MODULE
from laboratory.processes import Actor, Actors, until
from laboratory.record import Record, read_record
from laboratory.scale import full, report, scaled

FULL_S = scaled(6.0, 300.0)
"""How long the disk stays full, in each way of being full."""
PERIOD_S = 0.02
ENGINES = 24
"""So many that a frame has some kilobytes."""
DISK_MEGABYTES = 4.0
ROOM_BYTES = 1_500_000
"""What others leave of it to the spool, at first."""
FLAT = 0.10
BLOCKS_S = 0.100
START_S = 60.0
"""Longest start of a process on a machine that is busy; no promise."""
DRAIN_S = 60.0


@dataclass(slots=True)
class Agent:
    """One agent with its state on a small disk."""

    actor: Actor
    disk: Path
    """As seen from here."""
    http: str
    rss_bytes: list[int] = field(default_factory=list)

    async def number(self, name: str, **labels: str) -> float:
        """One of its own numbers."""
        return await metric(self.http, f"flyball_agent_{name}", **labels)

    async def dropped(self) -> float:
        """Frames given up for the disk, in whatever way."""
        reasons = ("disk_full", "disk")
        return sum([await self.number("frames_dropped_total", reason=reason) for reason in reasons])

    async def watch(self, seconds: float) -> None:
        """Let it go on, and note what it holds."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.rss_bytes.append(self.actor.rss_bytes())
            await asyncio.sleep(0.2)


async def started(fleet: Fleet, name: str) -> Agent:
    """An agent that samples, on a disk of which others have left it little."""
    http, state = f"127.0.0.1:{lasting_port()}", fleet.folder / name
    file = agent_file(fleet.folder, name, controllers=[fleet.doors["c1"][0]], http=http)
    words = ["--config", str(file), "--record", str(fleet.record), "--pools", POOL]
    words += ["--period", str(PERIOD_S), "--engines", str(ENGINES)]
    placed = small_disk.words(state, DISK_MEGABYTES, MODULE, *words)
    actor = fleet.actors.start(name, *placed, module=small_disk.MODULE)
    record = fleet.record / f"agent-{name}.jsonl"
    await until("a first frame", record.exists, START_S)
    disk = small_disk.seen_from_outside(actor.process.pid, state)
    small_disk.fill(disk, ROOM_BYTES)
    return Agent(actor, disk, http)


def fates(record: Record, arrived: Arrived) -> Counter[str]:
    """What became of every frame that was made: it came, it was dropped under a reason, both, or nothing is known."""
    dropped = {line.identity: line.reason for line in record.sampled if line.what == "dropped"}
    found: Counter[str] = Counter()
    for name in {line.identity for line in record.sampled if line.what == "made"}:
        words = ["came"] if arrived.copies.get(name) else []
        found[" and ".join([*words, *filter(None, [dropped.get(name)])]) or "nothing is known"] += 1
    return found


def longest_block_s(record: Record) -> float:
    """By how much the latest beat came late, the machine's other work aside."""
    return max((float(line.detail) for line in record.happened if line.event == LATE_BEAT), default=0.0)


@pytest.mark.timeout(1200 if full() else 240)
async def test_f05_disk_full_agent_rss_flat_10_percent_sampling_never_blocks_100_ms_drop_oldest_frees_and_recovers(
    tmp_path: Path,
) -> None:
    """Full of its own, then of others', then with room again: no frame is gone that is not counted by name."""
    small_disk.required()
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, log=str(tmp_path / "log"))
        controller = fleet.controller("c1")
        agent = await started(fleet, "n1")
        await until("a full disk", agent.dropped, START_S)
        before = agent.actor.rss_bytes()
        await agent.watch(FULL_S)
        freed = await agent.number("frames_dropped_total", reason="disk_full")
        kept = await agent.number("spool_frames")

        for _ in range(scaled(10, 100)):  # whatever the oldest leave, others take
            small_disk.fill(agent.disk)
            await agent.watch(FULL_S / scaled(10, 100))
        nothing_left = await agent.number("frames_dropped_total", reason="disk")

        small_disk.make_room(agent.disk)
        await asyncio.sleep(6.0)  # what could be sent from memory only is given up after 5 s
        lost = await agent.dropped()
        await agent.watch(2.0)
        lost_since = await agent.dropped() - lost

        controller.start()
        async with arriving_when_there(fleet) as arrived:
            ...
