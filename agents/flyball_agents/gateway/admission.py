"""Who may go on to an engine now, and who waits: the balancer's rules, for tasks that await their turn.

Every change that could make room is followed at once by forwarding whatever fits. What waits is
bounded in number and in time. It touches no socket; all calls come from one event loop's thread.

How long a request waits at most: one of the most urgent lanes its longest wait; one of another
lane its longest wait, after which it goes before urgent work that arrives from then on, and then
as long as urgent work would. A longest wait of 0 bounds nothing, and `MAX_WAIT_S` holds.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from flyball_agents.gateway.balancing import MAX_WAIT_S, Balancer
from flyball_agents.gateway_adapter import GatewayReading, LanePlace
from flyball_core.errors import Retryable
from flyball_core.ids import EngineId


class QueueFull(Retryable):
    """As many requests wait as may wait."""


class WaitedTooLong(Retryable):
    """No engine had room within the request's longest wait."""


@dataclass(slots=True)
class LaneCounts:
    """One lane's numbers since the gateway started."""

    requests: int = 0
    """Requests that came, whatever became of them; a retried one counts once."""
    queued: int = 0
    in_flight: int = 0
    waits: int = 0
    """Waits that ended, by a place, by giving up or by the client's leaving; also those of 0 s."""
    waited_s: float = 0.0


@dataclass(slots=True, eq=False)
class Waiter:
    """A request in the queue, and the place that it hopes for."""

    lane: str
    place: asyncio.Future[EngineId]
    forwarded: bool = False
    """Whether it has left the queue; its task may have been cancelled in the same moment."""


@dataclass(slots=True)
class Admission:
    """Hands out places at the engines of one balancer. It is `GatewayControls` for the routing table."""

    balancer: Balancer[Waiter]
    clock: Callable[[], float]
    most_queued: int = 1000
    lanes: dict[str, LaneCounts] = field(init=False)

    def __post_init__(self) -> None:
        self.lanes = {lane: LaneCounts() for lane in self.balancer.lanes}

    async def enter(self, lane: str) -> EngineId:
        """A place at an engine, to be given back with `leave`.

        Raises `QueueFull` or `WaitedTooLong`; a caller that is cancelled leaves the queue at once.
        """
        if self.balancer.queued >= self.most_queued:
            raise QueueFull(f"{self.balancer.queued} requests wait already")
        counts, start_s = self.lanes[lane], self.clock()
        waiter = Waiter(lane, asyncio.get_running_loop().create_future())
        ticket = self.balancer.enqueue(waiter, start_s)
        counts.queued += 1
        self.pump()
        patience_s = self.patience_s(lane)
        try:
            async with asyncio.timeout(patience_s):
                engine = await waiter.place
        except BaseException as error:
            self._give_up(waiter, ticket)
            if isinstance(error, TimeoutError):
                raise WaitedTooLong(f"no engine had room within {patience_s:g} s") from None
            raise
        finally:
            counts.waits += 1
            counts.waited_s += self.clock() - start_s
        return engine

    def leave(self, lane: str, engine: EngineId) -> None:
        """The request is answered, failed or gone."""
        self.lanes[lane].in_flight -= 1
        self.balancer.release(engine)
        self.pump()

    def pump(self) -> None:
        """Forward what can be forwarded; to be called after any change that may have made room."""
        while (routed := self.balancer.forward()) is not None:
            waiter, engine = routed
            waiter.forwarded = True
            self.lanes[waiter.lane].queued -= 1
            self.lanes[waiter.lane].in_flight += 1
            if waiter.place.done():  # cancelled, and its task has not run since
                self.leave(waiter.lane, engine)
            else:
                waiter.place.set_result(engine)

    def patience_s(self, lane: str) -> float:
        """The longest wait of a request of that lane that queues now."""
        offset_s = self.balancer.offset_s(lane)
        rules = [self.balancer.rule(name) for name in self.balancer.lanes]
        least = min(rule.priority for rule in rules)
        urgent = [rule.max_wait_s for rule in rules if rule.priority == least]
        own_s = min(urgent) if offset_s else self.balancer.rule(lane).max_wait_s
        return offset_s + (own_s or MAX_WAIT_S)

    def set_up(self, engine: EngineId, *, up: bool) -> None:
        """What the health check says of an engine."""
        self.balancer.set_up(engine, up=up)
        self.pump()

    def read(self) -> GatewayReading:
        """The effective table."""
        balancer = self.balancer
        rules = [balancer.rule(lane) for lane in balancer.lanes]
        return GatewayReading(
            weights={engine: balancer.weight(engine) for engine in balancer.engines},
            caps={engine: balancer.cap(engine) for engine in balancer.engines},
            lanes={rule.lane: LanePlace(rule.priority, rule.max_wait_s) for rule in rules},
        )

    def set_weight(self, engine: str, weight: int) -> None:
        """Set a weight. Raises `Rejected` as `Balancer.set_weight`."""
        self.balancer.set_weight(EngineId(engine), weight)
        self.pump()

    def set_cap(self, engine: str, cap: int) -> None:
        """Set an in-flight cap. Raises `Rejected` as `Balancer.set_cap`."""
        self.balancer.set_cap(EngineId(engine), cap)
        self.pump()

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Set a lane's rule. Raises `Rejected` as `Balancer.set_lane`."""
        self.balancer.set_lane(lane, priority, max_wait_s)

    def _give_up(self, waiter: Waiter, ticket: int) -> None:
        if not waiter.forwarded:
            self.lanes[waiter.lane].queued -= 1
            self.balancer.withdraw(ticket)
        elif not waiter.place.cancelled():  # it got its place in this very moment
            self.leave(waiter.lane, waiter.place.result())
