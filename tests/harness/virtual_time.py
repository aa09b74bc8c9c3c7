"""An event loop whose time jumps from one timer to the next, so that a test of hours takes milliseconds.

For code that touches no socket and no thread: what would wait for either never comes.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class JumpingSelector(selectors.DefaultSelector):
    """A selector that never waits: it moves the loop's clock on instead."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Whatever is ready; if nothing, time passes."""
        ready = super().select(0)
        if not ready and timeout:
            self.now_s += timeout
        return ready


def in_virtual_time(make: Callable[[Callable[[], float]], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine, made with the loop's clock, on a loop whose time jumps from one timer to the next."""
    selector = JumpingSelector()

    class Loop(asyncio.SelectorEventLoop):
        def time(self) -> float:
            return selector.now_s

    with asyncio.Runner(loop_factory=lambda: Loop(selector)) as runner:
        runner.run(make(lambda: selector.now_s))
