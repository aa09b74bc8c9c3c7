"""Continuous batching as vLLM V1 does it, one step at a time and without a clock.

Running decodes get their token first; what is left of the token budget goes to prefills
under way, then to waiting requests in arrival order, in chunks. A waiting request is
admitted if its whole sequence fits the free blocks (vLLM's `scheduler_reserve_full_isl`)
although only the chunk's blocks are taken. When blocks run out, the latest admitted
sequence is preempted: its cache is dropped, and it is computed again from the front of
the queue. A lowered request cap drains; it evicts nobody.

A step in which nothing joins or leaves costs a handful of additions, whatever the batch
size. This module refuses to know about time, telemetry or what a step costs.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from flyball_twin.kv import PagedKv, blocks_for
from flyball_twin.sequences import Sequence


class BatchPolicy(StrEnum):
    """What a step is made of, and when a request is let in."""

    MIXED = "mixed"
    """vLLM V1: decodes and pieces of prefills share each step's token budget."""
    PREFILL_FIRST = "prefill_first"
    """SGLang: a step is either prefills, up to the token budget, or decodes; prefills go first."""
    IN_FLIGHT = "in_flight"
    """TensorRT-LLM: as `mixed`, but a request is let in only if its prompt and its whole answer fit beside those of
    all that run, so that nothing is ever preempted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduling:
    """How an engine schedules: what it was started with."""

    policy: BatchPolicy = BatchPolicy.MIXED
    max_active_requests: int = 256
    """Ceiling and start value of the knob of that name."""
    max_batched_tokens: int = 8192
    """Ceiling and start value of the knob of that name."""
    priority: bool = False
    """Whether the lowest `Request.priority` goes first, and the highest is preempted first; else as they came."""
    long_prefill_tokens: int = 0
    """The most tokens of one prompt in one step (vLLM's `long_prefill_token_threshold`); 0: as the budget allows."""
    reserve_prompt: bool = True
    """Whether a request waits until its whole prompt fits (vLLM's `scheduler_reserve_full_isl`), or its first piece."""
    watermark: float = 0.0
    """Share of the KV blocks that letting a request in leaves free, as headroom against preemption."""
    prefix_cache: bool = False
    draft_tokens: int = 0
    """Tokens a draft proposes per decode and step; 0 is no speculation."""
    draft_acceptance: float = 0.0
    """Chance that a proposed token is accepted, given that those before it were."""


class Batch:
    """The requests of one engine: waiting, prefilling, decoding; and the step being run.

    `plan` schedules a step, `settle` ends it. Between the two, `tokens`, `context`,
    `pairs` and `sequences` say what the step does.
    """

    __slots__ = (
        "_decode_context",
        "_due",
        "_prefilling",
        "_running",
        "chunks",
        "context",
        "decodes",
        "kv",
        "pairs",
        "preempted",
        "sequences",
        "tick",
        "tokens",
        "waiting",
    )

    def __init__(self, kv_blocks: int) -> None:
        self.kv = PagedKv(kv_blocks)
        self.waiting: deque[Sequence] = deque()
        self.tick = 0
        """Decode steps so far: every decoding sequence got a token at each."""
        self.decodes = 0
        """Sequences decoding (in the planned step, and after it until the next is planned)."""
        self._decode_context = 0
        self._running: dict[Sequence, None] = {}
        self._prefilling: list[Sequence] = []
        self._due: dict[int, list[Sequence]] = {}
        self.chunks: list[tuple[Sequence, int]] = []
        """Prefill chunks of the planned step."""
        self.preempted: list[Sequence] = []
        """Sequences that planning this step preempted."""
        self.tokens = self.sequences = self.context = 0
        self.pairs = 0.0

    @property
    def running(self) -> int:
        """Requests admitted and not finished."""
        return len(self._running)

    def __iter__(self) -> Iterator[Sequence]:
        """Everything that is not finished: running in the order of admission, then waiting."""
        yield from self._running
        yield from self.waiting

    def plan(self, cap: int, budget: int) -> bool:
        """Schedule a step of at most `budget` tokens and `cap` requests; False if there is nothing to do.

        `budget` must be at least the number of running requests, so that every decode
        gets its token.
        """
        if self.preempted:
            self.preempted = []
        if self.chunks:
            self.chunks = []
        if self._prefilling:
            self._plan_prefills(budget)
        else:
            need = self.kv.needed(self.tick)
            while need > self.kv.free:
                self._preempt_latest()
                need = self.kv.needed(self.tick)
            self.kv.free -= need
        if self.waiting and not self.preempted and len(self._running) < cap:
            self._admit(cap, budget)
        self.sequences = self.decodes + len(self.chunks)
        if not self.sequences:
            return False
        self.tokens = self.decodes
        self.context = self._decode_context
        self.pairs = 0.0
        for sequence, chunk in self.chunks:
            done = sequence.computed
            self.tokens += chunk
            self.context += done + chunk
            self.pairs += chunk * (done + 0.5 * (chunk + 1))
        return True

    def _plan_prefills(self, budget: int) -> None:
        """Blocks for the decodes and chunks for the prefills under way, preempting until all fit."""
        while True:
            left = budget - self.decodes
            chunks: list[tuple[Sequence, int]] = []
            blocks = 0
            for sequence in self._prefilling:
                chunk = min(sequence.target - sequence.computed, left)
                if chunk <= 0:
                    break
                left -= chunk
                blocks += blocks_for(sequence.computed + chunk) - blocks_for(sequence.computed)
                chunks.append((sequence, chunk))
            blocks += self.kv.needed(self.tick)
            if blocks <= self.kv.free:
                self.kv.take(blocks)
                self.chunks = chunks
                return
            self._preempt_latest()

    def _admit(self, cap: int, budget: int) -> None:
        """Start waiting requests while cap, budget and blocks allow."""
        left = budget - self.decodes - sum(chunk for _, chunk in self.chunks)
        while self.waiting and left > 0 and len(self._running) < cap:
            sequence = self.waiting[0]
            if blocks_for(sequence.target) > self.kv.free:
                return
            chunk = min(sequence.target, left)
            self.kv.take(blocks_for(chunk))
            left -= chunk
            self.waiting.popleft()
            self._running[sequence] = None
            self._prefilling.append(sequence)
            self.chunks.append((sequence, chunk))

    def _preempt_latest(self) -> None:
        """Drop the cache of the latest admitted sequence and put it at the head of the queue."""
        sequence, _ = self._running.popitem()
        self._release(sequence)
        sequence.computed = 0
        sequence.target = sequence.request.prompt_tokens + sequence.generated
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        self.preempted.append(sequence)

    def abort(self, sequence: Sequence) -> bool:
        """Forget a sequence, between two steps only, and free its cache; False if it is here no more."""
        if sequence in self._running:
            del self._running[sequence]
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        else:
            return False
        return True

    def _release(self, sequence: Sequence) -> None:
        """Stop computing a sequence that is not finished, and take its blocks back."""
        held = sequence.tokens_at(self.tick)
        if sequence.joined_tick >= 0:
            sequence.generated = sequence.generated_at(self.tick)
            self._stop_decoding(sequence, held)
            self._due[sequence.due_tick].remove(sequence)
        else:
            self._prefilling.remove(sequence)
        self.kv.give(blocks_for(held))

    def _stop_decoding(self, sequence: Sequence, held: int) -> None:
        self.kv.leave(held, self.tick)
        self.decodes -= 1
        self._decode_context -= held
        sequence.joined_tick = -1

    def settle(self) -> tuple[list[Sequence], list[Sequence]]:
        """End the planned step: those whose prefill is through (each has a new token), and those finished.

        A finished sequence is in the second list only, unless its only token came out of its prefill.
        """
        self.tick += 1
        self._decode_context += self.decodes
        finished = self._due.pop(self.tick, _NONE)
        if finished:
            for sequence in finished:
                held = sequence.tokens_at(self.tick)
                sequence.generated = sequence.generated_at(self.tick)
                self._stop_decoding(sequence, held)
                self._drop(sequence, held)
        if not self.chunks:
            return _NONE, finished
        through = self._settle_prefills()
        return through, finished + [sequence for sequence in through if sequence.joined_tick < 0]

    def _settle_prefills(self) -> list[Sequence]:
        through: list[Sequence] = []
        for sequence, chunk in self.chunks:
            sequence.computed += chunk
            if sequence.computed < sequence.target:
                continue
            through.append(sequence)
            self._prefilling.remove(sequence)
            sequence.generated += 1
            missing = sequence.request.output_tokens - sequence.generated
            if missing <= 0:
                self._drop(sequence, sequence.computed)
                continue
            sequence.joined_tick = self.tick
            sequence.due_tick = self.tick + missing
            self._due.setdefault(sequence.due_tick, []).append(sequence)
            self.kv.join(sequence.computed, self.tick)
            self.decodes += 1
            self._decode_context += sequence.computed
        return through

    def _drop(self, sequence: Sequence, held: int) -> None:
        del self._running[sequence]
        self.kv.give(blocks_for(held))


_NONE: list[Sequence] = []
"""Shared and never changed: most steps finish nothing."""
