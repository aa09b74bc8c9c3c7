"""Where every sampled frame went, exactly."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from flyball_core.ids import BootId, PoolId

Key = tuple[BootId, PoolId, int]
"""A frame's identity within its agent: boot, pool, sequence number."""
Witness = Callable[[Literal["made", "synced", "dropped"], Key, str], None]
"""Is told of every frame by name, as it happens; the last is the reason of a drop. Must not raise."""

_MOST_RUNS = 1000


def _nobody(what: Literal["made", "synced", "dropped"], key: Key, reason: str) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Accounting:
    """Where every frame went: `taken + recovered = delivered + all of dropped + waiting`."""

    taken: int = 0
    """Frames appended in this life of the spool."""
    recovered: int = 0
    """Frames found on disk when it was opened."""
    delivered: int = 0
    synced: int = 0
    """Frames that were on the disk for sure before they were delivered."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason: "oldest" (the bound), "age", "disk_full", "disk", "too_large", "damaged", "rejected"."""
    ranges: dict[tuple[BootId, PoolId], list[tuple[int, int]]] = field(default_factory=dict)
    """Dropped sequence numbers, first and last of each run, the latest runs of each boot and pool."""
    witness: Witness = _nobody

    def take(self, key: Key) -> None:
        """Count one frame that is about to be stored."""
        self.taken += 1
        self.witness("made", key, "")

    def sync(self, key: Key) -> None:
        """Count one frame that a crash of the whole machine leaves on the disk."""
        self.synced += 1
        self.witness("synced", key, "")

    def drop(self, key: Key, reason: str) -> None:
        """Count one dropped frame."""
        self.dropped[reason] += 1
        boot, pool, seq = key
        runs = self.ranges.setdefault((boot, pool), [])
        if runs and runs[-1][1] + 1 == seq:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
            del runs[:-_MOST_RUNS]
        self.witness("dropped", key, reason)
