"""What every door of the controller stands in: whether it is open, and who comes in.

Doors listen from the start, so that a wrong address shows at once and whoever calls early is told what
the controller waits for. They do nothing before the log is open, and nothing once it stops.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from flyball_controller.owner import Owner
from flyball_controller.pusher import Pusher
from flyball_controller.serving.doorkeeper import RefusalLog
from flyball_controller.serving.pushing import Pushing
from flyball_controller.serving.refusals import Refusal, refusing
from flyball_core.errors import Retryable
from flyball_log.interface import Log
from flyball_service.health import Health
from flyball_service.tls import Identity, Tls

UNKNOWN_POOL = "unknown_pool"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What doors and loops work on, once the log is open."""

    log: Log
    owner: Owner
    pusher: Pusher
    pushing: Pushing
    declared: frozenset[str] = frozenset()
    """Pools that the configuration names."""

    def pools(self) -> set[str]:
        """Every pool that is known here: those owned, those with a heartbeat in the log, those declared."""
        owned = [name for one in self.owner.owned.values() for name in one.state.pools]
        return {*owned, *self.pusher.beats, *self.declared}

    def must_know(self, pool: str) -> None:
        """Raise unless the pool exists: `Refusal` with those that do, `Retryable` while not all may be known yet."""
        pools = self.pools()
        if pool in pools:
            return
        if not self.pushing.caught_up:
            raise Retryable("the directives in the log are still being read: not all pools are known yet")
        known = ", ".join(sorted(pools)[:20]) or "none yet"
        said = (
            f"there is no pool {pool[:200]!r}; known: {known}. A pool begins with its first agent or engine, "
            "or by its name under `controller.policies` in the configuration"
        )
        raise Refusal(grpc.StatusCode.NOT_FOUND, UNKNOWN_POOL, said)


class Doorway:
    """Shared by all doors of one controller."""

    def __init__(self, name: str, health: Health, tls: Tls | None, refusals: RefusalLog) -> None:
        self.name = name
        self.health = health
        self._tls = tls
        self._refusals = refusals
        self._plane: Plane | None = None
        self._stopping = asyncio.Event()

    @property
    def farewell(self) -> str:
        """What callers hear of a controller that stops."""
        return f"controller {self.name} is stopping"

    def open(self, plane: Plane) -> None:
        """The log is there: let callers in."""
        self._plane = plane

    def close(self) -> None:
        """Let nobody in any more."""
        self._stopping.set()

    def plane(self) -> Plane:
        """What there is to work on; `Retryable` before the log is open, and once the controller stops."""
        if self._stopping.is_set():
            raise Retryable(self.farewell)
        if self._plane is None:
            why = "; ".join(f"{what}: {why}" for what, why in self.health.waiting.items())
            raise Retryable(f"controller {self.name} waits for {why or 'its log'}")
        return self._plane

    async def unless_stopping(self, call: Awaitable[T]) -> T:
        """What `call` gives; `Retryable` as soon as the controller stops, however long that would take."""
        doing, stopping = asyncio.ensure_future(call), asyncio.ensure_future(self._stopping.wait())
        awaited: list[asyncio.Future[Any]] = [doing, stopping]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                return doing.result()
            raise Retryable(self.farewell)
        finally:
            for one in awaited:
                one.cancel()
            await asyncio.gather(*awaited, return_exceptions=True)

    def caller(self, context: grpc.aio.ServicerContext[Any, Any]) -> Identity | None:
        """Who calls, by certificate; None on plaintext. That its role may is the doorkeeper's to see to."""
        return self._tls.peer(context) if self._tls is not None else None

    def refusing(
        self, context: grpc.aio.ServicerContext[Any, Any], note: Callable[[Refusal], None] = lambda _: None
    ) -> AbstractAsyncContextManager[None]:
        """As `refusals.refusing`; callers that are refused for who they are go on record."""

        def noted(refusal: Refusal) -> None:
            self._refusals.refused(context, refusal)
            note(refusal)

        return refusing(context, noted)
