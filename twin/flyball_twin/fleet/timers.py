"""What a simulation has to do at known times, in a fixed order. It refuses to know what that is."""

import heapq
from collections.abc import Callable
from enum import IntEnum

NEVER = float("inf")


class Turn(IntEnum):
    """What comes first at equal times."""

    FAULT = 0
    """A fault begins or is over."""
    ENGINE = 1
    """A relaunch is through, or a health check has made up its mind."""
    QUEUE = 2
    """A request has waited too long."""


class Timers:
    """Actions at times; those of equal time and turn in the order in which they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, Callable[[], None]]] = []
        self._set = 0

    def at(self, at_s: float, turn: Turn, action: Callable[[], None]) -> None:
        """Do it then; at infinity, never."""
        if at_s < NEVER:
            self._set += 1
            heapq.heappush(self._heap, (at_s, turn, self._set, action))

    def next_s(self) -> float:
        """When the next is due; infinity if there is none."""
        return self._heap[0][0] if self._heap else NEVER

    def act(self, now_s: float) -> bool:
        """Do all that is due, and what that sets for now; whether there was anything."""
        acted = False
        while self._heap and self._heap[0][0] <= now_s:
            heapq.heappop(self._heap)[3]()
            acted = True
        return acted
