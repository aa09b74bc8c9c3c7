"""What `flyball demo --live` asks of a fleet, over HTTP, and what it measures from outside.

An open loop: requests go out when they are due, however slow answers are, so that a slow fleet is not asked
less. The first half is chat with a little bulk work; then documents are to be read, which is another kind of
load. Arrivals and sizes are drawn from a fixed seed. It knows nothing of Flyball: it measures what a client sees.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import aiohttp

from flyball_twin.fleet.scoring import Slo, percentile
from flyball_twin.serving.answers import DONE
from flyball_twin.serving.asking import CHARACTERS_PER_TOKEN

CHAT_PHASE, LONG_PHASE = "chat", "documents"
REALTIME, BULK = "realtime", "bulk"
SEED = 1
LONGEST_S = 60.0
"""A request that takes longer has failed."""
SLOS = (Slo(lane=REALTIME, ttft_s=3.0, tpot_s=0.040), Slo(lane=BULK, e2e_s=LONGEST_S))
"""What the lanes promise; the policy says the same."""
_SENTENCE = "The governor opens the valve when the load is heavy and closes it when the load is light. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of request: its lane, how often it comes, and the bounds of its sizes in tokens."""

    lane: str
    rate_per_s: float
    prompt_tokens: tuple[int, int]
    output_tokens: tuple[int, int]


CHAT = Kind(lane=REALTIME, rate_per_s=8.0, prompt_tokens=(200, 1200), output_tokens=(60, 200))
REPORTS = Kind(lane=BULK, rate_per_s=1.0, prompt_tokens=(800, 2000), output_tokens=(150, 300))
LITTLE_CHAT = Kind(lane=REALTIME, rate_per_s=2.0, prompt_tokens=(200, 1200), output_tokens=(60, 200))
DOCUMENTS = Kind(lane=BULK, rate_per_s=1.8, prompt_tokens=(9000, 12_000), output_tokens=(120, 280))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPhase:
    """A stretch of the show, in seconds from its start, and what is asked in it."""

    name: str
    from_s: float
    to_s: float
    kinds: tuple[Kind, ...]


def phases_of(seconds: float) -> tuple[TrafficPhase, ...]:
    """The show's two halves."""
    half_s = seconds / 2.0
    return (
        TrafficPhase(name=CHAT_PHASE, from_s=0.0, to_s=half_s, kinds=(CHAT, REPORTS)),
        TrafficPhase(name=LONG_PHASE, from_s=half_s, to_s=seconds, kinds=(LITTLE_CHAT, DOCUMENTS)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One request to come."""

    due_s: float
    phase: str
    lane: str
    prompt_tokens: int
    output_tokens: int


def plan(phases: Sequence[TrafficPhase], seed: int = SEED) -> list[Planned]:
    """All requests in the order in which they are due: Poisson arrivals of every kind, the same for a seed."""
    rng = random.Random(seed)
    found: list[Planned] = []
    for phase in phases:
        for kind in phase.kinds:
            due_s = phase.from_s + rng.expovariate(kind.rate_per_s)
            while due_s < phase.to_s:
                sizes = rng.randint(*kind.prompt_tokens), rng.randint(*kind.output_tokens)
                found.append(
                    Planned(
                        due_s=due_s, phase=phase.name, lane=kind.lane, prompt_tokens=sizes[0], output_tokens=sizes[1]
                    )
                )
                due_s += rng.expovariate(kind.rate_per_s)
    return sorted(found, key=lambda one: one.due_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A request's times as its client saw them, in seconds from when it was due."""

    ttft_s: float
    tpot_s: float | None
    e2e_s: float


@dataclass(slots=True, kw_only=True)
class Measured:
    """One request that was sent."""

    planned: Planned
    timing: Timing | None = None
    """None unless all its tokens came."""
    ended_s: float | None = None
    """When it was over, in seconds from the show's start; None while it is not."""
    failure: str = ""
    """Why it failed; empty if it did not."""


class Traffic:
    """Sends the planned requests to `address` (HOST:PORT) and keeps what became of each."""

    def __init__(self, address: str, model: str, planned: Sequence[Planned], lane_header: str) -> None:
        self.measured: list[Measured] = []
        """What was sent, in order; those under way have no end yet."""
        self._url = f"http://{address}/v1/chat/completions"
        self._model, self._planned, self._lane_header = model, planned, lane_header
        self._began_s = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the first request could be due; 0 before."""
        return time.monotonic() - self._began_s if self._began_s else 0.0

    @property
    def in_flight(self) -> int:
        """Requests sent and not over."""
        return sum(one.ended_s is None for one in self.measured)

    async def run(self, grace_s: float) -> None:
        """Send everything when it is due; then wait up to `grace_s` for the last answers, and cut off the rest."""
        self._began_s = time.monotonic()
        limits = aiohttp.ClientTimeout(total=LONGEST_S)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=limits) as session:
            under_way: set[asyncio.Task[None]] = set()
            try:
                for planned in self._planned:
                    await asyncio.sleep(max(planned.due_s - self.now_s, 0.0))
                    one = Measured(planned=planned)
                    self.measured.append(one)
                    task = asyncio.create_task(self._send(session, one))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                if under_way:
                    await asyncio.wait(set(under_way), timeout=grace_s)
            finally:
                cut = list(under_way)
                for task in cut:
                    task.cancel()
                await asyncio.gather(*cut, return_exceptions=True)

    async def _send(self, session: aiohttp.ClientSession, one: Measured) -> None:
        planned = one.planned
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": _text(planned.prompt_tokens)}],
            "max_tokens": planned.output_tokens,
            "stream": True,
        }
        try:
            async with session.post(self._url, json=body, headers={self._lane_header: planned.lane}) as answer:
                if answer.status != 200:
                    one.failure = f"status {answer.status}"
                    return
                one.timing = await self._read(answer, planned)
                one.failure = "" if one.timing is not None else "broke off"
        except TimeoutError:
            one.failure = f"took longer than {LONGEST_S:g} s"
        except aiohttp.ClientError as error:
            one.failure = f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            one.failure = "not over at the end"
            raise
        finally:
            one.ended_s = self.now_s

    async def _read(self, answer: aiohttp.ClientResponse, planned: Planned) -> Timing | None:
        """The times of a stream's first and last token; None if it did not end as streams do."""
        first_s: float | None = None
        last_s = 0.0
        tail = b""
        async for piece in answer.content.iter_any():
            last_s = self.now_s
            first_s = last_s if first_s is None else first_s
            tail = (tail + piece)[-len(DONE) :]
        if first_s is None or tail != DONE:
            return None
        later = planned.output_tokens - 1
        return Timing(
            ttft_s=first_s - planned.due_s,
            tpot_s=(last_s - first_s) / later if later else None,
            e2e_s=last_s - planned.due_s,
        )


def _text(tokens: int) -> str:
    characters = tokens * CHARACTERS_PER_TOKEN
    return (_SENTENCE * (characters // len(_SENTENCE) + 1))[:characters]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Some requests of one lane, summed up. Percentiles are over those that finished; None if none did."""

    requests: int
    finished: int
    failed: int
    attained: int
    """Finished within the objective."""
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None


def figures(measured: Iterable[Measured], slo: Slo) -> Figures:
    """The figures of these requests under an objective; what is under way counts as a request only."""
    of = list(measured)
    through = [one.timing for one in of if one.timing is not None]
    ttft = [timing.ttft_s for timing in through]
    tpot = [timing.tpot_s for timing in through if timing.tpot_s is not None]
    return Figures(
        requests=len(of),
        finished=len(through),
        failed=sum(bool(one.failure) for one in of),
        attained=sum(slo.met(timing) for timing in through),
        ttft_p50_s=percentile(ttft, 0.5),
        ttft_p99_s=percentile(ttft, 0.99),
        tpot_p50_s=percentile(tpot, 0.5),
        tpot_p99_s=percentile(tpot, 0.99),
    )
