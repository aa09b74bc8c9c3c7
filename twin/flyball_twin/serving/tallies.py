"""Distributions of one incarnation's latencies, in the buckets that vLLM has.

Plain integers, because a busy engine observes thousands of tokens a second; the Prometheus
side reads them when it is asked. Nothing here knows of time or of an engine.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
"""Upper bounds of vLLM's buckets for the time to the first token, in seconds."""

ITL_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
"""The same for the time between two tokens."""

REQUEST_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
"""The same for whole requests, and for their time in the queue."""


class Tally:
    """One histogram: how many observations fell into each bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket, the last one for what is above all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one observation; a bucket's bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Bucket bounds, as Prometheus writes them, with the observations up to each."""
        names = [*(str(bound) for bound in self.bounds), "+Inf"]
        found: list[tuple[str, float]] = []
        so_far = 0
        for name, count in zip(names, self.counts, strict=True):
            so_far += count
            found.append((name, float(so_far)))
        return found


@dataclass(slots=True)
class Tallies:
    """What an incarnation has seen of its requests."""

    ttft: Tally = field(default_factory=lambda: Tally(TTFT_S))
    itl: Tally = field(default_factory=lambda: Tally(ITL_S))
    e2e: Tally = field(default_factory=lambda: Tally(REQUEST_S))
    queue: Tally = field(default_factory=lambda: Tally(REQUEST_S))
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    """Requests that are over, by vLLM's reason."""
