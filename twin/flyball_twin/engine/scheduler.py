"""Continuous batching as vLLM V1 does it, one step at a time and without a clock.

Running decodes get their token first; what is left of the token budget goes to prefills
under way, then to waiting requests in their order, in chunks. A waiting request is
admitted if its whole sequence fits the free blocks (vLLM's `scheduler_reserve_full_isl`)
although only the chunk's blocks are taken. When blocks run out, the latest admitted
sequence (by priority: the least urgent) is preempted: its cache is dropped, and it is
computed again from the front of the queue. A lowered request cap drains; it evicts nobody.
(vLLM hands out the budget in the order of admission; as that lets the oldest prefill through first, it differs
only where one is held back by `long_prefill_tokens` and the budget is short.) What other engines do otherwise
stands in `scheduling`.

An engine that schedules ahead makes a batch while an earlier step still runs. What comes by then is not in it, so
each request brings the number of the first step that may let it in; the engine knows that from the time. Where nothing
runs there is nothing to be ahead of.

A step in which nothing joins or leaves costs a handful of additions, whatever the batch
size; and since the next step would be scheduled like it, `plan` says how many such steps
follow each other. This module refuses to know about time, telemetry or what a step costs.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from math import ceil

from flyball_twin.engine.kv import PagedKv, blocks_for
from flyball_twin.engine.prefix_cache import RUN_BLOCKS, PrefixCache, Run
from flyball_twin.engine.scheduling import PLAIN, BatchPolicy, Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.engine.speculation import tokens_per_step
from flyball_twin.engine.waiting import ByPriority, urgency
from flyball_twin.workload import PREFIX_TOKENS


class Batch:
    """The requests of one engine: waiting, prefilling, decoding; and the step being run.

    `plan` schedules a step and says how many alike follow it, `settle` ends as many of them.
    Between the two, `chunks`, `stepping` and `decode_context` say what the first of them does.
    """

    __slots__ = (
        "_covered",
        "_due",
        "_due_ticks",
        "_latest_step",
        "_pace",
        "_per_decode",
        "_policy",
        "_prefilling",
        "_promised",
        "_running",
        "_scheduling",
        "_steps",
        "_watermark",
        "cache",
        "chunks",
        "decode_context",
        "decodes",
        "ended",
        "kv",
        "preempted",
        "put_out",
        "stepping",
        "tick",
        "waiting",
    )

    def __init__(self, kv_blocks: int, scheduling: Scheduling = PLAIN, draft_tokens: int = 0) -> None:
        """`draft_tokens` are proposed per decode and step. Raises `Rejected` for a draft that cannot be."""
        self.kv = PagedKv(kv_blocks)
        self.cache = PrefixCache(self.kv) if scheduling.prefix_cache else None
        self.waiting: deque[Sequence] | ByPriority = ByPriority() if scheduling.priority else deque()
        self.tick = 0
        """Tokens that a sequence would have put out that decoded all the time: a step is a tick, or several with
        speculation."""
        self.ended = 0
        """Steps that have ended, which is the number of the next one."""
        self.decodes = 0
        """Sequences decoding (in the planned step, and after it until the next is planned)."""
        self.decode_context = 0
        """KV tokens that they have."""
        self.stepping = 0
        """Sequences that decode in the planned step: all, or none."""
        self.put_out = 0
        """Tokens put out so far."""
        self.chunks: list[tuple[Sequence, int]] = []
        """Prefill chunks of the planned step."""
        self.preempted: list[Sequence] = []
        """Sequences that planning this step preempted."""
        self._scheduling = scheduling
        self._policy = scheduling.policy
        self._watermark = int(scheduling.watermark * kv_blocks)
        pace = tokens_per_step(draft_tokens, scheduling.draft_acceptance)
        self._pace = pace if draft_tokens else 0.0
        self._per_decode = 1 + draft_tokens
        self._steps = 0
        self._covered = 0
        self._latest_step = 0
        """From which step on all that waits may be let in."""
        self._promised = 0
        self._running: dict[Sequence, None] = {}
        self._prefilling: list[Sequence] = []
        self._due: dict[int, list[Sequence]] = {}
        self._due_ticks: list[int] = []

    @property
    def running(self) -> int:
        """Requests admitted and not finished."""
        return len(self._running)

    @property
    def pace(self) -> float:
        """Ticks of a step with decodes, on average."""
        return self._pace or 1.0

    @property
    def tokens(self) -> int:
        """Tokens that the planned step computes, those among them that a draft proposed."""
        return self.stepping * self._per_decode + sum(chunk for _, chunk in self.chunks)

    def __iter__(self) -> Iterator[Sequence]:
        """Everything that is not finished: running in the order of admission, then waiting."""
        yield from self._running
        yield from self.waiting

    def plan(self, cap: int, budget: int) -> int:
        """Schedule a step of at most `budget` tokens and `cap` requests; how many alike follow each other, 0 for none.

        They do as long as nothing is submitted or aborted and no knob is changed. `budget` must be at least
        the number of running requests (times what a draft makes of each), so that every decode gets its token.
        """
        if self.preempted:
            self.preempted = []
        if self.chunks:
            self.chunks = []
        apart = self._policy is BatchPolicy.PREFILL_FIRST
        self.stepping = 0 if apart else self.decodes
        if self._prefilling:
            self._plan_prefills(budget)
        elif not apart:
            self._take_decodes()
        if self.waiting and not self.preempted and len(self._running) < cap:
            self._admit(cap, budget)
        if apart and not self.chunks:
            self.stepping = self.decodes
            self._take_decodes()
        if self.cache is not None:
            self.cache.trim()
        if self.chunks or self.preempted:
            return 1 if self.chunks or self.stepping else 0
        if not self.stepping:
            return 0
        # Who may be let in only later changes what the next step is made of.
        return 1 if self._latest_step > self.ended and len(self._running) < cap else self._steps_alike()

    def _take_decodes(self) -> None:
        """Blocks for the decodes' next tokens, preempting until all fit."""
        kv, tick = self.kv, self.tick
        self._covered = after = self._tick_after(1)
        need = kv.needed(tick) if after == tick + 1 else kv.needed_between(tick, after)
        while need > kv.free:
            self._preempt()
            need = kv.needed_between(tick, after)
        kv.free -= need

    def _plan_prefills(self, budget: int) -> None:
        """Blocks for the decodes and chunks for the prefills under way, preempting until all fit."""
        tick, limit = self.tick, self._longest_chunk(budget)
        while True:
            left = budget - self.stepping * self._per_decode
            chunks: list[tuple[Sequence, int]] = []
            blocks = 0
            for sequence in self._prefilling:
                chunk = min(sequence.target - sequence.computed, left, limit)
                if chunk <= 0:
                    break
                left -= chunk
                blocks += blocks_for(sequence.computed + chunk) - blocks_for(sequence.computed)
                chunks.append((sequence, chunk))
            if self.stepping:
                self._covered = self._tick_after(1)
                blocks += self.kv.needed_between(tick, self._covered)
            if blocks <= self.kv.free:
                self.kv.take(blocks)
                self.chunks = chunks
                return
            self._preempt()

    def _longest_chunk(self, budget: int) -> int:
        limit = self._scheduling.long_prefill_tokens
        return limit if limit and len(self._running) + len(self.waiting) > 1 else budget

    def _admit(self, cap: int, budget: int) -> None:
        """Start waiting requests while cap, budget and blocks allow."""
        waiting, running, kv, cache = self.waiting, self._running, self.kv, self.cache
        step = self.ended if running else self._latest_step
        limit = self._longest_chunk(budget)
        left = budget - self.stepping * self._per_decode - sum(chunk for _, chunk in self.chunks)
        while waiting and left > 0 and len(running) < cap:
            sequence = waiting[0]
            if sequence.from_step > step:
                open_to = [one for one in waiting if one.from_step <= step]
                if not open_to:
                    return
                sequence = open_to[0]
            request = sequence.request
            runs = cache.match(request.prefix, request.prompt_tokens) if cache is not None else _NO_RUNS
            hit = PREFIX_TOKENS * len(runs)
            chunk = min(sequence.target - hit, left, limit)
            taken = blocks_for(hit + chunk) - RUN_BLOCKS * len(runs)
            if not self._fits(sequence, runs, taken):
                return
            if self._policy is BatchPolicy.IN_FLIGHT:
                self._promised += _whole_blocks(sequence)
            if cache is not None:
                cache.hold(runs)
                sequence.runs = runs
                sequence.computed = hit
            kv.take(taken)
            left -= chunk
            waiting.remove(sequence)
            running[sequence] = None
            self._prefilling.append(sequence)
            self.chunks.append((sequence, chunk))
            if self._scheduling.one_prompt_a_step:
                return

    def _fits(self, sequence: Sequence, runs: list[Run], taken: int) -> bool:
        """Whether a request with these cached runs may start with a chunk for which it takes so many blocks."""
        kv = self.kv
        if self._policy is BatchPolicy.IN_FLIGHT:
            return self._promised + _whole_blocks(sequence) <= kv.capacity
        wanted = blocks_for(sequence.target) - RUN_BLOCKS * len(runs) if self._scheduling.reserve_prompt else taken
        if runs and self.cache is not None:
            wanted += self.cache.wanted_blocks(runs)
        return wanted <= (kv.free - self._watermark if self._running else kv.free)

    def _tick_after(self, steps: int) -> int:
        """The tick after so many more steps with decodes."""
        return int((self._steps + steps) * self._pace) if self._pace else self.tick + steps

    def _steps_alike(self) -> int:
        """Steps from the planned one on up to the first at whose end a sequence is due, as far as blocks reach."""
        due, kv = self._due_ticks[0], self.kv
        if not self._pace:
            steps = due - self.tick
            return steps if steps == 1 else 1 + kv.ticks_within(self._covered, kv.free, steps - 1)
        steps = max(1, ceil(due / self._pace) - self._steps)
        reach = self._covered + kv.ticks_within(self._covered, kv.free, max(0, self._tick_after(steps) - self._covered))
        while steps > 1 and (self._tick_after(steps) > reach or self._tick_after(steps - 1) >= due):
            steps -= 1
        return steps

    def queue(self, sequence: Sequence, cap: int) -> bool:
        """Let a sequence wait; whether the next plan might differ for it. Behind others it changes nothing."""
        self.waiting.append(sequence)
        self._latest_step = max(self._latest_step, sequence.from_step)
        return len(self._running) < cap and self.waiting[0] is sequence

    def _preempt(self) -> None:
        """Drop the cache of the latest admitted sequence, or of the least urgent, and send it back to the queue."""
        if self._scheduling.priority:
            sequence = max(self._running, key=urgency)
            del self._running[sequence]
        else:
            sequence, _ = self._running.popitem()
        self._release(sequence)
        if self.stepping:
            self.stepping = self.decodes
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
        self._give_back(sequence, held)

    def _stop_decoding(self, sequence: Sequence, held: int) -> None:
        self.kv.leave(held, self.tick)
        self.decodes -= 1
        self.decode_context -= held
        sequence.joined_tick = -1

    def advance(self, steps: int) -> None:
        """So many of the planned steps have ended, and one more is under way; nobody is due at any of their ends."""
        self._move(self._tick_after(steps))
        self.ended += steps
        self._steps += steps
        after = self._tick_after(1)
        self.kv.take(self.kv.needed_between(self._covered, after))
        self._covered = after

    def _move(self, tick: int) -> None:
        """Every decode advances to `tick`."""
        if tick > self._covered:
            self.kv.take(self.kv.needed_between(self._covered, tick))
            self._covered = tick
        grown = self.decodes * (tick - self.tick)
        self.tick = tick
        self.decode_context += grown
        self.put_out += grown

    def settle(self, steps: int = 1) -> tuple[list[Sequence], list[Sequence]]:
        """End so many of the planned steps: those whose prefill is through (each has a new token), and those finished.

        A finished sequence is in the second list only, unless its only token came out of its prefill.
        """
        finished = _NONE
        self.ended += steps
        if self.stepping:
            self._move(self._tick_after(steps))
            self._steps += steps
            if self.cache is not None:
                self.cache.trim()
            if self._due_ticks[0] <= self.tick:
                finished = self._settle_due()
        if not self.chunks:
            return _NONE, finished
        through = self._settle_prefills()
        return through, finished + [sequence for sequence in through if sequence.joined_tick < 0]

    def _settle_due(self) -> list[Sequence]:
        """Drop what has its last token now."""
        finished: list[Sequence] = []
        ticks, tick = self._due_ticks, self.tick
        while ticks and ticks[0] <= tick:
            due = heappop(ticks)
            for sequence in self._due.pop(due):
                held = sequence.computed + tick - sequence.joined_tick
                sequence.generated = sequence.request.output_tokens
                self.put_out -= tick - due
                self._stop_decoding(sequence, held)
                self._drop(sequence, held)
                finished.append(sequence)
        return finished

    def _settle_prefills(self) -> list[Sequence]:
        through: list[Sequence] = []
        for sequence, chunk in self.chunks:
            sequence.computed += chunk
            request = sequence.request
            if self.cache is not None and sequence.runs is not None:
                self.cache.learn(sequence.runs, request.prefix, min(sequence.computed, request.prompt_tokens))
            if sequence.computed < sequence.target:
                continue
            through.append(sequence)
            self._prefilling.remove(sequence)
            sequence.generated += 1
            missing = request.output_tokens - sequence.generated
            if missing <= 0:
                self._drop(sequence, sequence.computed)
                continue
            self._join(sequence, missing)
        self.put_out += len(through)
        return through

    def _join(self, sequence: Sequence, missing: int) -> None:
        """A sequence decodes from now on, for so many tokens."""
        tick = sequence.joined_tick = self.tick
        due = sequence.due_tick = tick + missing
        together = self._due.get(due)
        if together is None:
            self._due[due] = [sequence]
            heappush(self._due_ticks, due)
        else:
            together.append(sequence)
        self.kv.join(sequence.computed, tick)
        self.decodes += 1
        self.decode_context += sequence.computed

    def _drop(self, sequence: Sequence, held: int) -> None:
        del self._running[sequence]
        self._give_back(sequence, held)

    def _give_back(self, sequence: Sequence, held: int) -> None:
        """Its blocks are free; what it shares stays cached."""
        blocks = blocks_for(held)
        if self.cache is not None and sequence.runs is not None:
            blocks -= RUN_BLOCKS * len(sequence.runs)
            self.cache.release(sequence.runs)
            sequence.runs = None
        self.kv.give(blocks)
        if self._policy is BatchPolicy.IN_FLIGHT:
            self._promised -= _whole_blocks(sequence)


def _whole_blocks(sequence: Sequence) -> int:
    """Blocks of its prompt and its whole answer."""
    request = sequence.request
    return blocks_for(request.prompt_tokens + request.output_tokens)


_NONE: list[Sequence] = []
"""Shared and never changed: most steps finish nothing."""

_NO_RUNS: list[Run] = []
