"""Running a service until the operating system asks it to stop, and under which name.

Of running it knows only signals: what is to be closed, and in which order, is the service's.
"""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable

import structlog

from flyball_core.errors import Fatal, Rejected

log = structlog.get_logger()

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BY_SIGNAL = 128
"""A process that a signal ended exits with this and the signal's number."""


def own_name(configured: str) -> str:
    """The name a service goes by: the configured one, or the host's."""
    return configured or socket.gethostname()


async def run_until_signal(main: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `main(stop)`; SIGTERM or SIGINT sets `stop`, a second one ends the process at once.

    Returns when `main` does and raises what it raises. What is in memory by now stays there.
    """
    _spare_what_is_loaded()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("stopped_at_once", signal=number.name)
            os._exit(_BY_SIGNAL + number)
        log.info("stopping", signal=number.name)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked, number)
    try:
        await main(stop)
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _spare_what_is_loaded() -> None:
    """Take the loaded modules out of the garbage collector's sight: they live as long as the process.

    A full collection went through all of them, and a controller stood still for 150 ms (tried).
    """
    gc.collect()
    gc.freeze()


def refusal_in(group: BaseExceptionGroup[BaseException]) -> Rejected | Fatal | None:
    """The refusal that a task of a service ended with: what its user is to see, without the groups around it."""
    for error in group.exceptions:
        found = refusal_in(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, (Rejected, Fatal)):
            return found
    return None
