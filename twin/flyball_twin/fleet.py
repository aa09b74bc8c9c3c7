"""A fleet in virtual time: engines, one gateway, arrivals and faults on one clock.

Events happen in the order of their times; at equal times steps end first, then faults,
then relaunches, then arrivals. Nothing is random. However a run is cut into calls of
`run_until`, it is the same run, so a controller may look and act at any time between.
The fleet refuses to govern itself: it does what its knobs say.
"""

from collections.abc import Iterable, Sequence as Items
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import Setting
from flyball_twin.engine import NEVER, Engine
from flyball_twin.gateway import Gateway
from flyball_twin.sequences import Sequence
from flyball_twin.workload import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthFault:
    """From `at_s` on, an engine's GPU has this share of its HBM bandwidth (1: healthy again)."""

    at_s: float
    engine: EngineId
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a finished request; times on the fleet's clock, of the attempt that finished."""

    request: Request
    engine: EngineId
    first_token_s: float
    finished_s: float
    preemptions: int
    attempts: int
    """1, and one more for each engine that was relaunched under it."""

    @property
    def ttft_s(self) -> float:
        """From the request's arrival at the gateway to its first token."""
        return self.first_token_s - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None if there is only one."""
        later = self.request.output_tokens - 1
        return (self.finished_s - self.first_token_s) / later if later > 0 else None

    @property
    def e2e_s(self) -> float:
        """From arrival to last token."""
        return self.finished_s - self.request.arrival_s


class Fleet:
    """Engines behind a gateway, fed by `requests` and disturbed by `faults`.

    Raises `Rejected` if the gateway does not know exactly these engines, or a request or
    fault does not fit them.
    """

    def __init__(
        self, engines: Items[Engine], gateway: Gateway, requests: Items[Request], faults: Iterable[BandwidthFault] = ()
    ) -> None:
        self.now_s = 0.0
        self.engines = {engine.id: engine for engine in engines}
        self.gateway = gateway
        self.requests = tuple(sorted(requests, key=lambda request: (request.arrival_s, request.id)))
        self.outcomes: dict[int, Outcome] = {}
        """By request id, as they finish."""
        self._faults = tuple(sorted(faults, key=lambda fault: fault.at_s))
        self._attempts: dict[int, int] = {}
        self._done = [(engine, partial(self._record, engine.id)) for engine in engines]
        self._arrived = 0
        self._struck = 0
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        if set(self.gateway.engines) != set(self.engines):
            raise Rejected("the gateway's engines are not the fleet's")
        if len({request.id for request in self.requests}) != len(self.requests):
            raise Rejected("two requests have the same id")
        longest = min(engine.longest_request_tokens() for engine in self.engines.values())
        for request in self.requests:
            if request.lane not in self.gateway.lanes:
                raise Rejected(f"request {request.id} is of lane {request.lane!r}, which the gateway has not")
            if request.prompt_tokens + request.output_tokens > longest:
                raise Rejected(f"request {request.id} does not fit an engine's {longest} tokens")
        for fault in self._faults:
            if fault.engine not in self.engines:
                raise Rejected(f"a fault strikes {fault.engine!r}, which is no engine of the fleet")

    @property
    def arrived(self) -> int:
        """Requests that have arrived so far."""
        return self._arrived

    def run_until(self, until_s: float) -> None:
        """Advance to `until_s`; everything due by then has happened. Raises `Rejected` for the past."""
        if not until_s >= self.now_s:
            raise Rejected(f"the fleet is at {self.now_s:g} s already, {until_s!r} s is past")
        while True:
            event_s = self._next_event_s()
            self._advance_engines(min(event_s, until_s))
            if event_s > until_s:
                break
            self.now_s = event_s
            self._happen(event_s)
        self.now_s = until_s

    def restart(self, engine_id: EngineId, values: Setting) -> None:
        """Relaunch an engine now; what it still ran goes back to the gateway. Raises `Rejected` as `Engine.restart`."""
        engine = self.engines[engine_id]
        aborted = engine.restart(values, self.now_s)
        self.gateway.set_up(engine_id, up=False)
        for request in aborted:
            self.gateway.release(engine_id)
            self.gateway.enqueue(request, self.now_s)
        self.forward()

    def forward(self) -> None:
        """Send on what the gateway can send on now; to be called after its settings changed."""
        reached: dict[EngineId, None] = {}
        while (routed := self.gateway.forward()) is not None:
            request, engine_id = routed
            self._attempts[request.id] = self._attempts.get(request.id, 0) + 1
            self.engines[engine_id].submit(request, self.now_s)
            reached[engine_id] = None
        # Only now, so that what was sent on together may share a step.
        for engine_id in reached:
            self.engines[engine_id].begin(self.now_s)

    def _next_event_s(self) -> float:
        due_s = min(engine.ready_at_s for engine in self.engines.values())
        if self._struck < len(self._faults):
            due_s = min(due_s, self._faults[self._struck].at_s)
        if self._arrived < len(self.requests):
            due_s = min(due_s, self.requests[self._arrived].arrival_s)
        return due_s

    def _happen(self, now_s: float) -> None:
        while self._struck < len(self._faults) and self._faults[self._struck].at_s <= now_s:
            fault = self._faults[self._struck]
            self._struck += 1
            self.engines[fault.engine].set_bandwidth_factor(fault.factor)
        for engine in self.engines.values():
            if engine.ready_at_s <= now_s:
                engine.relaunch()
                self.gateway.set_up(engine.id, up=True)
        while self._arrived < len(self.requests) and self.requests[self._arrived].arrival_s <= now_s:
            self.gateway.enqueue(self.requests[self._arrived], now_s)
            self._arrived += 1
        self.forward()

    def _advance_engines(self, until_s: float) -> None:
        """Settle all steps that end by `until_s`.

        While requests queue, a finish anywhere may send one on, so steps are taken in the
        order of their ends; with an empty queue the engines do not touch each other.
        """
        while self.gateway.queued:
            engine = min(self.engines.values(), key=_step_end)
            now_s = engine.step_end_s
            if now_s > until_s or now_s == NEVER:
                break
            self.now_s = now_s
            finished = engine.finish_step()
            if finished:
                self._record(engine.id, finished)
                self.forward()
            engine.begin(now_s)
        for engine, done in self._done:
            engine.run(until_s, done)

    def _record(self, engine_id: EngineId, finished: list[Sequence]) -> None:
        for sequence in finished:
            if sequence.first_token_s is None or sequence.finished_s is None:
                raise Fatal(f"request {sequence.request.id} finished without its times")
            self.gateway.release(engine_id)
            self.outcomes[sequence.request.id] = Outcome(
                request=sequence.request,
                engine=engine_id,
                first_token_s=sequence.first_token_s,
                finished_s=sequence.finished_s,
                preemptions=sequence.preemptions,
                attempts=self._attempts[sequence.request.id],
            )


_step_end = attrgetter("step_end_s")
