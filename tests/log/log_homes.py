"""The homes of the log, so that one suite can be run over them: both of life, and the one of simulations."""

import itertools
import uuid
from pathlib import Path
from typing import Protocol

from flyball_core.ids import LogId
from flyball_log import Entry, Log, Topic, open_log
from flyball_log.embedded import EmbeddedLog, EmbeddedSettings, Retention
from harness.memory_log import MemoryLog, MemoryShelf


class Home(Protocol):
    """Where a log lives, as the contract suite sees it."""

    async def make(self, partitions: int = 4) -> Log:
        """A new log, open for writing."""
        ...

    async def open(self, where: str, *, read_only: bool = False) -> Log:
        """Open a log made before."""
        ...

    async def drop_oldest(self, log: Log, partition: int) -> None:
        """Fill the inputs of `partition` and bring some of the first out of retention."""
        ...

    async def close(self) -> None:
        """Close every log."""
        ...


class EmbeddedHome:
    """Logs in folders below one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._logs: list[Log] = []
        retention = Retention(max_bytes=20_000, max_age_s=3600)
        self._settings = EmbeddedSettings(segment_bytes=8_000, retention={Topic.INPUTS: retention})

    async def make(self, partitions: int = 4) -> Log:
        """A new log, open for writing."""
        self._logs.append(EmbeddedLog.create(self._folder / str(next(self._numbers)), partitions))
        return self._logs[-1]

    async def open(self, where: str, *, read_only: bool = False) -> Log:
        """Open a log made before."""
        self._logs.append(await open_log(where, read_only=read_only))
        return self._logs[-1]

    async def drop_oldest(self, log: Log, partition: int) -> None:
        """Fill the inputs of `partition` beyond a retention smaller than the default."""
        await log.close()
        small = EmbeddedLog.open(log.where, settings=self._settings)
        for _ in range(60):
            await small.append(Topic.INPUTS, partition, [Entry(b"k", bytes(1000))])
        await small.close()

    async def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            await log.close()


class KafkaHome:
    """Logs in topics of the session's broker, each with a prefix of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._logs: list[Log] = []

    async def make(self, partitions: int = 4) -> Log:
        """A new log, open for writing."""
        from flyball_log.kafka import create_topics, settings_for

        where = f"kafka://{self._bootstrap}/test-{uuid.uuid4().hex[:12]}"
        await create_topics(settings_for(where), partitions=partitions, replication=1, dev=True)
        return await self.open(where)

    async def open(self, where: str, *, read_only: bool = False) -> Log:
        """Open a log made before."""
        self._logs.append(await open_log(where, read_only=read_only))
        return self._logs[-1]

    async def drop_oldest(self, log: Log, partition: int) -> None:
        """Append to the inputs of `partition` and have the broker delete the first records."""
        from kafka_tools import delete_records

        for _ in range(60):
            await log.append(Topic.INPUTS, partition, [Entry(b"k", bytes(1000))])
        prefix = log.where.rpartition("/")[2]
        await delete_records(self._bootstrap, f"{prefix}.inputs", partition, before=40)
        await log.close()

    async def close(self) -> None:
        """Close every log."""
        for log in self._logs:
            await log.close()


class MemoryHome:
    """Logs in this process, each on a shelf of its own."""

    def __init__(self) -> None:
        self._shelves: dict[str, MemoryShelf] = {}

    async def make(self, partitions: int = 4) -> Log:
        """A new log, open for writing."""
        where = f"memory:{len(self._shelves)}"
        self._shelves[where] = MemoryShelf(LogId(str(uuid.uuid4())), partitions, where)
        return await self.open(where)

    async def open(self, where: str, *, read_only: bool = False) -> Log:
        """Open a log made before."""
        return MemoryLog(self._shelves[where], read_only=read_only)

    async def drop_oldest(self, log: Log, partition: int) -> None:
        """Fill the inputs of `partition` and retire the first."""
        for _ in range(60):
            await log.append(Topic.INPUTS, partition, [Entry(b"k", bytes(1000))])
        self._shelves[log.where].retire(Topic.INPUTS, partition, 40)
        await log.close()

    async def close(self) -> None:
        """Nothing to close."""
