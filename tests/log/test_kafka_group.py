"""Controllers sharing partitions through Kafka's group."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from flyball_log import Entry, Log, Membership, Topic, join
from flyball_log.kafka import group
from log_homes import KafkaHome


@pytest.fixture
async def log(kafka_broker: str) -> AsyncIterator[Log]:
    """A new log in Kafka with six partitions."""
    home = KafkaHome(kafka_broker)
    yield await home.make(partitions=6)
    await home.close()


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for something, not too long."""
    async with asyncio.timeout(30):
        while not is_so():
            await asyncio.sleep(0.02)


def shared(*members: Membership) -> bool:
    """Whether every partition has exactly one owner and nobody is idle."""
    owned = [partition for member in members for partition in member.assigned()]
    return sorted(owned) == list(range(6)) and all(member.assigned() for member in members)


async def test_partitions_move_with_the_members(log: Log) -> None:
    """Two members have three partitions each; who stays keeps its own and takes over when the other leaves."""
    first = await join(log)
    await until(lambda: shared(first))
    second = await join(log)
    await until(lambda: shared(first, second))
    had = first.assigned()

    await second.close()
    await until(lambda: shared(first))
    third = await join(log)
    await until(lambda: shared(first, third))

    assert 3 == len(had) == len(first.assigned())
    assert frozenset() == second.assigned()
    await first.close()
    await third.close()


async def test_a_rebalance_is_seen_as_nothing_owned(log: Log) -> None:
    """Between losing and getting partitions a member owns none, so that nobody acts meanwhile."""
    first = await join(log)
    await until(lambda: shared(first))
    seen: set[int] = set()
    second = await join(log)

    async with asyncio.timeout(30):
        while not shared(first, second):
            seen.add(len(first.assigned()))
            await asyncio.sleep(0)

    assert {6, 0} <= seen <= {6, 0, 3}
    await first.close()
    await second.close()


async def test_what_a_member_had_is_remembered_with_its_age(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group tells what a member has from what one that was away had before: by the generation of both."""
    made: list[type[StickyPartitionAssignor]] = []

    def noted() -> type[StickyPartitionAssignor]:
        made.append(real())
        return made[-1]

    real = group.own_assignor
    monkeypatch.setattr(group, "own_assignor", noted)
    first = await join(log)
    await until(lambda: shared(first))
    before = made[0].generation
    second = await join(log)
    await until(lambda: shared(first, second))

    assert 0 < before < made[0].generation == made[1].generation
    await first.close()
    await second.close()


async def test_membership_reads_nothing(log: Log) -> None:
    """Members leave no committed offsets and take no records away from readers."""
    member = await join(log)
    await until(lambda: shared(member))

    await log.append(Topic.INPUTS, 2, [Entry(b"k", b"v")] * 10)

    assert 10 == len(await log.read(Topic.INPUTS, 2, 0))
    await member.close()
