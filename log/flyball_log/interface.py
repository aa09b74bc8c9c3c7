"""One log, two homes: what both the embedded log and Kafka promise.

A log has a few topics. `INPUTS` is partitioned and everything that may change a
decision goes through it; `DECISIONS` is the audit; `DIRECTIVES` and `STATE` are
compacted by key. Readers see synced records only, so no offset is ever used twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from flyball_core.ids import LogId


class Topic(Enum):
    """The topics of a log; the value is the suffix of the topic's name."""

    INPUTS = "inputs"
    DECISIONS = "decisions"
    DIRECTIVES = "directives"
    STATE = "state"

    @property
    def compacted(self) -> bool:
        """Whether the last record of each key is kept for ever and older ones may go."""
        return self in (Topic.DIRECTIVES, Topic.STATE)


class Entry(NamedTuple):
    """What a writer appends. `value=None` is a tombstone, for compacted topics only."""

    key: bytes
    value: bytes | None


class Record(NamedTuple):
    """What a reader gets: the entry and its offset. Offsets grow; compaction leaves holes."""

    offset: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The offsets of a partition: the first one kept, and the next one to be written."""

    begin: int
    end: int


class Log(Protocol):
    """The log as appenders, owners, pushers and replay see it.

    Every topic has the same number of partitions, frozen at creation; what concerns a
    pool goes to `partition_of(pool)` in every topic.
    """

    @property
    def log_id(self) -> LogId:
        """The UUID made with the topics."""
        ...

    @property
    def partitions(self) -> int:
        """Partitions of every topic."""
        ...

    @property
    def where(self) -> str:
        """How a user names this log on a command line: a folder, or `kafka://HOST:PORT/PREFIX`."""
        ...

    def partition_of(self, key: str) -> int:
        """The partition of a pool; the same in both homes and for ever (murmur2, as Kafka's clients)."""
        ...

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Append in order and return the offsets once the records are durable.

        Raises `LogUnavailable` if durability is not known in time (then some may have been
        written: readers deduplicate) and `Rejected` for a record over the size limit.
        """
        ...

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """Up to `limit` synced records with offset >= `start`, in order.

        Waits up to `wait_s` for the first one. Raises `OffsetGone` if `start` is before the
        first offset kept, `LogCorrupt` at a damaged record (after returning those before it),
        `LogUnavailable` if the log does not answer.
        """
        ...

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """The partition's first kept and next offset, synced records only."""
        ...

    async def close(self) -> None:
        """Flush and release everything; idempotent."""
        ...


class Membership(Protocol):
    """A controller's place in the group that shares the partitions out."""

    def assigned(self) -> frozenset[int]:
        """The partitions this member should own now; empty while a rebalance runs."""
        ...

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its share, which may be none; not while a rebalance runs."""
        ...

    async def close(self) -> None:
        """Leave the group."""
        ...
