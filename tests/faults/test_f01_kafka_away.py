"""Fault 1: Kafka is away for ten minutes while twenty agents sample on."""

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyball_log.kafka import create_topics, settings_for
from kafka_broker import KafkaBroker, own_broker as own_broker
from laboratory.arriving import Arrival, Arrived, Identity, agent_file, arriving
from laboratory.lab_agent import MODULE
from laboratory.processes import Actors, until
from laboratory.record import Record, read_record
from laboratory.scale import full, report, scaled

AGENTS, PROCESSES = 20, 4
OUTAGE_S = scaled(10.0, 600.0)
PERIOD_S = scaled(0.25, 1.0)
DRAINED_S = 60.0
LATE_S = 5.0
NOT_LIVE_S = 12.0
"""5 s in hand, then 5 s on its way, makes a frame too old to be called live; and a margin for the reader."""
START_S = 60.0
"""Longest start of twenty agents on a machine that is busy; no promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """When the broker came back, and what came then."""

    arrived: Arrived
    back_s: float
    """Wall time at which it answered."""

    def firsts(self) -> Iterator[tuple[Identity, Arrival]]:
        """The first copy of each frame."""
        for name, copies in self.arrived.copies.items():
            yield name, copies[0]

    def flowing_s(self) -> dict[str, float]:
        """By agent, when its first frame came after the outage."""
        flowing: dict[str, float] = {}
        for (agent, *_), copy in self.firsts():
            if copy.at_s >= self.back_s:
                flowing[agent] = min(copy.at_s, flowing.get(agent, copy.at_s))
        return flowing

    def drained_s(self, record: Record) -> float | None:
        """Wall time by which all that was made before the broker was back had come; None if it has not yet."""
        came_s = self.back_s
        for line in record.sampled:
            if line.what == "made" and line.at_s < self.back_s:
                copies = self.arrived.copies.get(line.identity)
                if not copies:
                    return None
                came_s = max(came_s, copies[0].at_s)
        return came_s

    def live(self, drained_s: float) -> list[Arrival]:
        """The first copies of what was sampled while the backlog was being drained."""
        flowing_s = self.flowing_s()
        return [one for (agent, *_), one in self.firsts() if flowing_s.get(agent, drained_s) < one.wall_s < drained_s]


def start_agents(actors: Actors, where: str) -> None:
    """Twenty agents, each with engines of one of four pools."""
    for number in range(PROCESSES):
        file = agent_file(actors.folder, f"node-{number}", log=where)
        words = ["--config", str(file), "--record", str(actors.folder / "record"), "--count", str(AGENTS // PROCESSES)]
        actors.start(f"node-{number}", *words, "--period", str(PERIOD_S), "--pools", f"pool-{number}", module=MODULE)


@pytest.mark.timeout(1500 if full() else 240)
async def test_f01_kafka_down_10_min_with_20_agents_costs_0_of_12000_seqs_and_drains_in_60_s_live_at_most_5_s_late(
    tmp_path: Path, own_broker: KafkaBroker
) -> None:
    """Killed and started again: every identity comes, the oldest too; what is sampled meanwhile does not wait."""
    where = f"kafka://{await asyncio.to_thread(own_broker.start)}/f01-{uuid.uuid4().hex[:12]}"
    await create_topics(settings_for(where), partitions=4, replication=1, dev=True)
    with Actors(tmp_path) as actors:
        start_agents(actors, where)
        async with arriving(where) as arrived:
            await until("frames of all agents", lambda: AGENTS == len({name[0] for name in arrived.copies}), START_S)
            os.kill(own_broker.pid, signal.SIGKILL)
            gone_s = time.time()
            await asyncio.sleep(OUTAGE_S)
            await asyncio.to_thread(own_broker.start)
            recovery = Recovery(arrived=arrived, back_s=time.time())
            folder = tmp_path / "record"
            drained_s = await until(
                "a drained backlog", lambda: recovery.drained_s(read_record(folder)), DRAINED_S, every_s=1.0
            )
            await asyncio.sleep(LATE_S)
        processes = [actor.process.running for actor in actors.all.values()]
    record = read_record(tmp_path / "record")
    outage = {line.identity for line in record.sampled if line.what == "made" and gone_s < line.at_s < recovery.back_s}
    live = recovery.live(drained_s)
    flowing_s = recovery.flowing_s()

    assert [True] * PROCESSES == processes
    assert len(outage) >= AGENTS * (OUTAGE_S / PERIOD_S - 1)
    assert [] == [line for line in arrived.missing(record, "made") if line.at_s < drained_s]
    assert [] == arrived.unexpected(record)
    assert [] == [line for line in record.sampled if line.what == "dropped"]
    assert all(not copy.backlog and copy.late_s <= LATE_S for copy in live)
    assert len(live) > 0
    # What the broker had taken before it was killed may be read only now, as live as it was sent.
    late = [one for _, one in recovery.firsts() if one.at_s >= recovery.back_s and one.wall_s > gone_s]
    old = [one for one in late if one.late_s > NOT_LIVE_S]
    assert [] == [one for one in old if not one.backlog]
    report(
        "1",
        outage_s=round(recovery.back_s - gone_s, 1),
        agents=AGENTS,
        seqs_of_the_outage=len(outage),
        missing=0,
        first_sample_s=round(max(flowing_s.values()) - recovery.back_s, 2),
        drained_s=round(drained_s - recovery.back_s, 2),
        live_samples=len(live),
        latest_live_s=round(max(copy.late_s for copy in live), 2),
        copies_beyond_the_first=arrived.doubles,
    )
