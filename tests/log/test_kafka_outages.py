"""The Kafka log while its broker is frozen, killed or damaged: a broker of this module's own."""

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator

import pytest

from flyball_core.errors import LogCorrupt, LogUnavailable
from flyball_log import Entry, Record, Topic, scan
from flyball_log.kafka import KafkaLog, KafkaSettings, create_topics
from kafka_broker import KafkaBroker


@pytest.fixture
async def log(own_broker: KafkaBroker) -> AsyncIterator[KafkaLog]:
    """A new log with short patience."""
    settings = KafkaSettings(
        bootstrap=(await asyncio.to_thread(own_broker.start),),
        prefix=f"outage-{uuid.uuid4().hex[:12]}",
        append_timeout_s=3,
        suspect_after_s=1,
        read_timeout_s=3,
        connect_timeout_s=3,
    )
    await create_topics(settings, partitions=1, replication=1, dev=True)
    made = await KafkaLog.open(settings)
    yield made
    await made.close()


async def everything(log: KafkaLog) -> list[Record]:
    """Every input."""
    return [record async for records in scan(log, Topic.INPUTS, 0) for record in records]


async def append_patiently(log: KafkaLog, key: bytes, count: int) -> list[bytes]:
    """Append numbered values one after the other, each again until it is acknowledged."""
    values = [b"%s/%d" % (key, number) for number in range(count)]
    for value in values:
        while True:
            try:
                await log.append(Topic.INPUTS, 0, [Entry(key, value)])
                break
            except LogUnavailable:
                await asyncio.sleep(0.05)
    return values


async def test_a_killed_broker_loses_nothing(log: KafkaLog, own_broker: KafkaBroker) -> None:
    """`kill -9` of the broker under load, then back: every value is there, first copies in order per writer."""
    writers = [asyncio.create_task(append_patiently(log, b"w%d" % writer, 150)) for writer in range(4)]
    async with asyncio.timeout(20):
        while (await log.bounds(Topic.INPUTS, 0)).end < 100:
            await asyncio.sleep(0.01)
    os.kill(own_broker.pid, signal.SIGKILL)
    await asyncio.sleep(4)
    await asyncio.to_thread(own_broker.start)

    async with asyncio.timeout(60):
        wanted = await asyncio.gather(*writers)

    there = [record.value for record in await everything(log)]
    for values in wanted:
        own = set(values)
        assert values == list(dict.fromkeys(value for value in there if value in own))


async def test_without_its_broker_the_log_is_unavailable(log: KafkaLog, own_broker: KafkaBroker) -> None:
    """Appends, reads and bounds fail in bounded time while the broker is away, and work again afterwards."""
    await log.append(Topic.INPUTS, 0, [Entry(b"k", b"before")])
    assert 1 == len(await log.read(Topic.INPUTS, 0, 0))
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(own_broker.stop)
    began = loop.time()

    with pytest.raises(LogUnavailable):
        await log.append(Topic.INPUTS, 0, [Entry(b"k", b"during")])
    with pytest.raises(LogUnavailable):
        await log.bounds(Topic.INPUTS, 0)
    with pytest.raises(LogUnavailable):
        await log.read(Topic.INPUTS, 0, 0)
    with pytest.raises(LogUnavailable):
        await KafkaLog.open(KafkaSettings(bootstrap=("127.0.0.1:9",), connect_timeout_s=3))
    assert loop.time() - began < 15

    await asyncio.to_thread(own_broker.start)
    await append_patiently(log, b"k", 1)
    values = [record.value for record in await everything(log)]
    assert b"before" == values[0]
    assert b"k/0" == values[-1]


async def test_a_frozen_broker_delays_and_doubles_at_most(log: KafkaLog, own_broker: KafkaBroker) -> None:
    """A broker stopped by SIGSTOP and woken: what was appended meanwhile arrives, in order, perhaps twice."""
    await log.append(Topic.INPUTS, 0, [Entry(b"k", b"before")])
    pid = own_broker.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        appending = asyncio.create_task(append_patiently(log, b"w", 5))
        await asyncio.sleep(2.5)
        assert not appending.done()
    finally:
        os.kill(pid, signal.SIGCONT)

    async with asyncio.timeout(30):
        wanted = await appending

    there = [record.value for record in await everything(log)]
    assert [b"before", *wanted] == list(dict.fromkeys(there))
    assert log.producers_rebuilt >= 1


async def test_closing_does_not_wait_for_a_dead_broker(log: KafkaLog, own_broker: KafkaBroker) -> None:
    """A log is closed in bounded time with the broker away, and who waits for an append is told."""
    await log.append(Topic.INPUTS, 0, [Entry(b"k", b"v")])
    await asyncio.to_thread(own_broker.stop)
    appending = asyncio.create_task(log.append(Topic.INPUTS, 0, [Entry(b"k", b"v")]))
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await log.close()

    with pytest.raises(LogUnavailable):
        await appending


async def test_a_record_damaged_on_the_brokers_disk_is_noticed(log: KafkaLog, own_broker: KafkaBroker) -> None:
    """A flipped bit in the broker's file is `LogCorrupt` at its offset, after the records before it."""
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [Entry(b"k", b"%d" % number * 50)])
    prefix = log.where.rpartition("/")[2]
    await log.close()
    await asyncio.to_thread(own_broker.stop)
    (path,) = (own_broker.folder / "data" / f"{prefix}.inputs-0").glob("*.log")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    bootstrap = await asyncio.to_thread(own_broker.start)

    again = await KafkaLog.open(KafkaSettings(bootstrap=(bootstrap,), prefix=prefix))

    assert [0] == [record.offset for record in await again.read(Topic.INPUTS, 0, 0)]
    with pytest.raises(LogCorrupt, match="record 1"):
        await again.read(Topic.INPUTS, 0, 1)
    await again.close()
