"""What waits to be sent to one receiver: of each kind the newest only, so it never grows.

A receiver answers each directive or table; the next one is held back until it has. So a slow receiver
is sent the newest setting when it is ready for it, and none in between. Heartbeats and notices need no
answer. Nothing waits for a receiver here but its own stream.
"""

import asyncio
from collections.abc import Callable

from flyball_core.fencing import Version
from flyball_core.outputs import Directive, RebaseNotice, RoutingTable
from flyball_proto.codec import Pushed

SETTING = "setting"
HEARTBEAT = "heartbeat"
REBASE = "rebase"


def kind_of(message: Pushed) -> str:
    """The kind of a message, for counting."""
    if isinstance(message, (Directive, RoutingTable)):
        return SETTING
    return REBASE if isinstance(message, RebaseNotice) else HEARTBEAT


class Unanswered(Exception):
    """The receiver has not answered a directive or table in time."""


class Outbox:
    """One receiver's. `superseded` hears the kind of each message that a newer one replaced unsent."""

    def __init__(self, clock: Callable[[], float], superseded: Callable[[str], None]) -> None:
        self._clock = clock
        self._superseded = superseded
        self._waiting: dict[str, Pushed] = {}
        self._unanswered: Version | None = None
        self._since_s = 0.0
        self._news = asyncio.Event()

    def put(self, message: Pushed) -> None:
        """Leave a message to be sent; one of its kind that waits is dropped, and counted."""
        kind = kind_of(message)
        slot = f"{REBASE}/{message.target}" if isinstance(message, RebaseNotice) else kind
        if self._waiting.pop(slot, None) is not None:
            self._superseded(kind)
        self._waiting[slot] = message
        self._news.set()

    def take(self) -> Pushed | None:
        """What may be sent now, the longest waiting first; None if nothing may."""
        for slot, message in self._waiting.items():
            if isinstance(message, (Directive, RoutingTable)):
                if self._unanswered is not None:
                    continue
                self._unanswered, self._since_s = message.version, self._clock()
            del self._waiting[slot]
            return message
        self._news.clear()
        return None

    def answered(self, version: Version) -> None:
        """The receiver answered this version."""
        if version == self._unanswered:
            self._unanswered = None
            self._news.set()

    async def next(self, patience_s: float) -> Pushed:
        """What is to be sent next; waits for it. Raises `Unanswered` after `patience_s` seconds without an answer."""
        while True:
            left_s = self._since_s + patience_s - self._clock() if self._unanswered is not None else None
            if left_s is not None and left_s <= 0:
                raise Unanswered
            message = self.take()
            if message is not None:
                return message
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                continue
