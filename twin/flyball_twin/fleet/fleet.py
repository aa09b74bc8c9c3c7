"""A fleet in virtual time: pools of engines behind one front, arrivals and faults on one clock.

How it is used::

    pool = Pool(id=PoolId("chat"), engines=engines, gateway=Gateway([e.id for e in engines], lanes, "random(2)"))
    fleet = Fleet([pool], traffic, faults, record=tally.record)
    fleet.run_until(3600.0)  # as often as wanted, for ever later times
    fleet.close()  # what is still open is recorded as such

Requests are pulled from `traffic` one at a time, each goes to the pool that it names, and what became of it is handed
to `record` in the moment it is known; the fleet keeps only what is under way, so its memory is flat in the length of
its trace. `traffic.ended` is told of every end first, so a session may ask again, at that moment or later.

A request that is sent on is on its path (`EngineModel.path_s`) before its engine has it; its gateway counts it as in
flight meanwhile. If the engine goes down by then, it had not begun.

Events happen in the order of their times; at equal times steps end first, then paths, then faults, checks and
relaunches, then the queue's timeouts, then arrivals. Nothing is random but what gateways draw by their seeds. However a
run is cut into calls of `run_until`, it is the same run, so a controller may look and act at any time between. The
fleet refuses to govern itself: it does what its knobs say.

What a front of HAProxy does about engines that fail, with `option redispatch 1` and `retry-on conn-failure
empty-response` (HAProxy's configuration manual):

* A request that fits an engine is not known to the front: it goes where its turn takes it. An engine that cannot hold
  it answers 400, which is not retried, even if another engine could: the outcome is `refused`.
* An engine that dies or is relaunched breaks its connections. A request that has had no token yet is retried elsewhere,
  up to `RETRIES` times; one whose answer has begun cannot be (`empty-response` is one of which nothing was received)
  and is `lost`. Here an answer begins with its first token: an engine that sends its headers before would leave
  nothing to retry, and one that does not stream everything.
* Connecting to a dead engine fails at once and is redispatched, which is as if it were down from the first moment.
* A stalled engine holds its connections and takes new ones, until `fall` checks have failed; those that it has then are
  kept (no `on-marked-down shutdown-sessions`), and go on when it does.

To drain an engine is to give it weight 0 and to wait until `gateway.in_flight` is 0. An engine that is to join later is
one that is dead from 0 s on: when that fault ends it starts cold.
"""

import heapq
from collections.abc import Iterable, Sequence as Items
from dataclasses import dataclass, field
from functools import partial

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.knobs import Setting
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.sequences import Sequence
from flyball_twin.fleet.faults import Ailment, Checks, Fault, FaultSchedule
from flyball_twin.fleet.front import RETRIES, Front, Pool
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Kept, Record, Status
from flyball_twin.fleet.timers import NEVER, Timers, Turn
from flyball_twin.traffic.seam import Listed, Traffic
from flyball_twin.workload import Request

__all__ = ["RETRIES", "Fleet", "Pool"]


@dataclass(slots=True, eq=False)
class _Member:
    """One engine in its pool."""

    engine: Engine
    pool: Pool
    index: int
    longest_tokens: int
    path_base_s: float
    path_per_token_s: float
    due_s: float = NEVER
    """The end of its step as it stands in the heap."""
    ailment: Ailment = field(default_factory=Ailment)
    stalls: int = 0
    """Changes between stalled and not, so that a check knows whether it is about the latest."""


_Sent = tuple[Request, _Member, float]
"""What is on its path, to where and since when."""


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
        kept = Kept()
        self.outcomes = kept.outcomes
        """By request id, in the order of their ends, if there is no `record`; otherwise empty."""
        self._traffic = traffic
        self._timers = Timers()
        self._front = Front(pools, traffic, record or kept, self._timers)
        self.pools = self._front.pools
        self.engines = {engine.id: engine for pool in pools for engine in pool.engines}
        """Those of all pools."""
        self.schedule = FaultSchedule(faults, self.engines)
        self._checks = checks or Checks()
        placed = [(engine, pool) for pool in pools for engine in pool.engines]
        if len(placed) != len(self.engines):
            raise Rejected("two engines of a fleet have the same id")
        self._members = [_member(engine, pool, index) for index, (engine, pool) in enumerate(placed)]
        self._by_id = {member.engine.id: member for member in self._members}
        self._ends: list[tuple[float, int, _Sent | None]] = []
        """A heap of the ends of steps, each with its member's number, which count only if they are its `due_s`; and of
        the ends of paths, numbered beyond all members in the order in which they began."""
        self._sent = len(placed)
        self._closed = False
        for at_s, engine in self.schedule.edges():
            self._timers.at(at_s, Turn.FAULT, partial(self._strike, self._by_id[engine]))
        self._timers.act(0.0)  # so that who is dead from the start is so before anybody looks

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
        pool = Pool(id=PoolId(""), engines=tuple(engines), gateway=gateway)
        return cls([pool], Listed(requests), faults, record=record)

    @property
    def gateway(self) -> Gateway:
        """The gateway of the only pool. Raises `Rejected` if there are several."""
        return self._front.only().gateway

    @property
    def arrived(self) -> int:
        """Requests that have arrived so far."""
        return self._front.arrived

    @property
    def open(self) -> int:
        """Requests that have arrived and not ended."""
        return self._front.open

    def run_until(self, until_s: float) -> None:
        """Advance to `until_s`; everything due by then has happened. Raises `Rejected` for the past and infinity."""
        if not self.now_s <= until_s < NEVER or self._closed:
            state = "closed" if self._closed else f"at {self.now_s:g} s already"
            raise Rejected(f"the fleet is {state} and does not go to {until_s!r} s")
        for member in self._members:
            self._watch(member)  # a knob may have cut its step short
        while (event_s := self._settle(until_s)) <= until_s:
            if event_s < self.now_s:
                raise Rejected(f"a request arrives at {event_s!r} s, and it is {self.now_s!r} s already")
            self.now_s = event_s
            stirred = self.pools if self._timers.act(event_s) else {}
            for pool in (stirred | self._front.arrive(event_s)).values():
                self._forward(pool)
        self.now_s = until_s
        for member in self._members:
            # What an engine has computed of a stretch counts by now; nothing ends by that, or it would be settled.
            member.engine.run(until_s, _nothing_ends)
            self._watch(member)

    def close(self) -> None:
        """The run is over: what has not ended is recorded as open."""
        self._closed = True
        self._front.close(self.now_s)

    def restart(self, engine_id: EngineId, values: Setting) -> None:
        """Relaunch an engine now; what it still ran is retried or lost. Raises `Rejected` as `Engine.restart`."""
        member = self._by_id[engine_id]
        aborted = tuple(member.engine.batch)
        member.engine.restart(values, self.now_s)
        self._go_down(member, aborted)
        self._await_relaunch(member)

    def forward(self) -> None:
        """Send on what the gateways can send on now; to be called after their settings changed."""
        for pool in self.pools.values():
            self._forward(pool)

    def _forward(self, pool: Pool) -> None:
        reached: list[_Member] = []
        front, now_s = self._front, self.now_s
        while (routed := front.next(pool)) is not None:
            request, engine_id = routed
            member = self._by_id[engine_id]
            if request.prompt_tokens + request.output_tokens > member.longest_tokens:
                pool.gateway.release(engine_id)
                reason = f"{engine_id} holds {member.longest_tokens} tokens"
                front.end(request, pool, Status.REFUSED, now_s, engine=engine_id, reason=reason)
                continue
            path_s = member.path_base_s + member.path_per_token_s * request.prompt_tokens
            if path_s > 0.0:
                self._sent += 1
                heapq.heappush(self._ends, (now_s + path_s, self._sent, (request, member, now_s)))
                continue
            member.engine.submit(request, now_s)
            reached.append(member)
        self._begin(reached)

    def _end_paths(self, now_s: float) -> None:
        """All paths that end now."""
        ends = self._ends
        reached: list[_Member] = []
        while ends and ends[0][0] == now_s and (sent := ends[0][2]) is not None:
            heapq.heappop(ends)
            request, member, sent_s = sent
            member.engine.submit(request, now_s, sent_s)
            reached.append(member)
        self._begin(reached)

    def _begin(self, reached: list[_Member]) -> None:
        """These have got requests: only now do they begin, so that what came together may share a step."""
        for member in reached:
            member.engine.begin(self.now_s)
            self._watch(member)

    def _watch(self, member: _Member) -> None:
        """See to it that the end of its step is in the heap."""
        end_s = member.engine.step_end_s
        if end_s != member.due_s:
            member.due_s = end_s
            if end_s != NEVER:
                heapq.heappush(self._ends, (end_s, member.index, None))

    def _settle(self, until_s: float) -> float:
        """Settle all steps that end before the next event, and by `until_s`; when that event is due.

        Steps are taken in the order of their ends over all engines: a finish may send on a request that queues, or
        let a session go on.
        """
        ends, members, traffic = self._ends, self._members, self._traffic
        event_s = min(traffic.next_s(), self._timers.next_s())
        limit_s = min(event_s, until_s)
        while ends and ends[0][0] <= limit_s:
            end_s, index, sent = ends[0]
            if sent is not None:
                self.now_s = end_s
                self._end_paths(end_s)
                continue
            member = members[index]
            if member.due_s != end_s:
                heapq.heappop(ends)
                continue
            self.now_s = end_s
            engine = member.engine
            finished = engine.finish_step()
            if finished:
                self._finish(member, finished)
            engine.begin(end_s)
            next_s = engine.step_end_s
            if not finished and next_s != NEVER:
                member.due_s = next_s
                heapq.heapreplace(ends, (next_s, index, None))
                continue
            self._watch(member)
            if traffic.next_s() < event_s:
                event_s = traffic.next_s()
                limit_s = min(event_s, until_s)
        return event_s

    def _finish(self, member: _Member, finished: list[Sequence]) -> None:
        pool, engine_id, front, now_s = member.pool, member.engine.id, self._front, self.now_s
        for sequence in finished:
            pool.gateway.release(engine_id)
            front.end(sequence.request, pool, Status.FINISHED, now_s, engine=engine_id, sequence=sequence)
        if pool.gateway.queued:
            self._forward(pool)

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
            self._timers.at(now_s + wait_s, Turn.ENGINE, partial(self._check, member, member.stalls))
        if ailment.dead and not before.dead:
            self._go_down(member, engine.die(now_s))
        elif before.dead and not ailment.dead:
            engine.start(now_s)
            self._await_relaunch(member)
        self._watch(member)

    def _check(self, member: _Member, stalls: int) -> None:
        """The health checks have found out that an engine stalls, or that it does no more."""
        if stalls == member.stalls and member.engine.ready:
            member.pool.gateway.set_up(member.engine.id, up=not member.ailment.stalled)

    def _await_relaunch(self, member: _Member) -> None:
        ready_at_s = member.engine.ready_at_s
        self._timers.at(ready_at_s, Turn.ENGINE, partial(self._relaunch, member, ready_at_s))

    def _relaunch(self, member: _Member, ready_at_s: float) -> None:
        if member.engine.ready_at_s == ready_at_s:  # and it has not died since
            member.engine.relaunch()
            member.longest_tokens = member.engine.longest_request_tokens()
            member.pool.gateway.set_up(member.engine.id, up=not member.ailment.stalled)

    def _turned_back(self, member: _Member) -> list[Request]:
        """What was on its path to an engine, and has to go elsewhere."""
        ends = sorted(self._ends)
        self._ends[:] = [end for end in ends if end[2] is None or end[2][1] is not member]
        return [sent[0] for _, _, sent in ends if sent is not None and sent[1] is member]

    def _go_down(self, member: _Member, aborted: Iterable[Sequence]) -> None:
        """Break the connections of an engine that is gone, and send on what can be sent on."""
        pool, engine_id, front, now_s = member.pool, member.engine.id, self._front, self.now_s
        pool.gateway.set_up(engine_id, up=False)
        self._watch(member)
        for request in self._turned_back(member):
            pool.gateway.release(engine_id)
            if not front.retry(request, pool, now_s):
                reason = f"{engine_id} went down once too often"
                front.end(request, pool, Status.LOST, now_s, engine=engine_id, reason=reason)
        for sequence in aborted:
            request = sequence.request
            pool.gateway.release(engine_id)
            begun = sequence.first_token_s is not None
            if begun or not front.retry(request, pool, now_s):
                reason = f"{engine_id} went down {'within the answer' if begun else 'once too often'}"
                front.end(request, pool, Status.LOST, now_s, engine=engine_id, sequence=sequence, reason=reason)
        self._forward(pool)


def _member(engine: Engine, pool: Pool, index: int) -> _Member:
    path = engine.model.constants
    return _Member(engine, pool, index, engine.longest_request_tokens(), path.ttft_base_s, path.ttft_per_token_s)


def _nothing_ends(finished: list[Sequence]) -> None:
    raise Fatal(f"request {finished[0].request.id} ended behind the fleet's back")
