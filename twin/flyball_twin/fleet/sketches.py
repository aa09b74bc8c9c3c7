"""Percentiles of a stream in bounded memory, to within a known relative error.

Values are counted in bins whose bounds grow by a constant factor, so that the middle of a bin is within
`RELATIVE_ERROR` of everything in it; this is DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable
quantile sketch with relative-error guarantees", VLDB 2019) with bounds from a microsecond to some four months, so at
most some 1,500 bins. Values beyond are counted at the bound. Nothing is random, and the order of what comes is of no
account.
"""

from math import ceil, exp, log

RELATIVE_ERROR = 0.01

_FACTOR = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR)
_PER_LOG = 1.0 / log(_FACTOR)
_LEAST, _MOST = 1e-6, 1e7


class Sketch:
    """Counts values above 0, in seconds or any other unit."""

    __slots__ = ("bins", "count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        """Sum of the values, exactly."""
        self.bins: dict[int, int] = {}
        """How many values each bin holds, by the whole power of the factor that is its upper bound."""

    def add(self, value: float) -> None:
        """Count one value."""
        self.count += 1
        self.total += value
        kept = _LEAST if value < _LEAST else min(value, _MOST)
        at = ceil(log(kept) * _PER_LOG)
        self.bins[at] = self.bins.get(at, 0) + 1

    def merge(self, other: "Sketch") -> None:
        """Count everything that the other has counted."""
        self.count += other.count
        self.total += other.total
        for at, number in other.bins.items():
            self.bins[at] = self.bins.get(at, 0) + number

    def quantile(self, share: float) -> float | None:
        """The nearest-rank percentile, `share` from 0 to 1, within `RELATIVE_ERROR` of it; None of nothing."""
        left = max(1, ceil(share * self.count))
        for at in sorted(self.bins):
            left -= self.bins[at]
            if left <= 0:
                return 2.0 * exp(at / _PER_LOG) / (_FACTOR + 1.0)
        return None
