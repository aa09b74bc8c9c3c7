"""Logs in which something goes wrong: overtaken, beheaded, failing, or with changed records."""

from collections.abc import Callable, Sequence

from flyball_core.errors import LogUnavailable, OffsetGone
from flyball_core.ids import LogId
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings
from flyball_log.folding import scan
from flyball_log.interface import Bounds, Entry, Log, Record, Topic

QUICK = EmbeddedSettings(durability=Durability.OS)
"""No waiting for the disk."""


class HandedOn:
    """A log that hands everything on to another one."""

    def __init__(self, log: Log) -> None:
        self.inner = log

    @property
    def log_id(self) -> LogId:
        """As the inner log's."""
        return self.inner.log_id

    @property
    def partitions(self) -> int:
        """As the inner log's."""
        return self.inner.partitions

    @property
    def where(self) -> str:
        """As the inner log's."""
        return self.inner.where

    def partition_of(self, key: str) -> int:
        """As the inner log's."""
        return self.inner.partition_of(key)

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """As the inner log's."""
        return await self.inner.append(topic, partition, entries)

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """As the inner log's."""
        return await self.inner.read(topic, partition, start, limit=limit, wait_s=wait_s)

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """As the inner log's."""
        return await self.inner.bounds(topic, partition)

    async def close(self) -> None:
        """As the inner log's."""
        await self.inner.close()


class Overtaken(HandedOn):
    """Once armed, puts other entries before those that the test tells apart."""

    def __init__(self, log: Log, before: Callable[[Entry], bool]) -> None:
        super().__init__(log)
        self._before = before
        self.armed: list[Entry] = []

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append, and what overtakes before it."""
        if self.armed and topic is Topic.INPUTS and any(self._before(entry) for entry in entries):
            armed, self.armed = self.armed, []
            await self.inner.append(topic, partition, armed)
        return await self.inner.append(topic, partition, entries)


class Beheaded(HandedOn):
    """A log whose inputs before an offset have passed out of retention, and whose checkpoints are lost."""

    def __init__(self, log: Log, begin: int, *, keeps_state: bool = False) -> None:
        super().__init__(log)
        self._begin = begin
        self._keeps_state = keeps_state

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """Inputs from the first kept on; no state."""
        if topic is Topic.STATE and not self._keeps_state:
            return []
        if topic is Topic.INPUTS and start < self._begin:
            raise OffsetGone(start, self._begin)
        return await super().read(topic, partition, start, limit=limit, wait_s=wait_s)

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """As they are after retention."""
        bounds = await super().bounds(topic, partition)
        if topic is Topic.STATE and not self._keeps_state:
            return Bounds(bounds.end, bounds.end)
        return Bounds(max(bounds.begin, self._begin), bounds.end) if topic is Topic.INPUTS else bounds


class Failing(HandedOn):
    """A log that does not take what goes to some topics while it is told not to."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.refusing: frozenset[Topic] = frozenset()
        self.torn = False
        """Whether the first half of what is refused is written all the same."""

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append, or fail as a broker that does not answer in time."""
        if topic in self.refusing:
            if self.torn:
                await self.inner.append(topic, partition, entries[: len(entries) // 2])
            raise LogUnavailable("the log does not answer")
        return await super().append(topic, partition, entries)


async def records_of(log: Log, topic: Topic, partition: int) -> list[Record]:
    """Everything in a partition."""
    return [record async for records in scan(log, topic, partition) for record in records]


async def copied(log: Log, folder: str, change: Callable[[Topic, Record], list[Entry]]) -> EmbeddedLog:
    """A new log with the records of another, as `change` hands them on. Its id is another's: see `Renamed`."""
    made = EmbeddedLog.create(folder, log.partitions, QUICK)
    for topic in Topic:
        for partition in range(log.partitions):
            entries = [entry for record in await records_of(log, topic, partition) for entry in change(topic, record)]
            if entries:
                await made.append(topic, partition, entries)
    return made


class Renamed(HandedOn):
    """A copy of a log that goes by the id of the first."""

    def __init__(self, log: Log, log_id: LogId) -> None:
        super().__init__(log)
        self._log_id = log_id

    @property
    def log_id(self) -> LogId:
        """The id of the log that this is a copy of."""
        return self._log_id
