"""Weights, in-flight caps and one queue, with HAProxy's rules: the pure core of the small gateway and of the twin's.

What it does is what HAProxy does with `balance leastconn`, `maxconn` per server and one
backend queue, and nothing else:

* A request goes to the engine with the least `(in_flight + 1) * 256 / weight`, an idle
  engine counting as 0; full engines and those of weight 0 are passed over. Ties go to
  the engine chosen least recently.
* If none has room it queues. The queue is ordered by time of entry plus the lane's
  *offset* (`set-priority-offset`), all in one priority class, and the order is fixed at
  entry: a new rule holds for requests that queue after it. Lanes of the most urgent
  priority have offset 0, every other lane its longest wait. So urgent work goes first,
  and a request that has waited its lane's longest wait goes before urgent work that
  arrives from then on. With strict classes HAProxy could not promote anything.
* A retried request queues anew, as a new connection would.

One thing differs: HAProxy answers 503 if no server has weight, where this lets the request
wait. It knows no clock and no network, and forwards nothing by itself: who calls `forward`
carries what it says.
"""

import heapq
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule

MAX_WEIGHT = 256
MAX_CAP = 65_535
MAX_PRIORITY = 2047
MAX_WAIT_S = 524.0
"""HAProxy's bounds of a server's weight, of a class (either side of 0), and of an offset (2^19 ms)."""

START_WEIGHT = 100
"""What every engine starts with; room above and below."""


class Waiting(Protocol):
    """What can stand in the queue."""

    @property
    def lane(self) -> str:
        """The lane that it belongs to."""
        ...


W = TypeVar("W", bound=Waiting)


class Balancer(Generic[W]):
    """Places the requests of one pool; starts with equal weights, no caps and the given lanes.

    Raises `Rejected` if there is no engine or no lane.
    """

    def __init__(self, engines: Iterable[EngineId], lanes: Iterable[LaneRule]) -> None:
        self._weights = dict.fromkeys(engines, START_WEIGHT)
        self._caps = dict.fromkeys(self._weights, 0)
        self._in_flight = dict.fromkeys(self._weights, 0)
        self._up = dict.fromkeys(self._weights, True)
        self._order = dict.fromkeys(self._weights, 0)
        self._lanes: dict[str, LaneRule] = {}
        self._queue: list[tuple[float, int, W]] = []
        self._withdrawn: set[int] = set()
        self._entered = 0
        self._chosen = 0
        for rule in lanes:
            self._lanes[rule.lane] = rule
            self.set_lane(rule.lane, rule.priority, rule.max_wait_s)
        if not self._weights or not self._lanes:
            raise Rejected("a gateway needs at least one engine and one lane")

    @property
    def engines(self) -> tuple[EngineId, ...]:
        """The engines it knows, in the order given."""
        return tuple(self._weights)

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes it knows, in the order given."""
        return tuple(self._lanes)

    @property
    def queued(self) -> int:
        """Requests that wait for room."""
        return len(self._queue) - len(self._withdrawn)

    @property
    def entered(self) -> int:
        """Requests taken so far, retried ones counted again."""
        return self._entered

    def weight(self, engine: EngineId) -> int:
        """An engine's weight. Raises `Rejected` for an engine it does not know."""
        self._known(engine)
        return self._weights[engine]

    def cap(self, engine: EngineId) -> int:
        """An engine's in-flight cap. Raises `Rejected` for an engine it does not know."""
        self._known(engine)
        return self._caps[engine]

    def rule(self, lane: str) -> LaneRule:
        """A lane's rule. Raises `Rejected` for a lane it does not know."""
        if lane not in self._lanes:
            raise Rejected(f"no lane {lane!r}; there is {', '.join(self._lanes)}")
        return self._lanes[lane]

    def in_flight(self, engine: EngineId) -> int:
        """Requests forwarded to an engine and not answered yet."""
        return self._in_flight[engine]

    def is_up(self, engine: EngineId) -> bool:
        """What the health check said of an engine last."""
        return self._up[engine]

    def set_weight(self, engine: EngineId, weight: int) -> None:
        """An engine's share, 0 to 256; at 0 it gets no new work. Raises `Rejected` otherwise."""
        self._known(engine)
        self._weights[engine] = _whole(f"the weight of {engine}", weight, 0, MAX_WEIGHT)

    def set_cap(self, engine: EngineId, cap: int) -> None:
        """The most requests in flight at an engine; 0 is no cap. More than that already there stay."""
        self._known(engine)
        self._caps[engine] = _whole(f"the cap of {engine}", cap, 0, MAX_CAP)

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """A lane's priority (lower goes first) and longest wait in seconds, for requests that queue from now on."""
        self.rule(lane)
        if isinstance(max_wait_s, bool) or not 0.0 <= max_wait_s <= MAX_WAIT_S:
            raise Rejected(f"the longest wait of lane {lane} takes 0 to {MAX_WAIT_S:g} s, not {max_wait_s!r}")
        priority = _whole(f"the priority of lane {lane}", priority, -MAX_PRIORITY, MAX_PRIORITY)
        self._lanes[lane] = LaneRule(lane=lane, priority=priority, max_wait_s=float(max_wait_s))

    def set_up(self, engine: EngineId, *, up: bool) -> None:
        """What the health check says of an engine; down, it gets nothing."""
        self._known(engine)
        self._up[engine] = up

    def offset_s(self, lane: str) -> float:
        """How long a request of that lane gives way to urgent work; 0 for the most urgent lanes."""
        rule = self.rule(lane)
        urgent = min(other.priority for other in self._lanes.values())
        return 0.0 if rule.priority == urgent else rule.max_wait_s

    def enqueue(self, request: W, now_s: float) -> int:
        """Take a request, new or to be retried; its ticket. Raises `Rejected` if its lane is unknown."""
        due_s = now_s + self.offset_s(request.lane)
        self._entered += 1
        heapq.heappush(self._queue, (due_s, self._entered, request))
        return self._entered

    def withdraw(self, ticket: int) -> None:
        """Take a request that still waits out of the queue again; to be called once, before it is forwarded."""
        self._withdrawn.add(ticket)
        if len(self._withdrawn) * 2 > len(self._queue):  # so that what is gone costs no more room than what waits
            self._queue = [entry for entry in self._queue if entry[1] not in self._withdrawn]
            heapq.heapify(self._queue)
            self._withdrawn.clear()

    def forward(self) -> tuple[W, EngineId] | None:
        """The next request and the engine it goes to; None if nothing waits or nowhere is room."""
        while self._queue and self._queue[0][1] in self._withdrawn:
            self._withdrawn.discard(heapq.heappop(self._queue)[1])
        engine = self._choose() if self._queue else None
        if engine is None:
            return None
        _, _, request = heapq.heappop(self._queue)
        self._in_flight[engine] += 1
        self._chosen += 1
        self._order[engine] = self._chosen
        return request, engine

    def release(self, engine: EngineId) -> None:
        """A request at that engine is answered, or its connection broke."""
        self._in_flight[engine] -= 1

    def _choose(self) -> EngineId | None:
        best: EngineId | None = None
        best_key = (0.0, 0)
        for engine, weight in self._weights.items():
            in_flight, cap = self._in_flight[engine], self._caps[engine]
            if weight == 0 or not self._up[engine] or (cap and in_flight >= cap):
                continue
            key = ((in_flight + 1) * MAX_WEIGHT / weight if in_flight else 0.0, self._order[engine])
            if best is None or key < best_key:
                best, best_key = engine, key
        return best

    def _known(self, engine: EngineId) -> None:
        if engine not in self._weights:
            raise Rejected(f"no engine {engine!r}; there is {', '.join(self._weights)}")


def _whole(what: str, value: int, minimum: int, maximum: int) -> int:
    """`value` if it is a whole number within the bounds. Raises `Rejected` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise Rejected(f"{what} takes {minimum} to {maximum}, not {value!r}")
    return value
