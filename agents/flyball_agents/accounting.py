"""Where every sampled frame went, exactly."""

from collections import Counter
from dataclasses import dataclass, field

from flyball_core.ids import BootId, PoolId

Key = tuple[BootId, PoolId, int]
"""A frame's identity within its agent: boot, pool, sequence number."""

_MOST_RUNS = 1000


@dataclass(slots=True)
class Accounting:
    """Where every frame went: `taken + recovered = delivered + all of dropped + waiting`."""

    taken: int = 0
    """Frames appended in this life of the spool."""
    recovered: int = 0
    """Frames found on disk when it was opened."""
    delivered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason: "oldest" (the bound), "age", "disk_full", "disk", "too_large", "damaged", "rejected"."""
    ranges: dict[tuple[BootId, PoolId], list[tuple[int, int]]] = field(default_factory=dict)
    """Dropped sequence numbers, first and last of each run, the latest runs of each boot and pool."""

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
