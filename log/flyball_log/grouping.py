"""Group commit: appends that arrive while one is being written go together in the next.

Per lane (a topic's partition) one commit runs at a time, so order is the order of
arrival and a slow disk or broker costs one round trip for all who wait. Knows
nothing of files or brokers, and never retries: the commit decides.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

from flyball_core.errors import LogUnavailable
from flyball_log.interface import Entry

GROUP_BYTES = 1024 * 1024
"""A group takes no further append once it holds so many bytes of keys and values."""

Lane = TypeVar("Lane", bound=Hashable)
_Waiting = tuple[Sequence[Entry], asyncio.Future[list[int]]]


def _bytes(entries: Sequence[Entry]) -> int:
    return sum(len(key) + len(value or b"") for key, value in entries)


class GroupCommit(Generic[Lane]):
    """Bundles concurrent appends of each lane into one call of `commit`.

    `commit(lane, entries)` makes the entries durable in order and returns one offset
    for each; what it raises is raised to everyone in the group.
    """

    def __init__(self, commit: Callable[[Lane, list[Entry]], Awaitable[list[int]]]) -> None:
        self._commit = commit
        self._waiting: dict[Lane, deque[_Waiting]] = {}
        self._running: dict[Lane, asyncio.Task[None]] = {}
        self._closed = False

    async def append(self, lane: Lane, entries: Sequence[Entry]) -> list[int]:
        """Append in order of the calls; return the offsets once durable.

        Cancelling the call does not take the entries back: they may be written.
        """
        if self._closed:
            raise LogUnavailable("the log is closed")
        done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append((entries, done))
        if lane not in self._running:
            self._running[lane] = asyncio.create_task(self._run(lane))
        try:
            return await done
        finally:
            del done  # an error in it holds this frame by its traceback: megabytes in an outage, until next collected

    async def close(self, patience_s: float | None = None) -> None:
        """Take no more appends and wait until those under way have their answers.

        After `patience_s` seconds the rest is broken off; who waits for it gets `LogUnavailable`.
        """
        self._closed = True
        if self._running:
            _, pending = await asyncio.wait(list(self._running.values()), timeout=patience_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending)

    async def _run(self, lane: Lane) -> None:
        waiting = self._waiting[lane]
        try:
            while waiting:
                await self._commit_group(lane, self._take(waiting))
        finally:
            del self._running[lane]
            # Only a cancelled commit leaves any behind; nobody will write them now.
            self._break_off(waiting)
            waiting.clear()

    @staticmethod
    def _take(waiting: deque[_Waiting]) -> list[_Waiting]:
        group = [waiting.popleft()]
        size = _bytes(group[0][0])
        while waiting and size + (more := _bytes(waiting[0][0])) <= GROUP_BYTES:
            size += more
            group.append(waiting.popleft())
        return group

    @staticmethod
    def _break_off(group: Iterable[_Waiting]) -> None:
        for _, done in group:
            if not done.done():
                done.set_exception(LogUnavailable("the log was closed before this was known to be written"))

    @staticmethod
    def _fail(group: Iterable[_Waiting], error: Exception) -> None:
        for _, done in group:
            if not done.done():
                done.set_exception(error)

    async def _commit_group(self, lane: Lane, group: list[_Waiting]) -> None:
        try:
            offsets = await self._commit(lane, [entry for entries, _ in group for entry in entries])
        except asyncio.CancelledError:
            self._break_off(group)
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: whoever waits for the append gets it
            self._fail(group, error)
            group.clear()  # the error's traceback holds this frame
            return
        at = 0
        for entries, done in group:
            if not done.done():
                done.set_result(offsets[at : at + len(entries)])
            at += len(entries)
