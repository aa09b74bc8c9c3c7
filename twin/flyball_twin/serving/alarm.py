"""The event loop's alarm clock for one engine: the only place where the small engine waits."""

import asyncio
from collections.abc import Callable
from math import isinf


class LoopAlarm:
    """Rings at the time it was told last, on the running loop's monotonic clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def clock(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    def at(self, when_s: float, ring: Callable[[], object]) -> None:
        """Call `ring` at that time instead of the one told before; never, if it is infinity."""
        if self._handle is not None:
            if self._handle.when() == when_s:
                return
            self._handle.cancel()
        self._handle = None if isinf(when_s) else self._loop.call_at(when_s, self._go, ring)

    def stop(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _go(self, ring: Callable[[], object]) -> None:
        self._handle = None
        ring()
