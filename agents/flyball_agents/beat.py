"""Times at equal distances: what was missed is counted and not made up for.

Knows no clock: it is told the time. Two grids of one clock and one period keep their distance for ever.
"""

import math


class Beat:
    """A grid of times `period_s` seconds apart, the first of them at `start_s`."""

    def __init__(self, start_s: float, period_s: float) -> None:
        self.skipped = 0
        """Times that passed while an earlier one was still under way."""
        self._start_s = start_s
        self._period_s = period_s
        self._number = 0

    def next_in_s(self, now_s: float) -> float:
        """Seconds from `now_s` to the next time; those that have passed meanwhile are skipped."""
        due = math.floor((now_s - self._start_s) / self._period_s) + 1
        self.skipped += max(due - self._number - 1, 0)
        self._number = max(due, self._number + 1)
        return self._start_s + self._number * self._period_s - now_s
