"""What both homes refuse before anything is written.

One table of limits, so that a record accepted by the embedded log is accepted by
Kafka too. Refuses to split or shorten: what is too large is the writer's to divide.
"""

from collections.abc import Sequence

from flyball_core.errors import Rejected
from flyball_log.interface import Entry, Topic

MAX_RECORD_BYTES = 256 * 1024
"""The most bytes of key and value together."""

MAX_KEY_BYTES = 4 * 1024
"""The most bytes of a key."""

MAX_OFFSET = 2**62
"""The greatest offset: no log gets as far, so that a greater one is damage wherever it stands."""

MAX_PARTITIONS = 1024
"""The most partitions of a topic."""


def check_entries(topic: Topic, entries: Sequence[Entry]) -> None:
    """Raise `Rejected`, naming the entry, if any of `entries` may not be appended to `topic`."""
    for number, (key, value) in enumerate(entries):
        if len(key) > MAX_KEY_BYTES:
            raise Rejected(f"entry {number}: a key of {len(key)} bytes; the limit is {MAX_KEY_BYTES}")
        if value is None:
            if not topic.compacted:
                raise Rejected(f"entry {number}: a tombstone in {topic.value}, which is not compacted")
        elif len(key) + len(value) > MAX_RECORD_BYTES:
            size = len(key) + len(value)
            raise Rejected(f"entry {number}: a record of {size} bytes; the limit is {MAX_RECORD_BYTES}")


def check_partition(partition: int, partitions: int) -> None:
    """Raise `Rejected` unless `partition` is one of `partitions`."""
    if not 0 <= partition < partitions:
        raise Rejected(f"partition {partition}: this log has partitions 0 to {partitions - 1}")


def check_partitions(partitions: int) -> None:
    """Raise `Rejected` unless a log can be made with so many partitions."""
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise Rejected(f"{partitions} partitions: a log has 1 to {MAX_PARTITIONS}")
