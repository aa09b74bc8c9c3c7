"""How an embedded log keeps its files: sizes, retention, durability."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from time import time

from flyball_log.interface import Topic

MIB = 1024 * 1024
KEPT_BYTES = 1024 * MIB
"""Most bytes of a partition's inputs, and of its decisions, but for one segment."""
_DAY_S = 86_400.0


class Durability(Enum):
    """What `append` waits for."""

    FSYNC = "fsync"
    """The disk: an appended record survives a lost machine."""
    OS = "os"
    """The operating system: survives a killed process, not a lost machine; for simulations. No threads are used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Whole segments are removed, oldest first, when a partition holds more or older than this."""

    max_bytes: int
    """Bytes per partition."""
    max_age_s: float
    """Seconds since a segment's last append, by the log's clock."""


def _retention() -> Mapping[Topic, Retention]:
    return {
        Topic.INPUTS: Retention(max_bytes=KEPT_BYTES, max_age_s=7 * _DAY_S),
        Topic.DECISIONS: Retention(max_bytes=KEPT_BYTES, max_age_s=30 * _DAY_S),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """How an embedded log keeps its files. The defaults suit a fleet of a few hundred engines."""

    segment_bytes: int = 16 * MIB
    """A segment takes no further commit once it holds so much."""
    retention: Mapping[Topic, Retention] = field(default_factory=_retention)
    """Of the topics that are not compacted; one without an entry is kept for ever."""
    compact_bytes: int = 4 * MIB
    """Compaction waits for at least so many bytes of uncompacted records."""
    dirty_ratio: float = 0.5
    """Compaction waits until uncompacted records are this share of a partition's bytes."""
    durability: Durability = Durability.FSYNC
    """What `append` waits for."""
    clock: Callable[[], float] = time
    """Wall time, Unix seconds; used for retention by age only."""
