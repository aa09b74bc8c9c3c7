"""What stands before a fleet's engines: pools, their queues, and what has arrived and not ended.

It takes requests from their source, hands them to the gateway of the pool that they name, and tells of each end exactly
once: the source first, so that a session may go on, then the record. It refuses to touch an engine; the fleet does.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import partial

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.sequences import Sequence
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Outcome, Record, Status
from flyball_twin.fleet.timers import NEVER, Timers, Turn
from flyball_twin.traffic.seam import Traffic
from flyball_twin.workload import Request

RETRIES = 3
"""HAProxy's `retries`, at its default: so many times a request is sent again after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Engines that serve one model, and the gateway's backend before them, which knows exactly these."""

    id: PoolId
    engines: tuple[Engine, ...]
    gateway: Gateway


class Front:
    """All pools' gateways as one.

    Raises `Rejected` if a gateway does not know exactly its pool's engines, or two pools have the same id.
    """

    def __init__(self, pools: Items[Pool], traffic: Traffic, record: Record, timers: Timers) -> None:
        self.pools = {pool.id: pool for pool in pools}
        self.arrived = 0
        self._only = pools[0] if len(pools) == 1 else None
        self._traffic, self._record, self._timers = traffic, record, timers
        self._open: dict[int, Request] = {}
        self._retries: dict[int, int] = {}
        """Of those that were sent again and are open still."""
        self._tickets: dict[int, int] = {}
        """Of those in a queue that may time out."""
        if not pools or len(self.pools) != len(pools):
            raise Rejected("a fleet has at least one pool, and no two of the same id")
        for pool in pools:
            if set(pool.gateway.engines) != {engine.id for engine in pool.engines}:
                raise Rejected(f"the gateway's engines are not those of pool {pool.id!r}")

    @property
    def open(self) -> int:
        """Requests that have arrived and not ended."""
        return len(self._open)

    def only(self) -> Pool:
        """The one pool. Raises `Rejected` if there are several."""
        if self._only is None:
            raise Rejected(f"this fleet has several gateways, of the pools {', '.join(self.pools)}")
        return self._only

    def arrive(self, now_s: float) -> dict[PoolId, Pool]:
        """Take all requests that arrive now; the pools whose gateways have got some.

        Raises `Rejected` for one of an unknown pool or lane, or with the id of one that is open.
        """
        reached: dict[PoolId, Pool] = {}
        traffic = self._traffic
        while traffic.next_s() == now_s:
            request = traffic.take()
            pool = self._pool_of(request)
            if request.id in self._open:
                raise Rejected(f"two requests have the same id, {request.id}")
            self._enqueue(request, pool, now_s)
            self._open[request.id] = request
            self.arrived += 1
            reached[pool.id] = pool
        return reached

    def next(self, pool: Pool) -> tuple[Request, EngineId] | None:
        """The next request of that pool that goes to an engine now, and which; None if none does."""
        routed = pool.gateway.forward()
        if routed is not None and self._tickets:
            self._tickets.pop(routed[0].id, None)
        return routed

    def retry(self, request: Request, pool: Pool, now_s: float) -> bool:
        """Queue a request anew whose engine went down before its first token; False if that happened too often."""
        retries = self._retries.get(request.id, 0)
        if retries == RETRIES:
            return False
        self._retries[request.id] = retries + 1
        self._enqueue(request, pool, now_s)
        return True

    def end(
        self,
        request: Request,
        pool: Pool,
        status: Status,
        now_s: float,
        *,
        engine: EngineId | None = None,
        sequence: Sequence | None = None,
        reason: str = "",
    ) -> None:
        """Tell what became of it. `engine` and `sequence` are those of its last attempt, if it came so far."""
        del self._open[request.id]
        sent = self._retries.pop(request.id, 0) if self._retries else 0
        self._traffic.ended(request, now_s)
        first_token_s = None if sequence is None else sequence.first_token_s
        self._record(
            Outcome(
                request=request,
                pool=pool.id,
                engine=engine,
                status=status,
                ended_s=now_s,
                first_token_s=NEVER if first_token_s is None else first_token_s,
                preemptions=0 if sequence is None else sequence.preemptions,
                attempts=sent if engine is None else sent + 1,
                reason=reason,
            )
        )

    def close(self, now_s: float) -> None:
        """Tell of all that has not ended."""
        for request in tuple(self._open.values()):
            self.end(request, self._pool_of(request), Status.OPEN, now_s, reason="the run ended")

    def _pool_of(self, request: Request) -> Pool:
        pool = self.pools.get(PoolId(request.pool)) if request.pool else self._only
        if pool is None:
            raise Rejected(f"request {request.id} is for pool {request.pool!r}; there is {', '.join(self.pools)}")
        return pool

    def _enqueue(self, request: Request, pool: Pool, now_s: float) -> None:
        ticket = pool.gateway.enqueue(request, now_s)
        timeout_s = pool.gateway.timeout_s(request.lane)
        if timeout_s != NEVER:
            self._tickets[request.id] = ticket
            out_s = now_s + timeout_s
            self._timers.at(out_s, Turn.QUEUE, partial(self._give_up, request, pool, ticket, out_s))

    def _give_up(self, request: Request, pool: Pool, ticket: int, now_s: float) -> None:
        """Answer 503 if it queues still."""
        if self._tickets.get(request.id) == ticket:
            del self._tickets[request.id]
            pool.gateway.withdraw(ticket)
            reason = f"no room within {pool.gateway.timeout_s(request.lane):g} s"
            self.end(request, pool, Status.ABANDONED, now_s, reason=reason)
