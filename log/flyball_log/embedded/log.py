"""The log in a folder: one writer, any number of readers, no broker.

Made for a small fleet, for tests and for recordings that are replayed. Does not serve the
network: who wants to append from another node asks the controller that holds the log.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flyball_core.errors import FlyballError, LogUnavailable, Rejected
from flyball_core.ids import LogId
from flyball_log.embedded.folder import Meta, create_folder, lock_for_writing, partition_folder, read_meta
from flyball_log.embedded.following import FOLLOW_S, Follower
from flyball_log.embedded.partition import PartitionReader
from flyball_log.embedded.settings import Durability, EmbeddedSettings
from flyball_log.embedded.writing import PartitionWriter
from flyball_log.grouping import GroupCommit
from flyball_log.interface import Bounds, Entry, Record, Topic
from flyball_log.limits import check_entries, check_partition
from flyball_log.partitioning import partition_of

_THREADS = 4

_logger = logging.getLogger(__name__)
_Lane = tuple[Topic, int]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Bytes that a commit without end had left at a partition's end, cut off at open."""

    topic: Topic
    partition: int
    torn_bytes: int


class EmbeddedLog:
    """A log in a folder. Made by `create` or `open`, both of which may block for a while.

    `recovered` says what a crash of the last writer had left behind.
    """

    def __init__(self, folder: Path, meta: Meta, settings: EmbeddedSettings, lock: int | None) -> None:
        self._folder = folder
        self._meta = meta
        self._lock = lock
        self._closed = False
        self._groups: GroupCommit[_Lane] = GroupCommit(self._commit)
        self._waiting: dict[_Lane, set[asyncio.Future[None]]] = {}
        self._compactions: set[asyncio.Task[None]] = set()
        lanes = [(topic, partition) for topic in Topic for partition in range(meta.partitions)]
        places = {lane: partition_folder(folder, *lane) for lane in lanes}
        self._writers: dict[_Lane, PartitionWriter] = {}
        self._follower: Follower | None = None
        if lock is None:
            readers = {lane: PartitionReader(place) for lane, place in places.items()}
            self._follower = Follower(folder, readers.values())
        else:
            self._writers = {lane: PartitionWriter(place, lane[0], settings) for lane, place in places.items()}
            readers = dict(self._writers)
        self._readers: dict[_Lane, PartitionReader] = readers
        self.recovered = tuple(
            Recovered(topic=topic, partition=partition, torn_bytes=writer.torn_bytes)
            for (topic, partition), writer in self._writers.items()
            if writer.torn_bytes
        )
        threaded = settings.durability is Durability.FSYNC
        self._threads = ThreadPoolExecutor(_THREADS, "flyball-log") if threaded else None

    @classmethod
    def create(cls, folder: str | Path, partitions: int = 8, settings: EmbeddedSettings | None = None) -> "EmbeddedLog":
        """Make a log in an absent or empty folder and open it for writing.

        Raises `Rejected` if the folder holds something, `LogUnavailable` if it cannot be written.
        """
        settings = settings or EmbeddedSettings()
        create_folder(Path(folder), partitions, settings.clock())
        return cls.open(folder, settings=settings)

    @classmethod
    def open(
        cls, folder: str | Path, *, read_only: bool = False, settings: EmbeddedSettings | None = None
    ) -> "EmbeddedLog":
        """Open the log in `folder`, for writing unless `read_only`.

        A reader beside a living writer sees what is synced; without a writer, all that is intact. Raises
        `NotALog`, `LogUnavailable` if files cannot be read or written, `Fatal` if there is a writer already.
        """
        place = Path(folder)
        meta = read_meta(place)
        lock = None if read_only else lock_for_writing(place)
        try:
            return cls(place, meta, settings or EmbeddedSettings(), lock)
        except BaseException as error:
            if lock is not None:
                os.close(lock)
            if isinstance(error, OSError):
                raise LogUnavailable(f"{place}: cannot open: {error}") from error
            raise

    @property
    def log_id(self) -> LogId:
        """The UUID made with the folder."""
        return self._meta.log_id

    @property
    def partitions(self) -> int:
        """Partitions of every topic."""
        return self._meta.partitions

    @property
    def where(self) -> str:
        """The folder."""
        return str(self._folder)

    def partition_of(self, key: str) -> int:
        """The partition of a pool."""
        return partition_of(key, self._meta.partitions)

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append in order and return the offsets once durable, as `Log.append`.

        Raises `Rejected` also if the log was opened read-only. After `LogUnavailable` nothing was appended.
        """
        self._check_open()
        check_partition(partition, self.partitions)
        check_entries(topic, entries)
        if not self._writers:
            raise Rejected(f"{self._folder} was opened read-only")
        if not entries:
            return []
        if self._threads is not None:
            return await self._groups.append((topic, partition), entries)
        return await self._commit((topic, partition), list(entries))

    async def _commit(self, lane: _Lane, entries: list[Entry]) -> list[int]:
        writer = self._writers[lane]
        offsets, compact = await self._call(lambda: (writer.append(entries), writer.compaction_due()))
        for waiting in self._waiting.pop(lane, ()):
            if not waiting.done():
                waiting.set_result(None)
        if compact and self._threads is None:
            await self._compact(writer)
        elif compact:
            task = asyncio.create_task(self._compact(writer))
            self._compactions.add(task)
            task.add_done_callback(self._compactions.discard)
        return offsets

    async def _compact(self, writer: PartitionWriter) -> None:
        try:
            await self._call(writer.compact)
        except FlyballError as error:
            _logger.warning("compaction failed: %s", error)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        """Do what may wait for the disk: in a thread, unless this log only promises the operating system."""
        if self._threads is None:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """Up to `limit` synced records with offset >= `start`, as `Log.read`; at most some MiB at once."""
        check_partition(partition, self.partitions)
        lane = (topic, partition)
        reader = self._readers[lane]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            self._check_open()
            if self._follower is not None and start >= reader.bounds().end:
                self._follower.look(reader)
            if reader.hot(start):
                records = reader.read(start, limit)
            else:
                records = await self._call(lambda: reader.read(start, limit))
            left_s = deadline - loop.time()
            if records or left_s <= 0 or limit < 1:
                return records
            await self._more(lane, left_s)

    async def _more(self, lane: _Lane, left_s: float) -> None:
        """Wait until there may be more in the lane, at most `left_s` seconds."""
        if self._follower is not None:
            await asyncio.sleep(min(left_s, FOLLOW_S))
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        here = self._waiting.setdefault(lane, set())
        here.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=left_s)
        finally:
            here.discard(waiting)

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """The partition's first kept and next offset, synced records only."""
        self._check_open()
        check_partition(partition, self.partitions)
        reader = self._readers[(topic, partition)]
        if self._follower is not None:
            self._follower.look(reader)
        return reader.bounds()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"{self._folder}: this log was closed")

    async def close(self) -> None:
        """Finish what was appended and let another writer in; idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._groups.close()
        if self._compactions:
            await asyncio.wait(self._compactions)
        for lane in list(self._waiting):
            for waiting in self._waiting.pop(lane):
                if not waiting.done():
                    waiting.set_result(None)
        await self._call(self._release)
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    def _release(self) -> None:
        for writer in self._writers.values():
            writer.close()
        if self._lock is not None:
            os.close(self._lock)
