"""A log in memory, shared by all who open it: what the simulation runs over, held to the log's own contract suite.

It keeps no time and loses nothing; what goes wrong with a log is `laboratory.simulation.faulty_log`'s affair.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from flyball_core.errors import LogUnavailable, OffsetGone, Rejected
from flyball_core.ids import LogId
from flyball_log.interface import Bounds, Entry, Record, Topic
from flyball_log.limits import check_entries, check_partition, check_partitions
from flyball_log.partitioning import partition_of


@dataclass(slots=True)
class _Kept:
    """One partition of one topic."""

    records: list[Record] = field(default_factory=list)
    begin: int = 0
    end: int = 0
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class MemoryShelf:
    """The records of one log, which outlive those who have it open."""

    def __init__(self, log_id: LogId, partitions: int, where: str) -> None:
        """Empty. Raises `Rejected` for a number of partitions that no log can have."""
        check_partitions(partitions)
        self.log_id, self.partitions, self.where = log_id, partitions, where
        self._kept = {(topic, partition): _Kept() for topic in Topic for partition in range(partitions)}

    def add(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Write entries as they are, and wake who waits for them."""
        kept = self._kept[topic, partition]
        offsets = list(range(kept.end, kept.end + len(entries)))
        kept.records.extend(map(_record, offsets, entries))
        kept.end += len(entries)
        for waiter in kept.waiting:
            if not waiter.done():
                waiter.set_result(None)
        kept.waiting.clear()
        return offsets

    def read(self, topic: Topic, partition: int, start: int, limit: int) -> list[Record]:
        """As `Log.read`, what is there now."""
        kept = self._kept[topic, partition]
        if start < kept.begin:
            raise OffsetGone(start, kept.begin)
        if start >= kept.end:
            return []
        # Without holes, which only compaction leaves, a record stands at its offset.
        at = start - kept.begin if len(kept.records) == kept.end - kept.begin else bisect_left(kept.records, (start,))
        return kept.records[at : at + limit]

    def bounds(self, topic: Topic, partition: int) -> Bounds:
        """As `Log.bounds`."""
        kept = self._kept[topic, partition]
        return Bounds(kept.begin, kept.end)

    def news(self, topic: Topic, partition: int) -> asyncio.Future[None]:
        """Done with the next record."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._kept[topic, partition].waiting.append(waiter)
        return waiter

    def compact(self, topic: Topic, partition: int) -> int:
        """Keep the last record of each key; how many went. Tombstones stay, as they do in Kafka for a day."""
        kept = self._kept[topic, partition]
        last = {record.key: record.offset for record in kept.records}
        stay = [record for record in kept.records if record.offset == last[record.key]]
        gone, kept.records = len(kept.records) - len(stay), stay
        return gone

    def rewrite(self, topic: Topic, partition: int, change: Callable[[Record], Record | None]) -> None:
        """Have each record be what `change` makes of it, or gone: what no log does, and a checker has to notice."""
        kept = self._kept[topic, partition]
        kept.records = [changed for record in kept.records if (changed := change(record)) is not None]

    def retire(self, topic: Topic, partition: int, begin: int) -> None:
        """Have everything before this offset pass out of retention."""
        kept = self._kept[topic, partition]
        kept.records = [record for record in kept.records if record.offset >= begin]
        kept.begin = max(kept.begin, min(begin, kept.end))

    def __iter__(self) -> Iterator[tuple[Topic, int, Record]]:
        """Every record of every topic, in one order."""
        for (topic, partition), kept in self._kept.items():
            for record in kept.records:
                yield topic, partition, record


class MemoryLog:
    """One opening of a shelf."""

    def __init__(self, shelf: MemoryShelf, *, read_only: bool = False) -> None:
        self.shelf = shelf
        self._read_only = read_only
        self._closed = False

    @property
    def log_id(self) -> LogId:
        """Of the shelf."""
        return self.shelf.log_id

    @property
    def partitions(self) -> int:
        """Of the shelf."""
        return self.shelf.partitions

    @property
    def where(self) -> str:
        """Of the shelf."""
        return self.shelf.where

    def partition_of(self, key: str) -> int:
        """As every log."""
        return partition_of(key, self.shelf.partitions)

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append; durable at once."""
        self._check(partition)
        if self._read_only:
            raise Rejected("this log was opened read-only")
        check_entries(topic, entries)
        return self.shelf.add(topic, partition, entries)

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """Read, and wait for the first record if there is none."""
        self._check(partition)
        found = self.shelf.read(topic, partition, start, limit)
        if not found and wait_s > 0:
            await asyncio.wait([self.shelf.news(topic, partition)], timeout=wait_s)
            self._check(partition)
            found = self.shelf.read(topic, partition, start, limit)
        return found

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """The first offset and the next."""
        self._check(partition)
        return self.shelf.bounds(topic, partition)

    async def close(self) -> None:
        """Nothing more through this opening."""
        self._closed = True

    def _check(self, partition: int) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        check_partition(partition, self.partitions)


def _record(offset: int, entry: Entry) -> Record:
    return Record(offset, entry.key, entry.value)
