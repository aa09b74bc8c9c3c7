"""The producer of the Kafka log when it gets into a state that only a new one leaves."""

# ruff: noqa: SLF001 - the producer is broken from inside

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from flyball_core.errors import Rejected
from flyball_log import Entry, Topic, scan
from flyball_log.kafka import KafkaLog
from log_homes import KafkaHome


@pytest.fixture
async def log(kafka_broker: str) -> AsyncIterator[KafkaLog]:
    """A new log in Kafka with one partition."""
    home = KafkaHome(kafka_broker)
    made = await home.make(partitions=1)
    assert isinstance(made, KafkaLog)
    yield made
    await home.close()


def live_producer(log: KafkaLog) -> AIOKafkaProducer:
    """The producer in use."""
    assert log._producing is not None
    assert log._producing._live is not None
    return log._producing._live.producer


def skip_a_sequence_number(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """The broker will answer OUT_OF_ORDER_SEQUENCE_NUMBER from now on."""
    producer._txn_manager.increment_sequence_number(place, 5)


def take_an_unknown_id(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """The broker does not know this producer and its sequence."""
    manager = producer._txn_manager
    manager._pid_and_epoch = manager._pid_and_epoch._replace(pid=987_654_321)


def take_an_old_epoch(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """The broker fences this producer: it has seen a newer epoch."""
    manager = producer._txn_manager
    manager._pid_and_epoch = manager._pid_and_epoch._replace(epoch=-1)


def break_its_sender(producer: AIOKafkaProducer, place: TopicPartition) -> None:
    """Nothing is ever sent again: a send does not complete."""
    task = producer._sender.sender_task
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("harm", [skip_a_sequence_number, take_an_unknown_id, take_an_old_epoch, break_its_sender])
async def test_a_broken_producer_is_made_anew(
    log: KafkaLog, harm: Callable[[AIOKafkaProducer, TopicPartition], None]
) -> None:
    """Whatever broke it, appends go on within 10 s, none is lost, and first copies are in order."""
    place = TopicPartition(f"{log.where.rpartition('/')[2]}.inputs", 0)
    await log.append(Topic.INPUTS, 0, [Entry(b"0", b"first")])
    harm(live_producer(log), place)

    async with asyncio.timeout(10):
        answers = await asyncio.gather(
            *(log.append(Topic.INPUTS, 0, [Entry(b"%d" % n, b"a"), Entry(b"%d" % n, b"b")]) for n in range(1, 30))
        )

    records = [record async for each in scan(log, Topic.INPUTS, 0) for record in each]
    by_offset = {record.offset: record for record in records}
    assert log.producers_rebuilt in (0, 1)
    assert harm is take_an_unknown_id or log.producers_rebuilt == 1
    for number, offsets in enumerate(answers, start=1):
        assert [(b"%d" % number, b"a"), (b"%d" % number, b"b")] == [by_offset[offset][1:] for offset in offsets]
    firsts = list(dict.fromkeys(record[1:] for record in records))
    assert [b"%d" % number for number in range(1, 30)] == [key for key, value in firsts if value == b"a"]


async def test_a_producer_that_was_given_up_leaves_nothing_behind(log: KafkaLog) -> None:
    """Throwing a producer away ends its tasks and connections."""
    await log.append(Topic.INPUTS, 0, [Entry(b"0", b"first")])
    before = len(asyncio.all_tasks())
    for _ in range(3):
        skip_a_sequence_number(live_producer(log), TopicPartition(f"{log.where.rpartition('/')[2]}.inputs", 0))
        await log.append(Topic.INPUTS, 0, [Entry(b"1", b"next")])

    await asyncio.sleep(0.2)

    assert 3 == log.producers_rebuilt
    assert len(asyncio.all_tasks()) <= before + 1


async def test_a_topic_with_a_smaller_limit_refuses_clearly(kafka_broker: str) -> None:
    """A record that the topic does not take is rejected and does not block what comes after."""
    from flyball_log.kafka import KafkaSettings, create_topics
    from kafka_tools import create_topic

    settings = KafkaSettings(bootstrap=(kafka_broker,), prefix="small-messages")
    await create_topic(kafka_broker, "small-messages.inputs", 1, {"max.message.bytes": "2000"})
    await create_topics(settings, partitions=1, replication=1, dev=True)
    log = await KafkaLog.open(settings)
    import os

    with pytest.raises(Rejected, match="does not take records so large"):
        await log.append(Topic.INPUTS, 0, [Entry(b"k", os.urandom(5000))])

    assert [0] == await log.append(Topic.INPUTS, 0, [Entry(b"k", b"small")])
    await log.close()
