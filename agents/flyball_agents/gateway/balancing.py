"""Weights, in-flight caps and one queue, with HAProxy's rules: the pure core of the small gateway and of the twin's.

What it does is what HAProxy does with `balance`, `maxconn` per server and one backend
queue, and nothing else:

* A request goes to the engine that its way of choosing names (`choosing`; `leastconn` if
  not told otherwise); engines of weight 0 and those that are down are passed over.
* If there is no room for it, it queues. The queue is ordered by time of entry plus the lane's
  *offset* (`set-priority-offset`), all in one priority class, and the order is fixed at
  entry: a new rule holds for requests that queue after it. Lanes of the most urgent
  priority have offset 0, every other lane its longest wait. So urgent work goes first,
  and a request that has waited its lane's longest wait goes before urgent work that
  arrives from then on. With strict classes HAProxy could not promote anything.
* With `random(n)` and `hash` a request may queue while other engines have room, as in HAProxy: the
  draw was full, or its key's engine is. Then an engine that ends a request takes the first in the queue
  (`pendconn_process_next_strm`, `queue.c`), or the first of those that wait for it alone. If it
  goes down, those are placed anew (`option redispatch`); at weight 0 it still takes them.
* A retried request queues anew, as a new connection would.

One thing differs: HAProxy answers 503 if no server has weight, where this lets the request
wait. It knows no clock and no network, and forwards nothing by itself: who calls `forward`
carries what it says.
"""

import heapq
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from flyball_agents.gateway.choosing import START_WEIGHT, WEIGHT_SCALE, Asking, Server, choosing_of
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule

__all__ = ["MAX_CAP", "MAX_PRIORITY", "MAX_WAIT_S", "MAX_WEIGHT", "START_WEIGHT", "Balancer", "Waiting"]

MAX_WEIGHT = WEIGHT_SCALE
MAX_CAP = 65_535
MAX_PRIORITY = 2047
MAX_WAIT_S = 524.0
"""HAProxy's bounds of a server's weight, of a class (either side of 0), and of an offset (2^19 ms)."""


class Waiting(Protocol):
    """What can stand in the queue."""

    @property
    def lane(self) -> str:
        """The lane that it belongs to."""
        ...


W = TypeVar("W", bound=Waiting)


class Balancer(Generic[W]):
    """Places the requests of one pool; starts with equal weights, no caps and the given lanes.

    Raises `Rejected` if there is no engine or no lane, or no such `balance`.
    """

    def __init__(
        self,
        engines: Iterable[EngineId],
        lanes: Iterable[LaneRule],
        balance: str = "leastconn",
        *,
        key: Callable[[W], str] | None = None,
        seed: int = 0,
    ) -> None:
        """`key` tells what `hash` hashes; `seed` is that of `random`'s draws."""
        self._servers = {engine: Server(engine) for engine in engines}
        self._asking = Asking()
        self._choosing = choosing_of(balance, tuple(self._servers.values()), self._asking, seed)
        self._key = key
        self._lanes: dict[str, LaneRule] = {}
        self._offsets_s: dict[str, float] = {}
        self._queue: list[tuple[float, int, W]] = []
        self._held: dict[EngineId | None, list[tuple[float, int, W]]] = {}
        """What was to be placed and has to wait: for one engine, or (None) for any that ends a request."""
        self._freed: dict[EngineId, None] = {}
        """Engines that may take up what is held."""
        self._withdrawn: set[int] = set()
        self._waiting = 0
        self._entered = 0
        for rule in lanes:
            self._lanes[rule.lane] = rule
            self.set_lane(rule.lane, rule.priority, rule.max_wait_s)
        if not self._servers or not self._lanes:
            raise Rejected("a gateway needs at least one engine and one lane")

    @property
    def engines(self) -> tuple[EngineId, ...]:
        """The engines it knows, in the order given."""
        return tuple(self._servers)

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes it knows, in the order given."""
        return tuple(self._lanes)

    @property
    def queued(self) -> int:
        """Requests that wait for room."""
        return self._waiting

    @property
    def entered(self) -> int:
        """Requests taken so far, retried ones counted again."""
        return self._entered

    def weight(self, engine: EngineId) -> int:
        """An engine's weight. Raises `Rejected` for an engine it does not know."""
        return self._known(engine).weight

    def cap(self, engine: EngineId) -> int:
        """An engine's in-flight cap. Raises `Rejected` for an engine it does not know."""
        return self._known(engine).cap

    def rule(self, lane: str) -> LaneRule:
        """A lane's rule. Raises `Rejected` for a lane it does not know."""
        if lane not in self._lanes:
            raise Rejected(f"no lane {lane!r}; there is {', '.join(self._lanes)}")
        return self._lanes[lane]

    def in_flight(self, engine: EngineId) -> int:
        """Requests forwarded to an engine and not answered yet."""
        return self._servers[engine].in_flight

    def is_up(self, engine: EngineId) -> bool:
        """What the health check said of an engine last."""
        return self._servers[engine].up

    def set_weight(self, engine: EngineId, weight: int) -> None:
        """An engine's share, 0 to 256; at 0 it gets no new work. Raises `Rejected` otherwise."""
        self._known(engine).weight = _whole(f"the weight of {engine}", weight, 0, MAX_WEIGHT)
        self._offer()

    def set_cap(self, engine: EngineId, cap: int) -> None:
        """The most requests in flight at an engine; 0 is no cap. More than that already there stay."""
        self._known(engine).cap = _whole(f"the cap of {engine}", cap, 0, MAX_CAP)
        self._offer()

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """A lane's priority (lower goes first) and longest wait in seconds, for requests that queue from now on."""
        self.rule(lane)
        if isinstance(max_wait_s, bool) or not 0.0 <= max_wait_s <= MAX_WAIT_S:
            raise Rejected(f"the longest wait of lane {lane} takes 0 to {MAX_WAIT_S:g} s, not {max_wait_s!r}")
        priority = _whole(f"the priority of lane {lane}", priority, -MAX_PRIORITY, MAX_PRIORITY)
        self._lanes[lane] = LaneRule(lane=lane, priority=priority, max_wait_s=float(max_wait_s))
        urgent = min(rule.priority for rule in self._lanes.values())
        self._offsets_s = {
            rule.lane: 0.0 if rule.priority == urgent else rule.max_wait_s for rule in self._lanes.values()
        }

    def set_up(self, engine: EngineId, *, up: bool) -> None:
        """What the health check says of an engine; down, it gets nothing."""
        self._known(engine).up = up
        if not up:
            for entry in self._held.pop(engine, []):
                heapq.heappush(self._queue, entry)
        self._offer()

    def offset_s(self, lane: str) -> float:
        """How long a request of that lane gives way to urgent work; 0 for the most urgent lanes."""
        self.rule(lane)
        return self._offsets_s[lane]

    def enqueue(self, request: W, now_s: float) -> int:
        """Take a request, new or to be retried; its ticket. Raises `Rejected` if its lane is unknown."""
        offset_s = self._offsets_s.get(request.lane)
        due_s = now_s + (self.offset_s(request.lane) if offset_s is None else offset_s)
        self._asking.now_s = now_s
        self._entered += 1
        self._waiting += 1
        heapq.heappush(self._queue, (due_s, self._entered, request))
        return self._entered

    def withdraw(self, ticket: int) -> None:
        """Take a request that still waits out of the queue again; to be called once, before it is forwarded."""
        self._withdrawn.add(ticket)
        self._waiting -= 1
        if len(self._withdrawn) > self._waiting:  # so that what is gone costs no more room than what waits
            for queue in (self._queue, *self._held.values()):
                queue[:] = [entry for entry in queue if entry[1] not in self._withdrawn]
                heapq.heapify(queue)
            self._withdrawn.clear()

    def forward(self) -> tuple[W, EngineId] | None:
        """The next request and the engine it goes to; None if nothing waits or nowhere is room."""
        if self._freed:
            routed = self._take_up()
            if routed is not None:
                return routed
        queue = self._queue
        while queue:
            _, ticket, request = queue[0]
            if ticket in self._withdrawn:
                self._withdrawn.discard(ticket)
                heapq.heappop(queue)
                continue
            if self._key is not None:
                self._asking.key = self._key(request)
            server = self._choosing.choose()
            if server is not None and not server.full:
                heapq.heappop(queue)
                return self._send(request, server)
            if self._choosing.waits_for_any:
                return None
            held = self._held.setdefault(None if server is None else server.engine, [])
            heapq.heappush(held, heapq.heappop(queue))
        return None

    def release(self, engine: EngineId) -> None:
        """A request at that engine is answered, or its connection broke."""
        self._servers[engine].in_flight -= 1
        if self._held:
            self._freed[engine] = None

    def _take_up(self) -> tuple[W, EngineId] | None:
        """The next request that is held and an engine that has room again for it."""
        while self._freed:
            engine = next(iter(self._freed))
            server = self._servers[engine]
            if server.up and not server.full:
                request = self._pop_held((engine, None) if server.weight else (engine,))
                if request is not None:
                    return self._send(request, server)
            del self._freed[engine]
        return None

    def _pop_held(self, names: tuple[EngineId | None, ...]) -> W | None:
        """Take out the first of those held under these names."""
        first: EngineId | None = None
        found = False
        for name in names:
            queue = self._held.get(name)
            while queue and queue[0][1] in self._withdrawn:
                self._withdrawn.discard(heapq.heappop(queue)[1])
            if queue and (not found or queue[0] < self._held[first][0]):
                first, found = name, True
            elif queue is not None and not queue:
                del self._held[name]
        if not found:
            return None
        _, _, request = heapq.heappop(self._held[first])
        if not self._held[first]:
            del self._held[first]
        return request

    def _send(self, request: W, server: Server) -> tuple[W, EngineId]:
        self._waiting -= 1
        server.in_flight += 1
        self._choosing.took(server)
        return request, server.engine

    def _offer(self) -> None:
        """Let every engine look at what is held."""
        if self._held:
            self._freed.update(dict.fromkeys(self._servers))

    def _known(self, engine: EngineId) -> Server:
        server = self._servers.get(engine)
        if server is None:
            raise Rejected(f"no engine {engine!r}; there is {', '.join(self._servers)}")
        return server


def _whole(what: str, value: int, minimum: int, maximum: int) -> int:
    """`value` if it is a whole number within the bounds. Raises `Rejected` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise Rejected(f"{what} takes {minimum} to {maximum}, not {value!r}")
    return value
