"""A thread for a source that may block as long as it likes, such as a driver.

The source is read on a beat, never twice at once. What a reading raises is counted and said, and
the beat goes on. The thread cannot be stopped while a reading hangs; the process can be, for it
is a daemon.
"""

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from flyball_agents.beat import Beat

log = structlog.get_logger()


class BlockingSource(Protocol):
    """What is read in a thread of its own."""

    @property
    def name(self) -> str:
        """What the thread is called."""
        ...

    def read(self, now_s: float, /) -> None:
        """Read once, for as long as it takes."""
        ...

    def close(self) -> None:
        """Give everything back; called by the thread when it ends."""
        ...


class ReadingThread:
    """Reads one source until it is stopped."""

    def __init__(self, source: BlockingSource, *, clock: Callable[[], float], period_s: float) -> None:
        self.raised = 0
        """Readings that ended in an error nobody expected."""
        self._source = source
        self._clock = clock
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=source.name, daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, within_s: float) -> bool:
        """Stop after the reading under way; whether it ended, and the source is closed, within so many seconds."""
        self._stop.set()
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        beat = Beat(self._clock(), self._period_s)
        while not self._stop.is_set():
            self._guarded(lambda: self._source.read(self._clock()))
            self._stop.wait(beat.next_in_s(self._clock()))
        self._guarded(self._source.close)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:
            self.raised += 1
            if self.raised == 1:
                log.exception("source_raised", source=self._source.name)
