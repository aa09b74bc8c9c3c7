"""The log in Kafka: five topics, one of them for the log's id.

Refuses to make topics by itself: `create_topics` does, when asked. Everything it gives
to readers is replicated as `topics check` demands, and so is never taken back.
"""

from collections.abc import Sequence

from flyball_core.errors import Fatal, LogUnavailable, NotALog, OffsetGone, Rejected
from flyball_core.ids import LogId
from flyball_log.grouping import GroupCommit
from flyball_log.interface import Bounds, Entry, Membership, Record, Topic
from flyball_log.kafka.group import GroupMembership
from flyball_log.kafka.layout import Layout, read_layout, read_log_id
from flyball_log.kafka.producing import Producing, TopicLane
from flyball_log.kafka.reading import Reading
from flyball_log.kafka.settings import KafkaSettings
from flyball_log.limits import check_entries, check_partition
from flyball_log.partitioning import partition_of

_CLOSE_S = 5.0
_HINT = "run `flyball topics create`"


async def identify(settings: KafkaSettings) -> LogId:
    """The id of the log that is there now. Raises `LogUnavailable`, `NotALog` and `Fatal` as `KafkaLog.open`."""
    await _complete_layout(settings)
    reading = Reading(settings)
    try:
        return await _must_have_id(settings, reading)
    finally:
        await reading.close()


async def _complete_layout(settings: KafkaSettings) -> Layout:
    layout = await read_layout(settings)
    missing = [name for name, found in layout.items() if not found]
    if missing:
        raise NotALog(f"{settings.where}: topic {missing[0]} does not exist; {_HINT}")
    return layout


async def _must_have_id(settings: KafkaSettings, reading: Reading) -> LogId:
    log_id = await read_log_id(settings, reading)
    if log_id is None:
        raise NotALog(f"{settings.where}: {settings.meta_topic} holds no log id; {_HINT}")
    return log_id


class KafkaLog:
    """A log in Kafka. Made by `open`, for the event loop that it is made on."""

    def __init__(
        self, settings: KafkaSettings, log_id: LogId, partitions: int, reading: Reading, *, read_only: bool
    ) -> None:
        self._settings = settings
        self._log_id = log_id
        self._partitions = partitions
        self._reading = reading
        self._producing = None if read_only else Producing(settings)
        self._groups: GroupCommit[TopicLane] | None = None
        if self._producing is not None:
            self._groups = GroupCommit(self._producing.commit)
        self._closed = False

    @classmethod
    async def open(cls, settings: KafkaSettings, *, read_only: bool = False) -> "KafkaLog":
        """Open the log with these brokers and this prefix.

        Raises `LogUnavailable` if no broker answers in time, `NotALog` if topics or the log id are
        missing, `Fatal` if the topics do not fit together or may not be read.
        """
        layout = await _complete_layout(settings)
        counts = {len(layout[settings.topic(topic)]) for topic in Topic}
        if len(counts) != 1:
            raise Fatal(f"{settings.where}: topics have {sorted(counts)} partitions; see `flyball topics check`")
        reading = Reading(settings)
        try:
            log_id = await _must_have_id(settings, reading)
        except BaseException:
            await reading.close()
            raise
        return cls(settings, log_id, counts.pop(), reading, read_only=read_only)

    @property
    def log_id(self) -> LogId:
        """The UUID made with the topics."""
        return self._log_id

    @property
    def partitions(self) -> int:
        """Partitions of every topic."""
        return self._partitions

    @property
    def where(self) -> str:
        """`kafka://HOST:PORT[,...]/PREFIX`."""
        return self._settings.where

    @property
    def producers_rebuilt(self) -> int:
        """How many producers were thrown away because they were in doubt."""
        return self._producing.rebuilt if self._producing is not None else 0

    def partition_of(self, key: str) -> int:
        """The partition of a pool."""
        return partition_of(key, self._partitions)

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append in order and return the offsets once replicated, as `Log.append`.

        After a failure of the producer entries may be there twice; the offsets are those of the last copy.
        """
        self._check_open()
        check_partition(partition, self._partitions)
        check_entries(topic, entries)
        if self._groups is None:
            raise Rejected(f"{self.where} was opened read-only")
        if not entries:
            return []
        name = self._settings.topic(topic)
        offsets = await self._groups.append((name, partition), entries)
        self._reading.note_end(name, partition, offsets[-1] + 1)
        return offsets

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """Up to `limit` records with offset >= `start`, as `Log.read`.

        With `wait_s` 0 it still waits for records that are known to exist.
        """
        self._check_open()
        check_partition(partition, self._partitions)
        if limit < 1:
            return []
        if start < 0:
            raise OffsetGone(start, (await self.bounds(topic, partition)).begin)
        return await self._reading.read(self._settings.topic(topic), partition, start, limit, wait_s)

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """The partition's first kept and next offset."""
        self._check_open()
        check_partition(partition, self._partitions)
        return await self._reading.bounds(self._settings.topic(topic), partition)

    async def join(self) -> Membership:
        """Take a place in the group of controllers; returns at once, before partitions are assigned."""
        self._check_open()
        return GroupMembership(self._settings)

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable(f"{self.where}: this log was closed")

    async def close(self) -> None:
        """Finish what was appended, for a few seconds at most, and disconnect; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._groups is not None:
            await self._groups.close(_CLOSE_S)
        if self._producing is not None:
            await self._producing.close()
        await self._reading.close()
