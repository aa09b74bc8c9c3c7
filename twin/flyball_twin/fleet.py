"""A fleet in virtual time: pools of engines behind one front, arrivals and faults on one clock.

How it is used::

    pool = Pool(id=PoolId("chat"), engines=engines, gateway=Gateway([e.id for e in engines], lanes, "random(2)"))
    fleet = Fleet([pool], traffic, faults, record=tally.record)
    fleet.run_until(3600.0)  # as often as wanted, for ever later times
    fleet.close()  # what is still open is recorded as such

Requests are pulled from `traffic` one at a time, each goes to the pool that it names, and what became of it is handed
to `record` in the moment it is known; the fleet keeps only what is under way, so its memory is flat in the length of
its trace. `traffic.ended` is told of every end first, so a session may ask again, at that moment or later.

Events happen in the order of their times; at equal times steps end first, then faults, checks and relaunches, then
the queue's timeouts, then arrivals. Nothing is random but what gateways draw by their seeds. However a run is cut into
calls of `run_until`, it is the same run, so a controller may look and act at any time between. The fleet refuses to
govern itself: it does what its knobs say.

What a front of HAProxy does about engines that fail, with `option redispatch 1` and `retry-on conn-failure
empty-response` (HAProxy's configuration manual):

* A request that fits an engine is not known to the front: it goes where its turn takes it. An engine that cannot hold
  it answers 400, which is not retried, even if another engine could: the outcome is `refused`.
* An engine that dies or is relaunched breaks its connections. A request that has had no token yet is retried elsewhere,
  up to `RETRIES` times; one whose answer has begun cannot be (`L7 retry` needs an empty response) and is `lost`.
  Connecting to a dead engine fails at once and is redispatched, which is as if it were down from the first moment.
* A stalled engine holds its connections and takes new ones, until `fall` checks have failed; those that it has then are
  kept (no `on-marked-down shutdown-sessions`), and go on when it does.

To drain an engine is to give it weight 0 and to wait until `gateway.in_flight` is 0. An engine that is to join later is
one that is dead from 0 s on: when that fault ends it starts cold.
"""

import heapq
from collections.abc import Callable, Iterable, Sequence as Items
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.knobs import Setting
from flyball_twin.engine import NEVER, Engine
from flyball_twin.faults import Ailment, Checks, FaultSchedule
from flyball_twin.gateway import Gateway
from flyball_twin.outcomes import Kept, Outcome, Record, Status
from flyball_twin.scenario.model import Fault
from flyball_twin.sequences import Sequence
from flyball_twin.traffic.seam import Listed, Traffic
from flyball_twin.workload import Request

RETRIES = 3
"""HAProxy's `retries`, at its default: so many times a request is sent again after the first."""

_FAULTS, _RELAUNCHES, _TIMEOUTS = range(3)
"""What happens first at equal times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Engines that serve one model, and the gateway's backend before them, which knows exactly these."""

    id: PoolId
    engines: tuple[Engine, ...]
    gateway: Gateway


@dataclass(slots=True, eq=False)
class _Member:
    """One engine in its pool."""

    engine: Engine
    pool: Pool
    index: int
    due_s: float = NEVER
    """The end of its step as it stands in the heap."""
    longest_tokens: int = 0
    ailment: Ailment = field(default_factory=Ailment)
    stalls: int = 0
    """Changes between stalled and not, so that a check knows whether it is about the latest."""


class Fleet:
    """Pools behind one front, fed by `traffic`, disturbed by `faults`; `record` is told what becomes of each request.

    Without a `record` the fleet keeps all outcomes in `outcomes`, for small runs. Raises `Rejected` if a gateway does
    not know exactly its pool's engines, two pools or engines have the same id, or a fault does not fit them.
    """

    def __init__(
        self,
        pools: Items[Pool],
        traffic: Traffic,
        faults: Iterable[Fault] = (),
        *,
        record: Record | None = None,
        checks: Checks | None = None,
    ) -> None:
        self.now_s = 0.0
        self.arrived = 0
        """Requests that have arrived so far."""
        self.pools = {pool.id: pool for pool in pools}
        self.engines = {engine.id: engine for pool in pools for engine in pool.engines}
        """Those of all pools."""
        kept = Kept()
        self.outcomes = kept.outcomes
        """By request id, in the order of their ends, if there is no `record`; otherwise empty."""
        self.schedule = FaultSchedule(faults, self.engines)
        self._record = record or kept
        self._traffic = traffic
        self._checks = checks or Checks()
        placed = chain.from_iterable(((engine, pool) for engine in pool.engines) for pool in pools)
        self._members = [_Member(engine, pool, index) for index, (engine, pool) in enumerate(placed)]
        self._by_id = {member.engine.id: member for member in self._members}
        self._refuse_misfits(pools)
        self._only = pools[0] if len(pools) == 1 else None
        self._open: dict[int, Request] = {}
        self._retries: dict[int, int] = {}
        """Of those that were sent again and are open still."""
        self._tickets: dict[int, int] = {}
        """Of those in a queue that may time out."""
        self._ends: list[tuple[float, int]] = []
        """A heap of the ends of steps; one counts only if it is its member's `due_s`."""
        self._timers: list[tuple[float, int, int, Callable[[], None]]] = []
        self._timed = 0
        self._closed = False
        for member in self._members:
            member.longest_tokens = member.engine.longest_request_tokens()
        for at_s, engine in self.schedule.edges():
            self._at(at_s, _FAULTS, partial(self._strike, self._by_id[engine]))

    def _refuse_misfits(self, pools: Items[Pool]) -> None:
        if not pools or len(self.pools) != len(pools) or len(self.engines) != len(self._members):
            raise Rejected("a fleet has at least one pool, and no two pools or engines of the same id")
        for pool in pools:
            if set(pool.gateway.engines) != {engine.id for engine in pool.engines}:
                raise Rejected(f"the gateway's engines are not those of pool {pool.id!r}")

    @classmethod
    def single(
        cls,
        engines: Items[Engine],
        gateway: Gateway,
        requests: Items[Request],
        faults: Iterable[Fault] = (),
        *,
        record: Record | None = None,
    ) -> "Fleet":
        """A fleet of one pool without a name, of requests that are all known."""
        return cls(
            [Pool(id=PoolId(""), engines=tuple(engines), gateway=gateway)], Listed(requests), faults, record=record
        )

    @property
    def gateway(self) -> Gateway:
        """The gateway of the only pool. Raises `Rejected` if there are several."""
        if self._only is None:
            raise Rejected(f"this fleet has several gateways, of the pools {', '.join(self.pools)}")
        return self._only.gateway

    @property
    def open(self) -> int:
        """Requests that have arrived and not ended."""
        return len(self._open)

    def run_until(self, until_s: float) -> None:
        """Advance to `until_s`; everything due by then has happened. Raises `Rejected` for the past."""
        if not until_s >= self.now_s or self._closed:
            raise Rejected(f"the fleet is at {self.now_s:g} s already or closed, {until_s!r} s is past")
        for member in self._members:
            self._watch(member)  # a knob may have cut its step short
        while (event_s := self._settle(until_s)) <= until_s:
            self.now_s = event_s
            self._happen(event_s)
        self.now_s = until_s
        for member in self._members:
            # What an engine has computed of a leap counts by now; nothing ends by that, or it would have been settled.
            member.engine.run(until_s, _nothing_ends)
            self._watch(member)

    def close(self) -> None:
        """The run is over: what has not ended is recorded as open."""
        self._closed = True
        for request in tuple(self._open.values()):
            self._end(request, self._pool_of(request), Status.OPEN, reason="the run ended")

    def restart(self, engine_id: EngineId, values: Setting) -> None:
        """Relaunch an engine now; what it still ran is retried or lost. Raises `Rejected` as `Engine.restart`."""
        member = self._by_id[engine_id]
        aborted = tuple(member.engine.batch)
        member.engine.restart(values, self.now_s)
        self._go_down(member, aborted)
        self._at(member.engine.ready_at_s, _RELAUNCHES, partial(self._relaunch, member, member.engine.ready_at_s))

    def forward(self) -> None:
        """Send on what the gateways can send on now; to be called after their settings changed."""
        for pool in self.pools.values():
            self._forward(pool)

    def _forward(self, pool: Pool) -> None:
        reached: dict[int, _Member] = {}
        while (routed := pool.gateway.forward()) is not None:
            request, engine_id = routed
            member = self._by_id[engine_id]
            if self._tickets:
                self._tickets.pop(request.id, None)
            if request.prompt_tokens + request.output_tokens > member.longest_tokens:
                pool.gateway.release(engine_id)
                reason = f"{engine_id} holds {member.longest_tokens} tokens"
                self._end(request, pool, Status.REFUSED, engine=engine_id, reason=reason)
                continue
            member.engine.submit(request, self.now_s)
            reached[member.index] = member
        # Only now, so that what was sent on together may share a step.
        for member in reached.values():
            member.engine.begin(self.now_s)
            self._watch(member)

    def _watch(self, member: _Member) -> None:
        """See to it that the end of its step is in the heap."""
        end_s = member.engine.step_end_s
        if end_s != member.due_s:
            member.due_s = end_s
            if end_s != NEVER:
                heapq.heappush(self._ends, (end_s, member.index))

    def _settle(self, until_s: float) -> float:
        """Settle all steps that end before the next event, and by `until_s`; when that event is due.

        Steps are taken in the order of their ends over all engines: a finish may send on a request that queues, or
        let a session go on.
        """
        ends, members, traffic = self._ends, self._members, self._traffic
        event_s = min(traffic.next_s(), self._timers[0][0] if self._timers else NEVER)
        limit_s = min(event_s, until_s)
        while ends and ends[0][0] <= limit_s:
            end_s, index = ends[0]
            member = members[index]
            if member.due_s != end_s:
                heapq.heappop(ends)
                continue
            self.now_s = end_s
            engine = member.engine
            finished = engine.finish_step()
            if not finished:
                engine.begin(end_s)
                member.due_s = engine.step_end_s
                heapq.heapreplace(ends, (member.due_s, index))
                continue
            heapq.heappop(ends)
            member.due_s = NEVER
            self._finish(member, finished)
            engine.begin(end_s)
            self._watch(member)
            if traffic.next_s() < event_s:
                event_s = traffic.next_s()
                limit_s = min(event_s, until_s)
        return event_s

    def _finish(self, member: _Member, finished: list[Sequence]) -> None:
        pool, engine_id = member.pool, member.engine.id
        for sequence in finished:
            pool.gateway.release(engine_id)
            self._end(sequence.request, pool, Status.FINISHED, engine=engine_id, sequence=sequence)
        if pool.gateway.queued:
            self._forward(pool)

    def _happen(self, now_s: float) -> None:
        timers, traffic = self._timers, self._traffic
        stirred: dict[PoolId, Pool] = {}
        while timers and timers[0][0] <= now_s:
            heapq.heappop(timers)[3]()
            stirred = dict(self.pools)
        while (asked_s := traffic.next_s()) <= now_s:
            if asked_s < now_s:
                raise Rejected(f"a request arrives at {asked_s!r} s, and it is {now_s!r} s already")
            request = traffic.take()
            pool = self._pool_of(request)
            if request.id in self._open:
                raise Rejected(f"two requests have the same id, {request.id}")
            self._enqueue(request, pool)
            self._open[request.id] = request
            self.arrived += 1
            stirred[pool.id] = pool
        for pool in stirred.values():
            self._forward(pool)

    def _pool_of(self, request: Request) -> Pool:
        pool = self.pools.get(PoolId(request.pool)) if request.pool else self._only
        if pool is None:
            raise Rejected(f"request {request.id} is for pool {request.pool!r}; there is {', '.join(self.pools)}")
        return pool

    def _enqueue(self, request: Request, pool: Pool) -> None:
        ticket = pool.gateway.enqueue(request, self.now_s)
        timeout_s = pool.gateway.timeout_s(request.lane)
        if timeout_s != NEVER:
            self._tickets[request.id] = ticket
            self._at(self.now_s + timeout_s, _TIMEOUTS, partial(self._give_up, request, pool, ticket))

    def _give_up(self, request: Request, pool: Pool, ticket: int) -> None:
        """Answer 503 if it queues still."""
        if self._tickets.get(request.id) == ticket:
            del self._tickets[request.id]
            pool.gateway.withdraw(ticket)
            reason = f"no room within {pool.gateway.timeout_s(request.lane):g} s"
            self._end(request, pool, Status.ABANDONED, reason=reason)

    def _end(
        self,
        request: Request,
        pool: Pool,
        status: Status,
        *,
        engine: EngineId | None = None,
        sequence: Sequence | None = None,
        reason: str = "",
    ) -> None:
        del self._open[request.id]
        retries = self._retries.pop(request.id, 0) if self._retries else 0
        self._traffic.ended(request, self.now_s)
        first_token_s = None if sequence is None else sequence.first_token_s
        self._record(
            Outcome(
                request=request,
                pool=pool.id,
                engine=engine,
                status=status,
                ended_s=self.now_s,
                first_token_s=NEVER if first_token_s is None else first_token_s,
                preemptions=0 if sequence is None else sequence.preemptions,
                attempts=0 if engine is None else 1 + retries,
                reason=reason,
            )
        )

    def _at(self, at_s: float, order: int, action: Callable[[], None]) -> None:
        self._timed += 1
        heapq.heappush(self._timers, (at_s, order, self._timed, action))

    def _strike(self, member: _Member) -> None:
        """Bring an engine into the state in which its faults say it is from now on."""
        engine, now_s = member.engine, self.now_s
        before, ailment = member.ailment, self.schedule.ailment(member.engine.id, now_s)
        member.ailment = ailment
        engine.run(now_s, _nothing_ends)
        if ailment.condition != before.condition:
            engine.set_condition(ailment.condition)
        if ailment.stalled != before.stalled:
            member.stalls += 1
            if ailment.stalled:
                engine.stall(now_s, self.schedule.stalled_until_s(engine.id, now_s))
            else:
                engine.begin(now_s)
            wait_s = self._checks.down_after_s if ailment.stalled else self._checks.up_after_s
            self._at(now_s + wait_s, _RELAUNCHES, partial(self._check, member, member.stalls))
        if ailment.dead and not before.dead:
            self._go_down(member, engine.die(now_s))
        elif before.dead and not ailment.dead:
            engine.start(now_s)
            self._at(engine.ready_at_s, _RELAUNCHES, partial(self._relaunch, member, engine.ready_at_s))
        self._watch(member)

    def _check(self, member: _Member, stalls: int) -> None:
        """The health checks have found out that an engine stalls, or that it does no more."""
        if stalls == member.stalls and member.engine.ready:
            member.pool.gateway.set_up(member.engine.id, up=not member.ailment.stalled)

    def _relaunch(self, member: _Member, ready_at_s: float) -> None:
        if member.engine.ready_at_s == ready_at_s:  # and it has not died since
            member.engine.relaunch()
            member.longest_tokens = member.engine.longest_request_tokens()
            member.pool.gateway.set_up(member.engine.id, up=not member.ailment.stalled)

    def _go_down(self, member: _Member, aborted: Iterable[Sequence]) -> None:
        """Break the connections of an engine that is gone, and send on what can be sent on."""
        pool, engine_id = member.pool, member.engine.id
        pool.gateway.set_up(engine_id, up=False)
        self._watch(member)
        for sequence in aborted:
            request = sequence.request
            pool.gateway.release(engine_id)
            retries = self._retries.get(request.id, 0)
            if sequence.first_token_s is None and retries < RETRIES:
                self._retries[request.id] = retries + 1
                self._enqueue(request, pool)
            else:
                begun = sequence.first_token_s is not None
                reason = f"{engine_id} went down {'within the answer' if begun else 'once too often'}"
                self._end(request, pool, Status.LOST, engine=engine_id, sequence=sequence, reason=reason)
        self._forward(pool)


def _nothing_ends(finished: list[Sequence]) -> None:
    raise Fatal(f"request {finished[0].request.id} ended behind the fleet's back")
