"""A benchmark's closed loop around one engine of the twin: so many clients, each sending again when it is answered.

All clients send at once to an idle engine and go on until each has had its `rounds` of requests, as the common load
generators do. What a client sends takes the host path (HTTP, tokenizing) before the engine sees it. The loop is played
in virtual time by the twin's own engine, which schedules as it does in any run. It refuses to know what was measured.
"""

import random
from bisect import bisect_left
from collections.abc import Sequence as Many
from dataclasses import dataclass
from heapq import heappop, heappush
from math import log

from flyball_core.ids import EngineId
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import FLASH_ATTN, Chunk, EngineModel
from flyball_twin.workload import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLoad:
    """What the clients of a benchmark do."""

    clients: int
    prompt_tokens: int
    output_tokens: int
    shortest: float = 1.0
    """Lengths are drawn between that share of the above and the whole; 1: all are alike."""
    rounds: int = 10
    """Requests of each client, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """An engine as it was started for a benchmark."""

    engine: EngineModel
    scheduling: Scheduling


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps alike, and how much of them an average request waited through before its first token, and after it."""

    decodes: int
    context: int
    """KV tokens of those decodes, on average over the steps."""
    chunks: tuple[Chunk, ...]
    before_first: float
    """Steps per request."""
    per_token: float
    """Steps per token after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopRun:
    """What the clients saw, on average over their requests."""

    ttft_s: float
    tpot_s: float
    requests: int
    pieces: tuple[Piece, ...]
    """All steps, gathered by what was in them."""


@dataclass(slots=True)
class _Spell:
    """A step, or a stretch of steps, as it was run."""

    decodes: int
    context: int
    chunks: tuple[Chunk, ...]
    steps: int
    start_s: float
    end_s: float


class ClosedLoop:
    """One run of a benchmark. `host_s` is what a request takes from its client to the engine."""

    def __init__(self, serving: Serving, load: ClientLoad, host_s: float, seed: int = 1) -> None:
        self._engine = Engine(EngineId("measured"), serving.engine, FLASH_ATTN.name, scheduling=serving.scheduling)
        self._load = load
        self._host_s = host_s
        self._total = load.clients * load.rounds
        self._lengths = random.Random(seed)
        self._coming: list[tuple[float, int]] = []
        self._spells: list[_Spell] = []
        self._done: list[Sequence] = []
        self._launched = 0

    def run(self) -> LoopRun:
        """Play it to the end."""
        for _ in range(min(self._load.clients, self._total)):
            self._send(0.0)
        engine, coming = self._engine, self._coming
        while len(self._done) < self._total:
            if coming and coming[0][0] < engine.step_end_s:
                self._arrive()
            else:
                self._settle()
        return self._seen()

    def _send(self, now_s: float) -> None:
        if self._launched < self._total:
            heappush(self._coming, (now_s + self._host_s, self._launched))
            self._launched += 1

    def _arrive(self) -> None:
        """What reaches the engine next, and at once."""
        coming = self._coming
        now_s = coming[0][0]
        sent_s = now_s - self._host_s
        while coming and coming[0][0] == now_s:
            self._engine.submit(self._request(heappop(coming)[1], sent_s), now_s, sent_s)
        if self._engine.step_end_s == NEVER:
            self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        """Start the next step."""
        engine = self._engine
        engine.begin(now_s)
        if engine.step_end_s == NEVER:
            return
        batch = engine.batch
        chunks = tuple((sequence.computed, chunk) for sequence, chunk in batch.chunks)
        self._spells.append(_Spell(batch.stepping, batch.decode_context, chunks, batch.tick, now_s, NEVER))

    def _settle(self) -> None:
        """The step under way ends."""
        engine = self._engine
        now_s = engine.step_end_s
        finished = engine.finish_step()
        spell = self._spells[-1]
        spell.end_s = now_s
        # Until here it held the tick at its start.
        spell.steps = engine.batch.tick - spell.steps if spell.decodes else 1
        self._done += finished
        for _ in finished:
            self._send(now_s)
        self._begin(now_s)

    def _request(self, number: int, sent_s: float) -> Request:
        load = self._load
        prompt, output = load.prompt_tokens, load.output_tokens
        if load.shortest < 1.0:
            prompt = self._lengths.randint(int(prompt * load.shortest), prompt)
            output = self._lengths.randint(int(output * load.shortest), output)
        return Request(
            id=number,
            arrival_s=sent_s,
            prompt_tokens=prompt,
            output_tokens=max(2, output),
            lane="measured",
        )

    def _seen(self) -> LoopRun:
        spells = self._spells
        ends = [spell.end_s for spell in spells]
        waited, decoded = _Sums(len(spells)), _Sums(len(spells))
        ttft_s = tpot_s = 0.0
        for sequence in self._done:
            first_s, last_s = sequence.first_token_s or 0.0, sequence.finished_s or 0.0
            sent_s = sequence.request.arrival_s
            gaps = sequence.request.output_tokens - 1
            ttft_s += first_s - sent_s
            tpot_s += (last_s - first_s) / gaps
            first, last = bisect_left(ends, first_s), bisect_left(ends, last_s)
            reached_s = sent_s + self._host_s
            at = bisect_left(ends, reached_s)
            spell = spells[at]
            waited.add(at, first, 1.0)
            if reached_s > spell.start_s:
                waited.add(at, at, -(reached_s - spell.start_s) / (spell.end_s - spell.start_s))
            decoded.add(first + 1, last, 1.0 / gaps)
        requests = len(self._done)
        return LoopRun(
            ttft_s=ttft_s / requests,
            tpot_s=tpot_s / requests,
            requests=requests,
            pieces=_gathered(spells, waited.values(), decoded.values(), requests),
        )


class _Sums:
    """Amounts added to ranges of places; summed up at the end."""

    def __init__(self, places: int) -> None:
        self._steps = [0.0] * (places + 1)

    def add(self, first: int, last: int, amount: float) -> None:
        if last >= first:
            self._steps[first] += amount
            self._steps[last + 1] -= amount

    def values(self) -> list[float]:
        total, values = 0.0, []
        for step in self._steps[:-1]:
            total += step
            values.append(total)
        return values


NOTHING = 1e-9
"""Steps per request, or per token, that are left of rounding."""
GATHERED = 1.03
"""Stretches of the same batch whose contexts are that close together count as one."""


def _gathered(spells: Many[_Spell], waited: Many[float], decoded: Many[float], requests: int) -> tuple[Piece, ...]:
    """The steps by what was in them, with their shares of an average request's time."""
    sums: dict[tuple[int, int, tuple[Chunk, ...]], list[float]] = {}
    for spell, before, after in zip(spells, waited, decoded, strict=True):
        context = spell.context + spell.decodes * (spell.steps - 1) // 2 if spell.decodes else 0
        cell = round(log(context) / log(GATHERED)) if context else -1
        into = sums.setdefault((spell.decodes, cell, spell.chunks), [0.0, 0.0, 0.0, 0.0])
        into[0] += spell.steps * before / requests
        into[1] += spell.steps * after / requests
        into[2] += spell.steps * context
        into[3] += spell.steps
    return tuple(
        Piece(decodes, round(total / steps), chunks, before, after)
        for (decodes, _, chunks), (before, after, total, steps) in sums.items()
        if before > NOTHING or after > NOTHING
    )
