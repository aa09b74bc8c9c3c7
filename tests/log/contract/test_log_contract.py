"""What every log promises, run over the embedded one and over Kafka."""

import asyncio
import os

import pytest

from flyball_core.errors import LogUnavailable, OffsetGone, Rejected
from flyball_log import Bounds, Entry, Log, Record, Topic, fold, join, partition_of, scan
from flyball_log.limits import MAX_KEY_BYTES, MAX_RECORD_BYTES
from log_homes import Home


def entries(count: int, start: int = 0) -> list[Entry]:
    """Entries that tell their number."""
    return [Entry(b"key-%d" % (number % 7), b"value-%d" % number) for number in range(start, start + count)]


async def read_all(log: Log, topic: Topic, partition: int) -> list[Record]:
    """Every record of a partition."""
    return [record async for records in scan(log, topic, partition) for record in records]


async def test_reads_back_what_was_appended(home: Home) -> None:
    """Records come back in order with the offsets that append returned."""
    log = await home.make()
    wanted = entries(50)

    offsets = await log.append(Topic.INPUTS, 1, wanted)
    got = await log.read(Topic.INPUTS, 1, 0, limit=100)

    assert [Record(offset, *entry) for offset, entry in zip(offsets, wanted, strict=True)] == got
    assert offsets == sorted(set(offsets))


async def test_reads_from_the_middle_up_to_the_limit(home: Home) -> None:
    """A read begins at its start and ends at its limit."""
    log = await home.make()
    offsets = await log.append(Topic.INPUTS, 0, entries(40))

    got = await log.read(Topic.INPUTS, 0, offsets[10], limit=5)

    assert offsets[10:15] == [record.offset for record in got]


async def test_jumping_back_and_forth_reads_right(home: Home) -> None:
    """Readers at different places of one partition do not disturb each other."""
    log = await home.make()
    offsets = await log.append(Topic.INPUTS, 0, entries(60))
    starts = [0, 50, 10, 55, 5, 20, 0]

    together = await asyncio.gather(*(log.read(Topic.INPUTS, 0, offsets[start], limit=3) for start in starts))
    in_turn = [await log.read(Topic.INPUTS, 0, offsets[start], limit=3) for start in starts]

    assert [offsets[start : start + 3] for start in starts] == [[r.offset for r in each] for each in together]
    assert together == in_turn


async def test_an_empty_partition_has_nothing(home: Home) -> None:
    """Bounds of an empty partition are equal, and a read that does not wait returns nothing."""
    log = await home.make()

    bounds = await log.bounds(Topic.STATE, 3)

    assert Bounds(0, 0) == bounds
    assert [] == await log.read(Topic.STATE, 3, 0)


async def test_bounds_tell_the_next_offset(home: Home) -> None:
    """The end of the bounds is the offset that the next append gets."""
    log = await home.make()
    await log.append(Topic.DECISIONS, 0, entries(3))

    bounds = await log.bounds(Topic.DECISIONS, 0)

    assert [bounds.end] == await log.append(Topic.DECISIONS, 0, entries(1))
    assert 0 == bounds.begin


async def test_a_waiting_read_wakes_with_the_record(home: Home) -> None:
    """A read that waits returns as soon as a record is there, not when its time is over."""
    log = await home.make()
    began = asyncio.get_running_loop().time()
    reading = asyncio.create_task(log.read(Topic.INPUTS, 2, 0, wait_s=30))
    await asyncio.sleep(0)

    offsets = await log.append(Topic.INPUTS, 2, entries(1))
    got = await reading

    assert offsets == [record.offset for record in got]
    assert asyncio.get_running_loop().time() - began < 10


async def test_a_waiting_read_ends_in_time(home: Home) -> None:
    """A read returns nothing once its waiting time is over."""
    log = await home.make()

    assert [] == await log.read(Topic.INPUTS, 2, 0, wait_s=0.05)


async def test_reading_beyond_the_end_is_empty(home: Home) -> None:
    """An offset that is not yet there is no error."""
    log = await home.make()
    await log.append(Topic.INPUTS, 0, entries(2))

    assert [] == await log.read(Topic.INPUTS, 0, 1000)


async def test_no_record_is_before_the_first(home: Home) -> None:
    """A negative offset is before the first one kept, in an empty partition too."""
    log = await home.make()

    with pytest.raises(OffsetGone):
        await log.read(Topic.INPUTS, 0, -1)


async def test_concurrent_appends_are_whole(home: Home) -> None:
    """Of concurrent appends none is lost, doubled or torn apart, and each keeps its order."""
    log = await home.make()
    batches = [[Entry(b"k", b"%d/%d" % (batch, at)) for at in range(5)] for batch in range(60)]

    answers = await asyncio.gather(*(log.append(Topic.INPUTS, 0, batch) for batch in batches))
    records = {record.offset: record.value for record in await read_all(log, Topic.INPUTS, 0)}

    assert 300 == len(records)
    for batch, offsets in zip(batches, answers, strict=True):
        assert list(range(offsets[0], offsets[0] + 5)) == offsets
        assert [entry.value for entry in batch] == [records[offset] for offset in offsets]


async def test_a_large_append_keeps_its_order(home: Home) -> None:
    """An append of many large records, more than one write takes, stays in order."""
    log = await home.make()
    wanted = [Entry(b"%d" % number, os.urandom(250_000)) for number in range(20)]

    offsets = await log.append(Topic.STATE, 0, wanted)
    got = await read_all(log, Topic.STATE, 0)

    assert [entry.value for entry in wanted] == [record.value for record in got]
    assert offsets == [record.offset for record in got]


async def test_topics_and_partitions_are_apart(home: Home) -> None:
    """What is appended to one partition of one topic is in no other."""
    log = await home.make()
    await log.append(Topic.INPUTS, 1, entries(3))

    for topic in Topic:
        for partition in range(log.partitions):
            expected = 3 if (topic, partition) == (Topic.INPUTS, 1) else 0
            assert expected == len(await read_all(log, topic, partition))


async def test_any_bytes_pass(home: Home) -> None:
    """Keys and values are bytes of any content; an empty value is not a tombstone."""
    log = await home.make()
    wanted = [Entry(bytes(range(256)), bytes(range(256))), Entry(b"", b"x"), Entry(b"k", b""), Entry(b"k", None)]

    offsets = await log.append(Topic.STATE, 0, wanted)
    got = await log.read(Topic.STATE, 0, 0)

    assert [Record(offset, *entry) for offset, entry in zip(offsets, wanted, strict=True)] == got


async def test_folding_keeps_the_last_of_each_key(home: Home) -> None:
    """A fold of a compacted topic has the last record of each key and none for tombstones."""
    log = await home.make()
    await log.append(Topic.DIRECTIVES, 0, [Entry(b"a", b"1"), Entry(b"b", b"1"), Entry(b"c", b"1")])
    last = await log.append(Topic.DIRECTIVES, 0, [Entry(b"b", None), Entry(b"a", b"2"), Entry(b"a", b"3")])

    folded = await fold(log, Topic.DIRECTIVES, 0)

    assert {b"a": Record(last[2], b"a", b"3"), b"c": Record(2, b"c", b"1")} == folded


async def test_an_empty_append_does_nothing(home: Home) -> None:
    """Appending no entries returns no offsets and writes nothing."""
    log = await home.make()

    assert [] == await log.append(Topic.INPUTS, 0, [])
    assert Bounds(0, 0) == await log.bounds(Topic.INPUTS, 0)


async def test_a_record_of_the_largest_size_is_taken(home: Home) -> None:
    """Key and value together may have exactly the limit."""
    log = await home.make()
    wanted = Entry(b"key", os.urandom(MAX_RECORD_BYTES - 3))

    await log.append(Topic.INPUTS, 0, [wanted])

    assert wanted == (await log.read(Topic.INPUTS, 0, 0))[0][1:]


@pytest.mark.parametrize(
    ("topic", "bad", "why"),
    [
        (Topic.INPUTS, Entry(b"key", bytes(MAX_RECORD_BYTES - 2)), "262145 bytes"),
        (Topic.INPUTS, Entry(bytes(MAX_KEY_BYTES + 1), b""), "key of 4097 bytes"),
        (Topic.INPUTS, Entry(b"key", None), "not compacted"),
        (Topic.DECISIONS, Entry(b"key", None), "not compacted"),
    ],
)
async def test_what_is_refused_leaves_no_trace(home: Home, topic: Topic, bad: Entry, why: str) -> None:
    """One entry that cannot be taken refuses the whole append, with the reason, and nothing is written."""
    log = await home.make()

    with pytest.raises(Rejected, match=why):
        await log.append(topic, 0, [Entry(b"good", b"good"), bad])

    assert Bounds(0, 0) == await log.bounds(topic, 0)


async def test_a_partition_that_is_not_there_is_refused(home: Home) -> None:
    """Partitions outside the log's are refused in every call."""
    log = await home.make(partitions=2)

    for partition in (-1, 2):
        with pytest.raises(Rejected, match="partitions 0 to 1"):
            await log.append(Topic.INPUTS, partition, entries(1))
        with pytest.raises(Rejected, match="partitions 0 to 1"):
            await log.read(Topic.INPUTS, partition, 0)
        with pytest.raises(Rejected, match="partitions 0 to 1"):
            await log.bounds(Topic.INPUTS, partition)


async def test_pools_have_the_same_partition_everywhere(home: Home) -> None:
    """Both homes place a pool alike."""
    log = await home.make(partitions=7)

    for pool in ("chat-70b", "_fleet", "_unassigned", "été", ""):
        assert partition_of(pool, 7) == log.partition_of(pool)


async def test_a_log_opened_again_is_the_same(home: Home) -> None:
    """Records, id and partitions outlive the process; offsets go on growing."""
    log = await home.make(partitions=3)
    offsets = await log.append(Topic.INPUTS, 2, entries(10))
    await log.close()

    again = await home.open(log.where)

    assert (log.log_id, 3, log.where) == (again.log_id, again.partitions, again.where)
    assert offsets == [record.offset for record in await read_all(again, Topic.INPUTS, 2)]
    assert offsets[-1] < (await again.append(Topic.INPUTS, 2, entries(1)))[0]


async def test_two_logs_have_two_ids(home: Home) -> None:
    """A log made anew is told from every other."""
    assert (await home.make()).log_id != (await home.make()).log_id


async def test_what_passed_out_of_retention_is_said(home: Home) -> None:
    """A read before the first record kept names that record's offset, and reading from there works."""
    log = await home.make()
    await home.drop_oldest(log, 1)
    again = await home.open(log.where)
    bounds = await again.bounds(Topic.INPUTS, 1)

    with pytest.raises(OffsetGone) as gone:
        await again.read(Topic.INPUTS, 1, 0)

    assert 0 < bounds.begin < bounds.end == 60
    assert (0, bounds.begin) == (gone.value.asked, gone.value.first)
    assert bounds.begin == (await again.read(Topic.INPUTS, 1, bounds.begin))[0].offset


async def test_a_reader_beside_the_writer(home: Home) -> None:
    """A log opened read-only follows what another handle appends, and refuses to append."""
    log = await home.make()
    reader = await home.open(log.where, read_only=True)

    offsets = await log.append(Topic.INPUTS, 0, entries(3))
    got = await reader.read(Topic.INPUTS, 0, 0, wait_s=10)

    assert offsets[0] == got[0].offset
    with pytest.raises(Rejected, match="read-only"):
        await reader.append(Topic.INPUTS, 0, entries(1))


async def test_a_closed_log_says_so(home: Home) -> None:
    """After close nothing hangs: every call fails at once, and closing again is allowed."""
    log = await home.make()
    await log.append(Topic.INPUTS, 0, entries(1))

    await log.close()
    await log.close()

    with pytest.raises(LogUnavailable, match="closed"):
        await log.append(Topic.INPUTS, 0, entries(1))
    with pytest.raises(LogUnavailable, match="closed"):
        await log.read(Topic.INPUTS, 0, 0)
    with pytest.raises(LogUnavailable, match="closed"):
        await log.bounds(Topic.INPUTS, 0)


async def test_closing_finishes_what_was_appended(home: Home) -> None:
    """An append under way when the log is closed is answered, and its records are there."""
    log = await home.make()
    appending = [asyncio.create_task(log.append(Topic.INPUTS, 0, entries(5, start))) for start in range(0, 50, 5)]
    await asyncio.sleep(0)

    await log.close()
    offsets = [offset for answer in await asyncio.gather(*appending) for offset in answer]
    again = await home.open(log.where)

    assert offsets == [record.offset for record in await read_all(again, Topic.INPUTS, 0)]


async def test_alone_one_owns_everything(home: Home) -> None:
    """A controller without others is assigned every partition, and none after it left."""
    log = await home.make(partitions=5)

    member = await join(log)
    async with asyncio.timeout(30):
        while not member.assigned():
            await asyncio.sleep(0.02)

    assert frozenset(range(5)) == member.assigned()
    await member.close()
    assert frozenset() == member.assigned()
