"""Which sequence numbers were seen: a set of integers kept as few intervals."""

from bisect import bisect_right
from dataclasses import dataclass, field

MAX_INTERVALS = 1024
"""More holes than this are forgotten from the oldest on: what fills them later counts as seen."""


@dataclass(slots=True)
class SequenceSet:
    """Non-negative integers seen, as disjoint, sorted, closed intervals."""

    lows: list[int] = field(default_factory=list)
    highs: list[int] = field(default_factory=list)

    def add(self, number: int) -> bool:
        """Note `number`; False if it was there already."""
        highs, lows = self.highs, self.lows
        if highs and number == highs[-1] + 1:  # the ordinary case: the next one
            highs[-1] = number
            return True
        at = bisect_right(lows, number)
        if at and number <= highs[at - 1]:
            return False
        joins_left = at > 0 and highs[at - 1] + 1 == number
        joins_right = at < len(lows) and lows[at] - 1 == number
        if joins_left and joins_right:
            highs[at - 1] = highs[at]
            del lows[at], highs[at]
        elif joins_left:
            highs[at - 1] = number
        elif joins_right:
            lows[at] = number
        else:
            lows.insert(at, number)
            highs.insert(at, number)
            if len(lows) > MAX_INTERVALS:
                highs[0] = highs[1]
                del lows[1], highs[1]
        return True

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.lows, number)
        return at > 0 and number <= self.highs[at - 1]

    @property
    def missing(self) -> int:
        """Numbers below the highest that were not seen, from 0 on."""
        seen = sum(high - low + 1 for low, high in zip(self.lows, self.highs, strict=True))
        return self.highs[-1] + 1 - seen if self.highs else 0
