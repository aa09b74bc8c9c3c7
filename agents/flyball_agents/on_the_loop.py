"""Calls from another thread that an event loop runs in between, and that are waited for within bounds.

For receivers: they wait for a disk, which a loop that serves must not; what they set belongs to that
loop. A call that was given up is never made late.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_WITHIN_S = 5.0


class OnTheLoop:
    """Runs calls on `loop`, from any other thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, within_s: float = _WITHIN_S) -> None:
        self._loop = loop
        self._within_s = within_s

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returned or raised; TimeoutError if the loop had no time for it, and then it is not made."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(act())
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        try:
            return answer.result(self._within_s)
        finally:
            answer.cancel()
