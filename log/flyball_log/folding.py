"""Reading a partition from end to end, and folding a compacted one to its last records.

Last by offset, which is all a log can promise. Who wants the greatest version rather
than the last record folds by that itself, over `scan`.
"""

from collections.abc import AsyncIterator

from flyball_log.interface import Log, Record, Topic

_STRIDE = 2000


async def scan(
    log: Log, topic: Topic, partition: int, *, start: int | None = None, end: int | None = None
) -> AsyncIterator[list[Record]]:
    """Yield the records with `start` <= offset < `end`, in order, in handfuls.

    Defaults: the first offset kept, and the end as it is when the scan begins. Raises as `Log.read`.
    """
    if start is None or end is None:
        bounds = await log.bounds(topic, partition)
        start = bounds.begin if start is None else start
        end = bounds.end if end is None else end
    while start < end:
        records = await log.read(topic, partition, start, limit=_STRIDE)
        if not records:
            return  # compaction left a hole up to the end
        if records[-1].offset >= end:
            if inside := [record for record in records if record.offset < end]:
                yield inside
            return
        yield records
        start = records[-1].offset + 1


async def fold(log: Log, topic: Topic, partition: int) -> dict[bytes, Record]:
    """The last record of each key of a compacted partition; keys ended by a tombstone are absent.

    Reads up to the end as it is when the call begins. Raises as `Log.read`.
    """
    last: dict[bytes, Record] = {}
    async for records in scan(log, topic, partition):
        for record in records:
            if record.value is None:
                last.pop(record.key, None)
            else:
                last[record.key] = record
    return last
