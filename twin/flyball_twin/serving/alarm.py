"""The event loop's alarm clock for one engine: the only place where the small engine waits."""

import asyncio
from collections.abc import Callable
from math import isinf


class LoopAlarm:
    """Calls `ring` at the time it was told last, on the running loop's monotonic clock."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None

    def clock(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    def at(self, when_s: float) -> None:
        """Ring at that time instead of the one told before; never, if it is infinity."""
        if self._handle is not None:
            if self._handle.when() == when_s and not self._handle.cancelled():
                return
            self._handle.cancel()
        self._handle = None if isinf(when_s) else self._loop.call_at(when_s, self._go)

    def stop(self) -> None:
        """Ring no more."""
        self.at(float("inf"))

    def _go(self) -> None:
        self._handle = None
        self._ring()
