"""Fault 7: the broker refuses an agent's producer for good: its sequence is out of order, or it is fenced.

Nothing in the agent is touched. An intruder writes to the agent's partition under the agent's producer id, so that
the broker knows of later sequence numbers, or of a later epoch, than the agent's producer does.
"""

# ruff: noqa: SLF001 - the intruder takes another producer's identity

import asyncio
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from flyball_log.kafka import create_topics, settings_for
from kafka_broker import KafkaBroker, own_broker as own_broker
from laboratory.arriving import agent_file, arriving
from laboratory.fleet import POOL
from laboratory.lab_agent import MODULE
from laboratory.processes import Actors, until
from laboratory.record import read_record
from laboratory.scale import report

REBUILT_S = 10.0
PERIOD_S = 0.2
START_S = 60.0
"""Longest start of an agent's process on a machine that is busy; no promise."""
INTRUDED = 7
"""Records of the intruder's batch: another number than the agent's batches have, or it would pass for one of them."""

_HEAD = struct.Struct(">qiibIhiqqqhii")
"""A batch on the broker's disk, up to its records; with the size of the first two fields to be added to its length."""
_LENGTH_FROM = 12


class Batch(NamedTuple):
    """Who wrote a batch, as the broker has it on its disk."""

    producer: int
    epoch: int
    last_sequence: int


def batches(segment: Path) -> Iterator[Batch]:
    """All whole batches of a segment, in order."""
    data = segment.read_bytes()
    at = 0
    while at + _HEAD.size <= len(data):
        _, length, _, _, _, _, last_delta, _, _, producer, epoch, sequence, _ = _HEAD.unpack_from(data, at)
        if length <= 0 or at + _LENGTH_FROM + length > len(data):
            return
        yield Batch(producer, epoch, sequence + last_delta)
        at += _LENGTH_FROM + length


async def intrude(bootstrap: str, place: TopicPartition, known: Batch, *, fence: bool) -> None:
    """Write one batch as the producer that wrote `known`; raises KafkaError if that has gone on meanwhile."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        manager = producer._txn_manager
        manager._pid_and_epoch = manager._pid_and_epoch._replace(
            pid=known.producer, epoch=known.epoch + (1 if fence else 0)
        )
        if not fence:
            manager.increment_sequence_number(place, known.last_sequence + 1)
        batch = producer.create_batch()
        for _ in range(INTRUDED):
            batch.append(timestamp=None, key=b"intruder", value=b"not a frame")
        batch.close()
        await (await producer.send_batch(batch, place.topic, partition=place.partition))
    finally:
        await producer.stop()


async def in_doubt(bootstrap: str, place: TopicPartition, segment: Path, *, fence: bool) -> Batch:
    """Bring the agent's producer into doubt, trying again as often as the agent was quicker; the batch it followed."""
    for _ in range(50):
        known = list(batches(segment))[-1]
        try:
            async with asyncio.timeout(5.0):
                await intrude(bootstrap, place, known, fence=fence)
        except KafkaError:
            continue
        return known
    raise AssertionError("the agent was quicker 50 times")


@pytest.mark.parametrize("fence", [False, True], ids=["out_of_order_sequence", "fenced"])
async def test_f07_producer_fatal_error_is_rebuilt_within_10_s_with_0_lost_and_no_process_restart(
    tmp_path: Path, own_broker: KafkaBroker, *, fence: bool
) -> None:
    """A new producer goes on in its place, with what the old one could not write first."""
    bootstrap = await asyncio.to_thread(own_broker.start)
    prefix = f"f07-{uuid.uuid4().hex[:12]}"
    where, place = f"kafka://{bootstrap}/{prefix}", TopicPartition(f"{prefix}.inputs", 0)
    await create_topics(settings_for(where), partitions=1, replication=1, dev=True)
    [segment] = (own_broker.folder / "data" / f"{place.topic}-0").glob("*.log")
    with Actors(tmp_path) as actors:
        words = ["--config", str(agent_file(tmp_path, "n1", log=where)), "--record", str(tmp_path / "record")]
        agent = actors.start("n1", *words, "--period", str(PERIOD_S), "--pools", POOL, module=MODULE)
        async with arriving(where) as arrived:
            await until("ten frames", lambda: len(arrived.copies) > 10, START_S)
            old = await in_doubt(bootstrap, place, segment, fence=fence)
            harmed_s = time.time()
            new = await until(
                "another producer",
                lambda: [one for one in batches(segment) if one.producer != old.producer],
                REBUILT_S,
                every_s=0.02,
            )
            rebuilt_s = time.time() - harmed_s
            made = [line for line in read_record(tmp_path / "record").sampled if line.what == "made"]
            await until("every frame", lambda: not {m.identity for m in made} - arrived.copies.keys(), REBUILT_S)
            await until(
                "frames made since", lambda: any(c[0].wall_s > harmed_s for c in arrived.copies.values()), REBUILT_S
            )
        running, lines = agent.running, agent.lines
    record = read_record(tmp_path / "record")

    assert ("ProducerFenced" if fence else "OutOfOrderSequenceNumber") in lines
    assert {old.producer} != {one.producer for one in new}
    assert (running, agent.starts) == (True, 1)
    assert [] == [line for line in arrived.missing(record, "made") if line.at_s < made[-1].at_s]
    assert [] == arrived.unexpected(record)
    assert "dropped" not in {line.what for line in record.sampled}
    report(
        f"7 ({'fenced' if fence else 'out of order'})",
        rebuilt_s=round(rebuilt_s, 2),
        lost=0,
        copies_beyond_the_first=arrived.doubles,
    )
