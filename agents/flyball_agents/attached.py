"""A receiver kept attached from a thread of its own, for engines that have no event loop to lend.

Starting it costs one thread. It must be started after the process has forked what it forks: gRPC
does not outlive a fork. What the engine's steps may not meet is run where `Surroundings.aside` says.
"""

import asyncio
import threading

from flyball_agents.attaching import Attacher


class AttachedReceiver:
    """Drives an attacher in a daemon thread between `start` and `stop`."""

    def __init__(self, attacher: Attacher) -> None:
        self.attacher = attacher
        self.failure: BaseException | None = None
        """What ended the thread, if it did not end by itself: a programming error, for the engine goes on."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="flyball-receiver", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self, within_s: float = 5.0) -> bool:
        """End the stream and the thread; False if it has not ended within that time. Never raises."""
        if not self._thread.is_alive():
            return True
        if self._started.wait(within_s) and self._loop is not None and self._stop is not None:
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:  # it has just ended by itself
                return True
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - the thread's boundary: the engine must not hear of it
            self.failure = error
        finally:
            self._started.set()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        await self.attacher.run(self._stop)
