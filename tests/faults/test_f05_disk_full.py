"""Fault 5: the disk is full, beneath an agent's spool and beneath a controller's log."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flyball_cli.processes import FLYBALL
from harness.controller_calls import metric, page
from laboratory import small_disk
from laboratory.arriving import Arrived, Identity, agent_file, arriving
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.lab_agent import LATE_BEAT, MODULE
from laboratory.processes import Actor, Actors, until
from laboratory.record import Record, read_record
from laboratory.scale import full, report, scaled

FULL_S = scaled(4.0, 300.0)
"""How long the disk stays full, in each way of being full."""
PERIOD_S = 0.05
ENGINES = 40
"""So many that a frame has some kilobytes."""
DISK_MEGABYTES = 4.0
ROOM_BYTES = 600_000
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
    held_bytes: list[int] = field(default_factory=list)

    async def number(self, name: str, **labels: str) -> float:
        """One of its own numbers."""
        return await metric(self.http, f"flyball_agent_{name}", **labels)

    async def account(self) -> tuple[float, float]:
        """Frames taken, and what the agent knows of their fates; both of one moment."""
        _, text = await page(self.http, "/metrics")
        numbers: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                numbers[sample.name.removeprefix("flyball_agent_")] += int(sample.value)
        taken = numbers["frames_sampled_total"] + numbers["frames_recovered_total"]
        known = numbers["frames_delivered_total"] + numbers["frames_dropped_total"] + numbers["spool_frames"]
        return taken, known

    def holds_bytes(self) -> int:
        """Its own part of its RSS: the rest are pages of files, which the kernel takes and gives back as it likes."""
        lines = Path(f"/proc/{self.actor.process.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "VmSwap:")))

    async def watch(self, seconds: float) -> None:
        """Let it go on, and note what it holds."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.held_bytes.append(self.holds_bytes())
            await asyncio.sleep(0.2)


async def started(fleet: Fleet, name: str) -> Agent:
    """An agent that samples, on a disk of which others have left it little."""
    http, state = f"127.0.0.1:{lasting_port()}", fleet.folder / name
    file = agent_file(fleet.folder, name, controllers=[fleet.doors["c1"][0]], http=http)
    words = ["--config", str(file), "--record", str(fleet.record), "--pools", POOL]
    words += ["--period", str(PERIOD_S), "--engines", str(ENGINES)]
    placed = small_disk.words(state, DISK_MEGABYTES, MODULE, *words)
    actor = fleet.actors.start(name, *placed, module=small_disk.MODULE)
    await actor.process.ready(http, START_S, "/live")
    disk = small_disk.seen_from_outside(actor.process.pid, state)
    small_disk.fill(disk, ROOM_BYTES)
    return Agent(actor, disk, http)


def longest_block_s(record: Record) -> float:
    """By how much the latest beat came late, the machine's other work aside."""
    return max((float(line.detail) for line in record.happened if line.event == LATE_BEAT), default=0.0)


def made_between(record: Record, began_s: float, ended_s: float) -> set[Identity]:
    """Frames that were made then."""
    return {line.identity for line in record.sampled if line.what == "made" and began_s < line.at_s < ended_s}


@pytest.mark.timeout(1200 if full() else 240)
async def test_f05_disk_full_agent_rss_flat_10_percent_sampling_never_blocks_100_ms_oldest_dropped_recovers_unaided(
    tmp_path: Path,
) -> None:
    """Full of what it keeps, then of others': what is gone was dropped by name, and nothing is once frames can go."""
    small_disk.required()
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, log=str(tmp_path / "log"))
        controller = fleet.controller("c1")
        agent = await started(fleet, "n1")
        await until("a full disk", lambda: agent.number("frames_dropped_total", reason="disk_full"), START_S)
        before = agent.holds_bytes()
        freed = await agent.number("frames_dropped_total", reason="disk_full")
        await agent.watch(FULL_S)
        freed_on = await agent.number("frames_dropped_total", reason="disk_full") - freed
        small_disk.make_room(agent.disk)
        room_s = time.time()
        controller.start()
        await controller.process.ready(fleet.doors["c1"][1])
        async with arriving(fleet.log) as arrived:
            folder = fleet.record
            await until("a drained spool", lambda: drained(arrived, read_record(folder), time.time() - 1.0), DRAIN_S)
            small_disk.fill(agent.disk)
            nothing_s = time.time()
            await agent.watch(FULL_S)
            small_disk.make_room(agent.disk)
            ended_s = time.time()
            await until("the last frames", lambda: drained(arrived, read_record(folder), ended_s), DRAIN_S)
        taken, known = await agent.account()
        assert agent.actor.running
    found = read_record(fleet.record)
    dropped = {line.identity for line in found.sampled if line.what == "dropped"}
    came = arrived.copies.keys()
    nothing_left = made_between(found, nothing_s, ended_s)

    assert freed_on > 0
    assert max(agent.held_bytes) <= (1 + FLAT) * before
    assert min(agent.held_bytes) >= (1 - FLAT) * before
    assert longest_block_s(found) <= BLOCKS_S
    assert taken == known
    assert made_between(found, 0.0, ended_s) <= came | dropped
    assert made_between(found, room_s, ended_s) <= came
    assert len(nothing_left) > FULL_S
    assert [] == arrived.unexpected(found)
    report(
        "5",
        full_s=FULL_S,
        own_rss_mib=round(before / 2**20, 1),
        greatest=round(max(agent.held_bytes) / before, 3),
        longest_block_ms=round(1000 * longest_block_s(found), 1),
        made=len(made_between(found, 0.0, ended_s)),
        dropped_by_name=len(dropped),
        with_no_room_at_all=len(nothing_left),
        of_these_lost=0,
    )


def drained(arrived: Arrived, record: Record, until_s: float) -> bool:
    """Whether all that was made until then has come, or was dropped."""
    return not [line for line in arrived.missing(record, "made") if line.at_s < until_s]


@pytest.mark.timeout(600 if full() else 180)
async def test_f05_disk_full_beneath_a_controllers_log_is_refused_and_goes_on_by_itself_with_0_frames_lost(
    tmp_path: Path,
) -> None:
    """The owner waits under the claim that it has, agents keep what they sample, and all of it comes."""
    small_disk.required()
    with Actors(tmp_path) as actors:
        disk = tmp_path / "disk"
        fleet = Fleet(actors, log=str(disk / "log"))
        fleet.controller("c1")
        words = small_disk.words(disk, DISK_MEGABYTES, FLYBALL, "controller", "--config", str(tmp_path / "c1.yaml"))
        controller = actors.start("c1", *words, module=small_disk.MODULE)
        await controller.process.ready(fleet.doors["c1"][1])
        seen = small_disk.seen_from_outside(controller.process.pid, disk)
        file = agent_file(tmp_path, "n1", controllers=[fleet.doors["c1"][0]])
        said = [
            "--config",
            str(file),
            "--record",
            str(fleet.record),
            "--pools",
            POOL,
            "--period",
            "0.2",
        ]
        actors.start("n1", *said, module=MODULE)
        async with arriving(str(seen / "log")) as arrived:
            await until("first frames", lambda: arrived.copies, START_S)
            before = await fleet.pool()
            small_disk.fill(seen)
            await until("refused appends", lambda: fleet.waits_for("c1"), START_S)
            full_s = time.time()
            await asyncio.sleep(FULL_S)
            small_disk.make_room(seen)
            room_s = time.time()
            await until("all that was kept", lambda: drained(arrived, read_record(fleet.record), room_s), DRAIN_S)
            on_s = time.time() - room_s
            after = await until("a pool", fleet.pool, START_S)
        assert all(actor.running and actor.starts == 1 for actor in actors.all.values())
    record = read_record(fleet.record)
    kept = made_between(record, full_s, room_s)

    assert before is not None
    assert before.epoch == after.epoch
    assert len(kept) > FULL_S
    assert [] == [line for line in record.sampled if line.what == "dropped"]
    assert [] == arrived.unexpected(record)
    report("5 (a log)", full_s=FULL_S, kept_meanwhile=len(kept), lost=0, all_there_after_s=round(on_s, 2))
