"""One simulated engine: steps in virtual time, live knobs, a restart, and its counters.

An engine is advanced from outside: `begin` schedules a step, which ends at `step_end_s`,
and `finish_step` settles it. Time is only ever a number handed in or summed up from step
times, so a run is exact and repeatable however it is cut into pieces. The engine refuses
to route, to queue by lane or to decide anything; it takes what it is given in order.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, Incarnation
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, KnobClass, KnobKind, KnobSpec, Setting, Value
from flyball_twin.physics import BLOCK_TOKENS, VARIANTS, EngineModel, Roofline
from flyball_twin.scheduler import Batch
from flyball_twin.sequences import Sequence
from flyball_twin.workload import Request

MAX_ACTIVE_REQUESTS = 256
MAX_BATCHED_TOKENS = 8192
"""Start-up ceilings and values of every engine. 8192 is vLLM's default for an API server on a GPU of
70 GiB and more; its request cap was 256 in V1's first releases and is 1024 in later ones. With the
requests of the bundled traces, the KV cache of these engines is full before 256 of them run."""

NEVER = float("inf")

Done = Callable[[list[Sequence]], None]
"""Told of the sequences that a step finished."""

KNOBS = (
    KnobSpec(
        name=BATCH_CAP,
        knob_class=KnobClass.LIVE,
        kind=KnobKind.INTEGER,
        safe=MAX_ACTIVE_REQUESTS,
        minimum=1,
        maximum=MAX_ACTIVE_REQUESTS,
        unit="requests",
    ),
    KnobSpec(
        name=TOKEN_BUDGET,
        knob_class=KnobClass.LIVE,
        kind=KnobKind.INTEGER,
        safe=MAX_BATCHED_TOKENS,
        # Never below the request cap's ceiling, so that every running decode gets its token.
        minimum=MAX_ACTIVE_REQUESTS,
        maximum=MAX_BATCHED_TOKENS,
        unit="tokens",
    ),
)
"""The live knobs; the restart knob's safe value depends on the engine."""


@dataclass(slots=True)
class Counters:
    """What an engine counts since its incarnation began; the names of `EngineSample`."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    requests_finished: int = 0
    requests_aborted: int = 0
    preemptions: int = 0
    ttft_s_sum: float = 0.0
    ttft_count: int = 0
    itl_s_sum: float = 0.0
    itl_count: int = 0
    queue_s_sum: float = 0.0
    queue_count: int = 0
    e2e_s_sum: float = 0.0
    e2e_count: int = 0
    steps: int = 0
    step_s: float = 0.0
    read_bytes: float = 0.0
    flops: float = 0.0


class Engine:
    """One engine on one GPU. `variant` names one of `VARIANTS`; raises `Rejected` for another.

    `life` tells its incarnations from those of an earlier process that had the same id; a
    simulation, which has but one life, leaves it empty.
    """

    def __init__(self, engine_id: EngineId, model: EngineModel, variant: str, *, life: str = "") -> None:
        self.id = engine_id
        self._life = f"{life}-" if life else ""
        self.model = model
        self.step_end_s = NEVER
        """When the step under way ends; infinity while there is none."""
        self.ready_at_s = NEVER
        """When a relaunch is through; infinity while none is under way."""
        self.bandwidth_factor = 1.0
        self.hbm_bytes = 0.0
        self.busy_s = 0.0
        """Bytes read and time computed by the GPU in settled steps, over all incarnations."""
        self._step_start_s = self._step_bytes = self._step_busy_s = self._step_flops = 0.0
        self._starts = 0
        self._safe_variant = self._next_variant = variant
        self._launch(variant)

    def _launch(self, variant: str) -> None:
        if variant not in VARIANTS:
            raise Rejected(f"variant takes one of {', '.join(VARIANTS)}, not {variant!r}")
        self.variant = variant
        self._starts += 1
        self.incarnation = Incarnation(f"{self.id}-{self._life}{self._starts}")
        self.max_active_requests = MAX_ACTIVE_REQUESTS
        self.max_batched_tokens = MAX_BATCHED_TOKENS
        self.batch = Batch(self.model.kv_blocks)
        self.counters = Counters()
        self._roofline = Roofline(self.model, VARIANTS[variant], self.bandwidth_factor)

    @property
    def ready(self) -> bool:
        """Whether it takes requests: not while it relaunches."""
        return self.ready_at_s == NEVER

    def knobs(self) -> tuple[KnobSpec, ...]:
        """The knobs it has, with bounds; the safe variant is the one it was made with."""
        choice = KnobSpec(
            name=VARIANT,
            knob_class=KnobClass.RESTART,
            kind=KnobKind.CHOICE,
            safe=self._safe_variant,
            choices=tuple(VARIANTS),
        )
        return (*KNOBS, choice)

    def settings(self) -> Setting:
        """The effective value of every knob."""
        return {
            BATCH_CAP: self.max_active_requests,
            TOKEN_BUDGET: self.max_batched_tokens,
            VARIANT: self.variant,
        }

    def set_live(self, name: str, value: Value) -> None:
        """Set a live knob; the next step obeys it. Raises `Rejected` for another knob or value."""
        for spec in KNOBS:
            if spec.name == name:
                if (problem := spec.refuse(value)) is not None:
                    raise Rejected(problem)
                setattr(self, name, value)
                return
        raise Rejected(f"{name} is not a live knob of {self.id}")

    def set_bandwidth_factor(self, factor: float) -> None:
        """The GPU has this share of its HBM bandwidth from the next step on. Raises `Rejected` outside (0, 1]."""
        self._roofline = Roofline(self.model, VARIANTS[self.variant], factor)
        self.bandwidth_factor = factor

    def longest_request_tokens(self) -> int:
        """Prompt and output together of the longest request it can serve."""
        return min(self.model.model.max_context_tokens, self.model.kv_blocks * BLOCK_TOKENS)

    def submit(self, request: Request, now_s: float) -> Sequence:
        """Take a request. Raises `Rejected` if it can never fit, `Fatal` while the engine is down."""
        if not self.ready:
            raise Fatal(f"{self.id} was sent a request while it relaunches")
        tokens = request.prompt_tokens + request.output_tokens
        if tokens > self.longest_request_tokens():
            raise Rejected(f"request {request.id} has {tokens} tokens; {self.id} holds {self.longest_request_tokens()}")
        sequence = Sequence(request=request, arrived_s=now_s, target=request.prompt_tokens)
        self.batch.waiting.append(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """Drop a request and free its cache; False if it is here no more, because it finished or a relaunch took it.

        Raises `Fatal` while a step is under way: what was planned is computed.
        """
        if self.step_end_s != NEVER:
            raise Fatal(f"{self.id} was asked to abort a request in the middle of a step")
        aborted = self.batch.abort(sequence)
        self.counters.requests_aborted += aborted
        return aborted

    def begin(self, now_s: float) -> None:
        """Start the next step unless one is under way or there is nothing to do."""
        if self.step_end_s != NEVER or self.ready_at_s != NEVER:
            return
        batch = self.batch
        planned = batch.plan(self.max_active_requests, self.max_batched_tokens)
        for sequence in batch.preempted:
            sequence.last_token_s = now_s
            self.counters.preemptions += 1
        if not planned:
            return
        for sequence, _ in batch.chunks:
            if sequence.scheduled_s is None:
                sequence.scheduled_s = now_s
                self.counters.queue_s_sum += now_s - sequence.arrived_s
                self.counters.queue_count += 1
        step_s = self._roofline.step_s(batch.sequences, batch.context, batch.tokens, batch.pairs)
        model = self.model.model
        self._step_start_s = now_s
        self._step_bytes = model.weight_bytes + model.kv_bytes_per_token * batch.context
        self._step_flops = 2.0 * model.parameters * batch.tokens + model.attention_flops_per_pair * batch.pairs
        self._step_busy_s = step_s - self._roofline.overhead_s(batch.sequences)
        self.step_end_s = now_s + step_s

    def finish_step(self) -> list[Sequence]:
        """Settle the step under way and return the sequences that it finished."""
        now_s = self.step_end_s
        step_s = now_s - self._step_start_s
        self.step_end_s = NEVER
        self.hbm_bytes += self._step_bytes
        self.busy_s += self._step_busy_s
        counters, decodes = self.counters, self.batch.decodes
        through, finished = self.batch.settle()
        counters.steps += 1
        counters.step_s += step_s
        counters.read_bytes += self._step_bytes
        counters.flops += self._step_flops
        counters.generation_tokens += decodes + len(through)
        # Steps follow each other without a gap while anything decodes.
        counters.itl_s_sum += decodes * step_s
        counters.itl_count += decodes
        if through:
            self._count_first_tokens(through, now_s)
        for sequence in finished:
            sequence.finished_s = now_s
            counters.requests_finished += 1
            counters.e2e_s_sum += now_s - sequence.arrived_s
            counters.e2e_count += 1
        return finished

    def _count_first_tokens(self, through: list[Sequence], now_s: float) -> None:
        counters = self.counters
        for sequence in through:
            if sequence.first_token_s is None:
                sequence.first_token_s = now_s
                counters.prompt_tokens += sequence.request.prompt_tokens
                counters.ttft_s_sum += now_s - sequence.arrived_s
                counters.ttft_count += 1
            else:
                counters.itl_s_sum += now_s - sequence.last_token_s
                counters.itl_count += 1

    def run(self, until_s: float, done: Done) -> None:
        """Settle every step that ends by `until_s`, each followed at once by the next."""
        while self.step_end_s <= until_s:
            now_s = self.step_end_s
            finished = self.finish_step()
            if finished:
                done(finished)
            self.begin(now_s)

    def restart(self, values: Setting, now_s: float) -> tuple[Request, ...]:
        """Relaunch with these restart-class values; returns the requests that were aborted.

        The engine is down until `ready_at_s`, when `relaunch` makes the new incarnation:
        empty cache, counters at zero, live knobs at their start-up values. Raises `Rejected`,
        and leaves everything as it was, if a value is none of the knob's or it is down already.
        """
        if not self.ready:
            raise Rejected(f"{self.id} relaunches already")
        variant = self._restart_variant(values)
        aborted = tuple(sequence.request for sequence in self.batch)
        self._next_variant = variant
        self.batch = Batch(self.model.kv_blocks)
        if self.step_end_s != NEVER:
            self.hbm_bytes = self.read_bytes_by(now_s)
            self.busy_s = self.busy_by(now_s)
            self.step_end_s = NEVER
        self.ready_at_s = now_s + self.model.cold_start_s
        return aborted

    def _restart_variant(self, values: Setting) -> str:
        variant = self.variant
        for name, value in values.items():
            if name != VARIANT:
                raise Rejected(f"{name} is not a restart knob of {self.id}")
            if not isinstance(value, str) or value not in VARIANTS:
                raise Rejected(f"variant takes one of {', '.join(VARIANTS)}, not {value!r}")
            variant = value
        return variant

    def relaunch(self) -> None:
        """The relaunch is through: a new incarnation takes requests."""
        self.ready_at_s = NEVER
        self._launch(self._next_variant)

    def read_bytes_by(self, now_s: float) -> float:
        """HBM bytes read until `now_s`, with the elapsed share of the step under way."""
        return self.hbm_bytes + self._step_bytes * self._elapsed_share(now_s)

    def busy_by(self, now_s: float) -> float:
        """Seconds the GPU computed until `now_s`, with the elapsed share of the step under way."""
        return self.busy_s + self._step_busy_s * self._elapsed_share(now_s)

    def _elapsed_share(self, now_s: float) -> float:
        if self.step_end_s == NEVER:
            return 0.0
        return (now_s - self._step_start_s) / (self.step_end_s - self._step_start_s)
