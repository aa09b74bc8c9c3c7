"""Agentic sessions: chains in which each step waits for the answer to the one before, thinks, and adds to its prompt.

Sessions start as a Poisson process; what a session will ask is drawn when it starts, from a generator of its own, so
that a fleet that answers late changes when its steps come and never what they ask. Only sessions under way are held.
Refuses to abandon: a step that was refused or given up is followed by the next, as after an answer.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, Protocol

from flyball_twin.scenario.model import SessionSource
from flyball_twin.traffic.asking import Lengths, LogNormal
from flyball_twin.traffic.lots import Lot, Lots
from flyball_twin.traffic.recorded import RecordedSession
from flyball_twin.traffic.seam import NEVER
from flyball_twin.traffic.streams import STREAM_BITS
from flyball_twin.workload import PREFIX_TOKENS, Request

MOST_STEPS = 10_000
"""Requests of a drawn session at most; all of them are drawn when it starts."""
_SESSION_BITS = 24
"""Names of a session's own runs of prefix lie below; the session's number above."""


class Step(NamedTuple):
    """One request of a session to come."""

    prompt_tokens: int
    output_tokens: int
    think_s: float
    """From the answer before to this request; of the first it means nothing."""
    shared_tokens: int
    """Leading tokens that the request before had too."""


class Plan(NamedTuple):
    """What a session will ask."""

    steps: Sequence[Step]
    opening: int
    """Leading tokens of its first prompt that all sessions with an opening of that length share."""


class Plans(Protocol):
    """Where sessions come from."""

    def draw(self, rng: Random) -> Plan:
        """What the next session will ask; at least one step."""
        ...


class DrawnPlans:
    """Sessions drawn from numbers."""

    def __init__(self, source: SessionSource) -> None:
        self._steps = LogNormal(*source.steps, longest=MOST_STEPS)
        self._lengths = Lengths(source.first_prompt_tokens, source.output_tokens, source.longest_tokens)
        self._output = LogNormal(*source.output_tokens, longest=source.longest_tokens)
        self._added = LogNormal(*source.added_tokens, least=0.0)
        self._think = LogNormal(*source.think_s, least=0.0)
        self._longest = source.longest_tokens
        self._opening = source.opening_tokens

    def draw(self, rng: Random) -> Plan:
        """Each prompt is the one before, its answer, and something more; the session ends where that grows too long."""
        prompt, output = self._lengths.draw(rng)
        steps = [Step(prompt, output, 0.0, 0)]
        for _ in range(1, self._steps.tokens(rng)):
            shared = prompt
            prompt += output + self._added.tokens(rng)
            output = self._output.tokens(rng)
            if prompt + output > self._longest:
                break
            steps.append(Step(prompt, output, self._think.draw(rng), shared))
        return Plan(steps, min(self._opening, steps[0].prompt_tokens))


class RecordedPlans:
    """Sessions drawn from a trace: first which opening, then one of those that share it, for they are no two users."""

    def __init__(self, sessions: Sequence[RecordedSession], longest_tokens: int) -> None:
        groups: dict[str, list[RecordedSession]] = {}
        for session in sessions:
            groups.setdefault(session.group, []).append(session)
        self._groups = list(groups.values())
        self._longest = longest_tokens

    def draw(self, rng: Random) -> Plan:
        """One session, up to the first request that would be too long; its first one is cut to fit."""
        session = rng.choice(rng.choice(self._groups))
        steps: list[Step] = []
        for prompt, output, think_s, shared in session.steps:
            if prompt + output > self._longest:
                if steps:
                    break
                steps.append(Step(max(self._longest - output, 1), min(output, self._longest), think_s, 0))
                break
            steps.append(Step(prompt, output, think_s, shared))
        return Plan(steps, min(session.opening_tokens, steps[0].prompt_tokens))


@dataclass(slots=True)
class _Session:
    """A session under way."""

    name: str
    number: int
    plan: Plan
    lot: Lot
    turn: int = 0
    waiting: bool = False
    """Whether its last request has not ended."""
    named: int = 0
    """Names given out for its own prefix."""
    prefix: tuple[int, ...] = ()


class SessionStream:
    """Sessions that start from `from_s` on; nothing of them arrives from `to_s` on."""

    waits = True

    def __init__(self, index: int, plans: Plans, rate: float, lots: Lots, span_s: tuple[float, float]) -> None:
        """`rate` is sessions a second; `lots` also gives the seed."""
        self._index = index
        self._plans = plans
        self._rate = rate
        self._lots = lots
        self._to_s = span_s[1]
        self._starts = Random(f"{lots.salt}/starts")
        self._started = 0
        self._due: list[tuple[float, int, _Session]] = []
        self._under_way: dict[str, _Session] = {}
        self._start_s = self._until(span_s[0] + self._starts.expovariate(rate))

    @property
    def under_way(self) -> int:
        """Sessions that have begun and are not over."""
        return len(self._under_way)

    def next_s(self) -> float:
        """When its next request arrives, as far as that is known."""
        return min(self._start_s, self._due[0][0]) if self._due else self._start_s

    def take(self, request_id: int) -> Request:
        """Its next request: the first of a session, or the next of one under way."""
        if self._due and self._due[0][0] <= self._start_s:
            arrival_s, _, session = heapq.heappop(self._due)
        else:
            arrival_s, session = self._start_s, self._begin()
        step = session.plan.steps[session.turn]
        self._extend(session, step)
        session.waiting = True
        pool, lane, priority = session.lot
        return Request(
            id=request_id,
            arrival_s=arrival_s,
            prompt_tokens=step.prompt_tokens,
            output_tokens=step.output_tokens,
            lane=lane,
            pool=pool,
            priority=priority,
            session=session.name,
            turn=session.turn,
            prefix=session.prefix,
        )

    def ended(self, request: Request, now_s: float) -> None:
        """If it was what one of the sessions waits for, its next step is due when it has thought."""
        session = self._under_way.get(request.session)
        if session is None or not session.waiting or request.turn != session.turn:
            return
        session.waiting = False
        session.turn += 1
        if session.turn < len(session.plan.steps):
            due_s = self._until(now_s + session.plan.steps[session.turn].think_s)
            if due_s < NEVER:
                heapq.heappush(self._due, (due_s, session.number, session))
                return
        del self._under_way[session.name]

    def _begin(self) -> _Session:
        number, self._started = self._started, self._started + 1
        self._start_s = self._until(self._start_s + self._starts.expovariate(self._rate))
        name = f"{self._index}/{number}"
        plan = self._plans.draw(Random(f"{self._lots.salt}/session/{number}"))
        session = _Session(name, number, plan, self._lots.of_session(name))
        # What all sessions begin with has names of its own, told apart by its length.
        opening = self._index << STREAM_BITS | plan.opening << _SESSION_BITS | 1 << (STREAM_BITS - 1)
        session.prefix = tuple(range(opening, opening + plan.opening // PREFIX_TOKENS))
        self._under_way[name] = session
        return session

    def _extend(self, session: _Session, step: Step) -> None:
        """The runs of this prompt: those it shares with the one before keep their names, the others get new ones."""
        kept = session.prefix if session.turn == 0 else session.prefix[: step.shared_tokens // PREFIX_TOKENS]
        more = step.prompt_tokens // PREFIX_TOKENS - len(kept)
        base = (self._index << STREAM_BITS | session.number + 1 << _SESSION_BITS) + session.named
        session.prefix = (*kept, *range(base, base + more))
        session.named += more

    def _until(self, due_s: float) -> float:
        return due_s if due_s < self._to_s else NEVER
