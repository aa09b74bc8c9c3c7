"""What the parts hold while the soak runs: memory, descriptors, disk; and whether any of it grows.

A slope is fitted over one life of a process, without its beginning: the first minutes fill caches. Linux only.
"""

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from laboratory.processes import Actor

WARM_S = 300.0
"""The beginning of a life that is left out of its slope."""
LEAST_S = 600.0
"""A life shorter than this, its beginning left out, has no slope."""
MIB = 1024.0 * 1024.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One part at one moment."""

    at_s: float
    """Seconds since the soak began."""
    life: int
    """Which of its starts."""
    rss_mib: float
    descriptors: int
    cpu_s: float
    """CPU time of this life so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """Growth of a part's memory, fitted by least squares over its longest life."""

    mib_per_h: float
    error_mib_per_h: float
    """One standard error."""
    over_s: float


@dataclass(slots=True)
class Watch:
    """Looks at every part now and then."""

    actors: Sequence[Actor]
    folders: Sequence[Path]
    """Whose bytes are counted."""
    began_s: float = field(default_factory=time.monotonic)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    disk: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since the beginning, and MiB on disk."""

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began_s

    def look(self) -> None:
        """One sample of every part that runs, and of the disk."""
        now_s = self.now_s
        for actor in self.actors:
            with suppress(OSError, AssertionError, ValueError):  # it ends while it is looked at
                if actor.running:
                    self.samples.setdefault(actor.name, []).append(
                        Sample(
                            at_s=now_s,
                            life=actor.starts,
                            rss_mib=actor.rss_bytes() / MIB,
                            descriptors=actor.descriptors(),
                            cpu_s=actor.process.cpu_s(),
                        )
                    )
        self.disk.append((now_s, sum(map(_bytes_in, self.folders)) / MIB))


def lives(samples: Iterable[Sample]) -> list[list[Sample]]:
    """The samples of each life."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.life, []).append(sample)
    return list(found.values())


def slope(samples: Sequence[Sample]) -> Slope | None:
    """How the memory of the longest life grows; None if none was long enough."""
    longest = max(lives(samples), key=lambda life: life[-1].at_s - life[0].at_s, default=[])
    settled = [sample for sample in longest if sample.at_s - longest[0].at_s >= WARM_S]
    if len(settled) < 3 or settled[-1].at_s - settled[0].at_s < LEAST_S:
        return None
    hours = np.array([sample.at_s for sample in settled]) / 3600.0
    sizes = np.array([sample.rss_mib for sample in settled])
    hours = hours - hours.mean()
    spread = float(hours @ hours)
    growth = float(hours @ sizes) / spread
    left = sizes - sizes.mean() - growth * hours
    error = float(np.sqrt(left @ left / (len(settled) - 2) / spread))
    return Slope(mib_per_h=growth, error_mib_per_h=error, over_s=settled[-1].at_s - settled[0].at_s)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # segments come and go
            if path.is_file():
                total += path.stat().st_size
    return total
