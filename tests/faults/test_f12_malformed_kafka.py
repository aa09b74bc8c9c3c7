"""Fault 12, in Kafka: a stranger writes into every topic of a log what is no record of ours, as large as it is let."""

import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from flyball_core.inputs import Malformed
from flyball_log import open_log
from flyball_log.interface import Entry, Topic
from flyball_log.kafka import create_topics, settings_for
from flyball_log.kafka.topics import MAX_MESSAGE_BYTES
from flyball_proto.codec import decode_input
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from harness.controller_calls import apply_policy, stub
from kafka_broker import kafka_broker as kafka_broker
from laboratory.fleet import POLICY, POOL, Fleet, events
from laboratory.flooding import first_frame
from laboratory.processes import Actors, until
from laboratory.scale import report

MIB = 2**20
GROWTH_BYTES = 32 * MIB
UP_S = 60.0
TIMES = 2
"""How often each record comes under each key."""
KEYS = (POOL.encode(), b"", b"\xff\xfe", b"checkpoint/0/1/0/0")

FRAME = first_frame("a0", POOL, backlog=False).SerializeToString()


def padded(size: int) -> bytes:
    """A frame that is in order, with so many bytes of a field that nobody knows beside it."""
    return FRAME + b"\x82\x01" + _varint(size) + bytes(size)


def _varint(number: int) -> bytes:
    return bytes([number & 127 | (128 if number > 127 else 0)]) + (_varint(number >> 7) if number > 127 else b"")


RECORDS = {
    "no protobuf": b"\xff" * 1_000,
    "nothing": b"",
    "a tombstone": None,
    "cut off": FRAME[:-7],
    "nested deep": b"\x0b" * 10_000,
    "a length of 4 GiB": b"\x0a\xff\xff\xff\xff\x0f",
    "as large as the broker takes": padded(MAX_MESSAGE_BYTES - len(FRAME) - 1_000),
}


def test_f12_each_of_these_is_data_and_no_input() -> None:
    """Each decodes to `Malformed` with its reason, however large; the frame that they were made of does not."""
    reasons = {what: decode_input(0, value).body for what, value in RECORDS.items()}

    assert all(isinstance(body, Malformed) and body.reason for body in reasons.values())
    assert not isinstance(decode_input(0, FRAME).body, Malformed)
    assert not isinstance(decode_input(0, padded(1_000)).body, Malformed)


async def strangers_records(bootstrap: str, where: str) -> int:
    """Write them into every topic; how many went into the inputs."""
    settings = settings_for(where)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=64 * MIB)
    packing = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=64 * MIB, compression_type="gzip")
    await producer.start()
    await packing.start()
    inputs = 0
    try:
        for topic in Topic:
            name = settings.topic(topic)
            for key in KEYS:
                for value in RECORDS.values():
                    if value is None and key == KEYS[-1]:
                        continue  # what it deletes is the log's own
                    for _ in range(TIMES):
                        await producer.send_and_wait(name, value, key=key, partition=0)
                        inputs += topic is Topic.INPUTS
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(name, padded(10 * MIB), key=KEYS[0], partition=0)
            # Its size is judged as it comes, packed; what reads it unpacks it (see docs/limits.md).
            await packing.send_and_wait(name, padded(4 * MIB), key=KEYS[0], partition=0)
            inputs += topic is Topic.INPUTS
    finally:
        await producer.stop()
        await packing.stop()
    return inputs


async def set_aside(fleet: Fleet) -> float:
    """How many inputs the controller says that nobody could read."""
    if await fleet.waits_for("c1") is None:
        return 0.0
    return await fleet.metric("c1", "flyball_controller_inputs_set_aside", reason="malformed")


async def ticks(fleet: Fleet) -> float:
    """How many ticks there were since it was started; 0 while nobody answers."""
    if await fleet.waits_for("c1") is None:
        return 0.0
    return await fleet.metric("c1", "flyball_controller_tick_seconds_count")


async def unreadable_decisions(fleet: Fleet) -> int:
    """How many records of the audit a reader is told that nobody can read."""
    found = 0
    async with stub(rpc.OperatorReadServiceStub, fleet.doors["c1"][0]) as operator:
        async for page in operator.Decisions(pb.DecisionsRequest(partition=0)):
            found += page.unreadable
    return found


async def delivered(fleet: Fleet) -> int:
    """Frames of the pool that were taken."""
    pool = await fleet.pool()
    return 0 if pool is None else int(pool.counts["delivered"])


@pytest.mark.timeout(240)
async def test_f12_malformed_and_10_mib_records_in_every_topic_are_set_aside_with_rss_growth_below_32_mib(
    tmp_path: Path, kafka_broker: str
) -> None:
    """Each is counted and told of; the partition advances past all of them, and so does a controller started then."""
    where = f"kafka://{kafka_broker}/f12-{uuid.uuid4().hex[:12]}"
    await create_topics(settings_for(where), partitions=1, replication=1, dev=True)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, where)
        controller = fleet.controller("c1")
        controller.start()
        await until("a tick", lambda: ticks(fleet), UP_S)
        assert pb.WRITE_OUTCOME_TAKEN == (await apply_policy(fleet.doors["c1"][0], POLICY)).outcome
        assert 0 == await unreadable_decisions(fleet)  # its readers are there before anything is measured
        before = controller.rss_bytes()
        inputs = await strangers_records(kafka_broker, where)
        await until(f"{inputs} of them set aside", lambda: _is(set_aside, fleet, inputs), UP_S)
        ignored = await fleet.metric("c1", "flyball_controller_ignored_records")
        unreadable = await unreadable_decisions(fleet)
        ticked = await ticks(fleet)
        log = await open_log(where)
        await log.append(Topic.INPUTS, 0, [Entry(POOL.encode(), FRAME)])
        await log.close()
        await until("the frame behind them", lambda: _is(delivered, fleet, 1), UP_S)
        assert pb.WRITE_OUTCOME_TAKEN == (await apply_policy(fleet.doors["c1"][0], POLICY)).outcome
        growth = controller.process.peak_rss_bytes() - before
        assert await ticks(fleet) > ticked
        [(_, told), *_] = events(controller.lines, "inputs_unreadable")
        assert 0 == controller.stop()
        controller.start()
        await until("a tick of its successor", lambda: ticks(fleet), UP_S)
        assert inputs == await set_aside(fleet)
        assert 1 == await delivered(fleet)
        (_, taken) = events(controller.lines, "partition_taken")[-1]

    report("f12 kafka", growth_mib=round(growth / MIB, 1), inputs=inputs, ignored=ignored, unreadable=unreadable)
    readable = len(RECORDS) - 2  # no tombstone, and nothing is no record of a kind known here: neither is damage
    assert growth < GROWTH_BYTES
    assert ignored >= TIMES * len(KEYS) * readable
    assert unreadable >= TIMES * len(KEYS) * 3
    assert "input " in told["last"]
    assert taken["refused"]


async def _is(ask: Callable[[Fleet], Awaitable[float]], fleet: Fleet, wanted: float) -> bool:
    """Whether that is the answer."""
    return await ask(fleet) == wanted
