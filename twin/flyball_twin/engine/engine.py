"""One simulated engine: steps in virtual time, live knobs, faults, a restart, and its counters.

An engine is advanced from outside: `begin` schedules what comes next, which ends at `step_end_s`,
and `finish_step` settles it. That is one step; or, while the same sequences decode and nothing else is
to be decided, as many as there are until something is: a stretch (see `leaping`), which an arrival
or a change cuts short at the end of the step under way. Time is only ever a number handed in or
summed up from step times, so a run is repeatable however it is cut into pieces. The engine refuses to
route, to queue by lane or to decide anything; it takes what it is given.
"""

from collections.abc import Callable
from dataclasses import replace

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, Incarnation
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, KnobSpec, Setting, Value
from flyball_twin.engine.counters import Counters
from flyball_twin.engine.knobs import known_variant, live_knobs, restart_variant, variant_knob
from flyball_twin.engine.leaping import Line, Stretch, lines_of, point
from flyball_twin.engine.scheduler import Batch
from flyball_twin.engine.scheduling import AS_VLLM, Scheduling
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import BLOCK_TOKENS, HEALTHY, VARIANTS, Chunk, EngineModel, GpuCondition
from flyball_twin.workload import Request

NEVER = float("inf")

Done = Callable[[list[Sequence]], None]
"""Told of the sequences that a step finished."""


class Engine:
    """One engine on its GPUs. `variant` names one of `VARIANTS`; raises `Rejected` for another.

    `scheduling` is how it was started; `stepped` makes it take each step by itself at its exact cost, as the
    reference that leaping is held to. `life` tells its incarnations from those of an earlier process
    that had the same id; a simulation, which has but one life, leaves it empty.
    """

    def __init__(
        self,
        engine_id: EngineId,
        model: EngineModel,
        variant: str,
        *,
        life: str = "",
        scheduling: Scheduling = AS_VLLM,
        stepped: bool = False,
    ) -> None:
        self.id = engine_id
        self._life = f"{life}-" if life else ""
        self.model = model
        self.scheduling = scheduling
        self.stepped = stepped
        self.step_end_s = NEVER
        """When the step or stretch under way ends; infinity while there is none."""
        self.ready_at_s = NEVER
        """When a relaunch is through; infinity while none is under way."""
        self.condition = HEALTHY
        self.busy_s = 0.0
        """Time computed by the GPU in settled stretches, over all incarnations."""
        self._read_before = 0.0
        self._up = self._draining = False
        self._now_s = 0.0
        self._stalled_until_s = self._stalled_s = 0.0
        # The last step of a draft may put down more than is asked for.
        self._longest = min(model.model.max_context_tokens, model.kv_blocks * BLOCK_TOKENS - model.draft_tokens)
        self._stretch = Stretch()
        self._caught = self._stepping = self._resident = 0
        self._made_s = 0.0
        """When the batch of the next step was made, if ahead of it: when the step before it began."""
        self._starts = 0
        self._live = live_knobs(model)
        self._safe_variant = self._next_variant = variant
        self._launch(variant)

    def _launch(self, variant: str) -> None:
        self.variant = known_variant(variant)
        self._starts += 1
        self.incarnation = Incarnation(f"{self.id}-{self._life}{self._starts}")
        self.max_active_requests = self.model.max_active_requests
        self.max_batched_tokens = self.model.max_batched_tokens
        self._batch = self._empty_batch()
        self._counters = Counters()
        self._up, self._draining = True, False
        self._price()

    def _empty_batch(self) -> Batch:
        return Batch(self.model.kv_blocks, self.scheduling, self.model.draft_tokens)

    def _price(self) -> None:
        """What steps cost as of now."""
        self._cost = self.model.cost(VARIANTS[self.variant], self.condition)
        self._lines = lines_of(self._cost)

    @property
    def ready(self) -> bool:
        """Whether it is up: not while it relaunches or is dead."""
        return self._up

    @property
    def draining(self) -> bool:
        """Whether it finishes what it has and takes nothing new."""
        return self._draining

    @property
    def batch(self) -> Batch:
        """Its requests, as of the end of the last step by the time that it was run to."""
        ended = self._stretch.ended_by(self._now_s)
        if ended > self._caught:
            self._batch.advance(ended - self._caught)
            self._caught = ended
        return self._batch

    @property
    def counters(self) -> Counters:
        """What this incarnation has counted by the end of the last step by the time that it was run to."""
        ended = self._stretch.ended_by(self._now_s)
        if not ended:
            return self._counters
        so_far = replace(self._counters)
        self._count(so_far, ended, self._stretch.after_s(ended), self.batch.put_out)
        return so_far

    @property
    def bandwidth_factor(self) -> float:
        """The share of its HBM bandwidth that the GPU has."""
        return self.condition.bandwidth

    @property
    def hbm_bytes(self) -> float:
        """Bytes read by the GPU in settled stretches, over all incarnations."""
        return self._read_before + self._counters.read_bytes

    def knobs(self) -> tuple[KnobSpec, ...]:
        """The knobs it has, with bounds; the safe variant is the one it was made with."""
        return (*self._live, variant_knob(self._safe_variant))

    def settings(self) -> Setting:
        """The effective value of every knob."""
        return {
            BATCH_CAP: self.max_active_requests,
            TOKEN_BUDGET: self.max_batched_tokens,
            VARIANT: self.variant,
        }

    def set_live(self, name: str, value: Value) -> None:
        """Set a live knob; the next step obeys it. Raises `Rejected` for another knob or value."""
        for spec in self._live:
            if spec.name == name:
                if (problem := spec.refuse(value)) is not None:
                    raise Rejected(problem)
                setattr(self, name, value)
                self.cut(self._now_s)
                return
        raise Rejected(f"{name} is not a live knob of {self.id}")

    def set_condition(self, condition: GpuCondition, now_s: float | None = None) -> None:
        """The GPU is in this condition from the first step on that begins after `now_s` (None: what it was run to)."""
        self.cut(self._now_s if now_s is None else now_s)
        self.condition = condition
        self._price()

    def set_bandwidth_factor(self, factor: float) -> None:
        """The GPU has this share of its HBM bandwidth from the next step on. Raises `Rejected` outside (0, 1]."""
        self.set_condition(replace(self.condition, bandwidth=factor))

    def longest_request_tokens(self) -> int:
        """Prompt and output together of the longest request it can serve."""
        return self._longest

    def submit(self, request: Request, now_s: float, sent_s: float | None = None) -> Sequence:
        """Take a request, which was sent at `sent_s` if not just now.

        Raises `Rejected` if it can never fit, `Fatal` while the engine is down or drains.
        """
        if not self._up or self._draining:
            raise Fatal(f"{self.id} was sent a request while it {'drains' if self._up else 'is down'}")
        tokens = request.prompt_tokens + request.output_tokens
        if tokens > self._longest:
            raise Rejected(f"request {request.id} has {tokens} tokens; {self.id} holds {self._longest}")
        sequence = Sequence(request, now_s, now_s if sent_s is None else sent_s, request.prompt_tokens)
        batch, stretch = self._batch, self._stretch
        # Of the stretch under way: the step under way, and those whose batches are made already.
        made = (stretch.ended_by(now_s) + 1 if stretch.steps else 0) + self.scheduling.steps_ahead
        sequence.from_step = batch.ended - self._caught + made
        if batch.queue(sequence, self.max_active_requests):
            self._cut_after(made)
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """Drop a request and free its cache; False if it is here no more, because it finished or a relaunch took it.

        Raises `Fatal` while a step is under way: what was planned is computed.
        """
        if self._stretch.steps:
            raise Fatal(f"{self.id} was asked to abort a request in the middle of a step")
        aborted = self._batch.abort(sequence)
        self._counters.requests_aborted += aborted
        return aborted

    def begin(self, now_s: float) -> None:
        """Start the next step or stretch unless one is under way or there is nothing to do."""
        stretch = self._stretch
        if stretch.steps or self.step_end_s != NEVER or not self._up:
            return
        if now_s < self._stalled_until_s:
            self.step_end_s = self._stalled_until_s
            return
        batch = self._batch
        steps = batch.plan(self.max_active_requests, self.max_batched_tokens)
        if batch.preempted:
            for sequence in batch.preempted:
                sequence.last_token_s = now_s
            self._counters.preemptions += len(batch.preempted)
        if not steps:
            return
        self._resident = batch.decodes
        stepping = self._stepping = batch.stepping
        context = batch.decode_context
        if batch.chunks:
            stretch.alone(now_s, self._priced_chunks(stepping, context if stepping else 0))
        elif self.stepped:
            stretch.alone(now_s, point(self._cost, stepping, context))
        else:
            stretch.leap(now_s, self._lines.at(stepping, context), context, stepping * batch.pace, steps)
        self.step_end_s = now_s + stretch.span_s

    def _priced_chunks(self, stepping: int, context: int) -> Line:
        """The cost of a step with prefill; and its requests' time in the queue is counted."""
        pieces: list[Chunk] = []
        counters = self._counters
        for sequence, tokens in self._batch.chunks:
            pieces.append((sequence.computed, tokens))
            if sequence.scheduled_s is None:
                sequence.scheduled_s = scheduled_s = max(sequence.arrived_s, self._made_s)
                counters.queue_s_sum += scheduled_s - sequence.arrived_s
                counters.queue_count += 1
                if sequence.runs is not None:
                    counters.prefix_queries += sequence.request.prompt_tokens
                    counters.prefix_hits += sequence.computed
        return point(self._cost, stepping, context, pieces)

    def cut(self, now_s: float) -> None:
        """Have the stretch under way end with the step that is under way at `now_s`, whatever else it would do."""
        if self._stretch.steps > 1:
            self._cut_after(self._stretch.ended_by(now_s) + 1)

    def _cut_after(self, steps: int) -> None:
        stretch = self._stretch
        if steps < stretch.steps:
            stretch.cut(steps)
            self.step_end_s = stretch.start_s + stretch.span_s + self._stalled_s

    def finish_step(self) -> list[Sequence]:
        """Settle the step or stretch under way and return the sequences that it finished."""
        now_s, stretch = self.step_end_s, self._stretch
        steps = stretch.steps
        self.step_end_s = NEVER
        if not steps:
            self._made_s = now_s
            return []
        span_s = stretch.span_s + self._stalled_s
        through, finished = self._batch.settle(steps - self._caught)
        self._caught = 0
        if self._batch.waiting:
            self._made_s = stretch.last_began_s(steps) if self.scheduling.steps_ahead else now_s
        counters = self._counters
        self._count(counters, steps, span_s, self._batch.put_out - len(through))
        self.busy_s += stretch.span_s - stretch.waiting_s(steps)
        stretch.steps, self._stalled_s = 0, 0.0
        if through:
            self._count_first_tokens(through, now_s)
        if finished:
            for sequence in finished:
                sequence.finished_s = now_s
                counters.e2e_s_sum += now_s - sequence.sent_s
            counters.requests_finished += len(finished)
            counters.e2e_count += len(finished)
        return finished

    def _count(self, counters: Counters, steps: int, span_s: float, put_out: int) -> None:
        """Add the stretch's first so many steps, which took `span_s`; `put_out` is all tokens but new first ones."""
        stretch = self._stretch
        line, offsets = stretch.line, stretch.offsets(steps)
        counters.steps += steps
        counters.step_s += span_s
        counters.read_bytes += steps * line.read_bytes + line.read_rise * offsets
        counters.flops += steps * line.flops + line.flops_rise * offsets
        # Steps follow each other without a gap while anything decodes.
        counters.itl_s_sum += self._resident * span_s
        outputs = steps * self._stepping
        counters.itl_count += outputs
        if drafted := self.model.draft_tokens:
            counters.drafts += outputs
            counters.draft_tokens += outputs * drafted
            counters.accepted_tokens += put_out - counters.generation_tokens - outputs
        counters.generation_tokens = put_out

    def _count_first_tokens(self, through: list[Sequence], now_s: float) -> None:
        counters = self._counters
        counters.generation_tokens += len(through)
        for sequence in through:
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
                counters.prompt_tokens += sequence.request.prompt_tokens
                counters.ttft_s_sum += now_s - sequence.sent_s
                counters.ttft_count += 1
            else:
                counters.itl_s_sum += now_s - sequence.last_token_s
                counters.itl_count += 1

    def run(self, until_s: float, done: Done) -> None:
        """Settle everything that ends by `until_s`, each time followed at once by what comes next."""
        while (now_s := self.step_end_s) <= until_s and now_s != NEVER:
            finished = self.finish_step()
            if finished:
                done(finished)
            self.begin(now_s)
        self._now_s = until_s

    def restart(self, values: Setting, now_s: float) -> tuple[Request, ...]:
        """Relaunch with these restart-class values; returns the requests that were aborted.

        The engine is down until `ready_at_s`, when `relaunch` makes the new incarnation:
        empty cache, counters at zero, live knobs at their start-up values. Raises `Rejected`,
        and leaves everything as it was, if a value is none of the knob's or it is down already.
        """
        if not self._up:
            raise Rejected(f"{self.id} {'relaunches' if self.ready_at_s != NEVER else 'is down'} already")
        self._next_variant = restart_variant(values, self.variant, self.id)
        lost = self.die(now_s)
        self.ready_at_s = now_s + self.model.cold_start_s
        return tuple(sequence.request for sequence in lost)

    def relaunch(self) -> None:
        """The relaunch is through: a new incarnation takes requests."""
        self.ready_at_s = NEVER
        self._launch(self._next_variant)

    def die(self, now_s: float) -> tuple[Sequence, ...]:
        """It is gone, and stays so until `start`; returns what went with it."""
        lost = tuple(self._batch)
        self._read_before = self.read_bytes_by(now_s)
        self.busy_s = self.busy_by(now_s)
        self._counters = replace(self._counters, read_bytes=0.0)
        self._batch = self._empty_batch()
        self._stretch.steps = 0
        self._stalled_until_s = self._stalled_s = 0.0
        self.step_end_s = self.ready_at_s = NEVER
        self._up = False
        return lost

    def start(self, now_s: float) -> None:
        """Start it cold: it is ready at `ready_at_s`. Raises `Rejected` unless it is dead."""
        if self._up or self.ready_at_s != NEVER:
            raise Rejected(f"{self.id} is not dead")
        self.ready_at_s = now_s + self.model.cold_start_s

    def stall(self, now_s: float, until_s: float) -> None:
        """It completes nothing until `until_s`: the step under way ends as much later, and none begins before."""
        self.cut(now_s)
        longer_s = until_s - max(now_s, self._stalled_until_s)
        if longer_s <= 0.0 or not self._up:
            return
        self._stalled_until_s = until_s
        if self._stretch.steps:
            self._stalled_s += longer_s
            self.step_end_s += longer_s
        elif self.step_end_s != NEVER:
            self.step_end_s = until_s

    def drain(self, *, on: bool = True) -> None:
        """Take no new requests, and finish those it has; `on=False` takes some again, and so does a relaunch."""
        self._draining = on

    def read_bytes_by(self, now_s: float) -> float:
        """HBM bytes read until `now_s`, with the elapsed share of the step under way."""
        if not self._stretch.steps:
            return self.hbm_bytes
        stretch = self._stretch
        ended, share = stretch.share_by(now_s)
        before = stretch.read_bytes(ended)
        return self.hbm_bytes + before + share * (stretch.read_bytes(ended + 1) - before)

    def busy_by(self, now_s: float) -> float:
        """Seconds the GPU computed until `now_s`, with the elapsed share of the step under way."""
        if not self._stretch.steps:
            return self.busy_s
        stretch = self._stretch
        ended, share = stretch.share_by(now_s)
        before = stretch.after_s(ended) - stretch.waiting_s(ended)
        return self.busy_s + before + share * (stretch.after_s(ended + 1) - stretch.waiting_s(ended + 1) - before)
