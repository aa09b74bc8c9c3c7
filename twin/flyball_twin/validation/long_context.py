"""The long-context collapse: why 1 -> 3 concurrent requests of 80,000 tokens may cost 13 to 40 times the latency.

A report (Hebbia, on Qwen3-14B and -32B in FP8 on one H100 of 80 GB) says so, with 20 to 30 % of the KV cache in use by
one request, and says neither how engines were started nor how requests were sent. The twin serves such requests under
the configurations that are possible, and takes the inflation apart:

* *bandwidth*: decode steps read the caches of all requests;
* *prefill*: while one prompt is computed, the others' tokens wait for its pieces;
* *memory*: what does not fit beside the weights waits; or, where a request is let in as soon as its first piece fits
  and nothing of a preempted one is kept, is computed in part, dropped, and begun anew, at every step of those that run.

Without wasted work n requests cannot take more than n times as long as one: an engine is never idle. So whatever
is above that is waste, or demand that goes on while the queue grows. It refuses to say which the report saw.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.scheduling import Scheduling
from flyball_twin.engine.sequences import Sequence as Attempt
from flyball_twin.physics import BLOCK_TOKENS, FLASH_ATTN, H100, EngineModel, model_named
from flyball_twin.workload import PREFIX_TOKENS, Request

REPORTED = (13.0, 40.0)
"""By how much three concurrent requests are said to be slower than one."""
CONCURRENCIES = (1, 2, 3, 4)
COMPARED = 3
PROMPT_TOKENS = 80_000
OUTPUT_TOKENS = 640
"""At the twin's speed one request generates for 10 to 17 s, as the report says."""
ROUNDS = 4
"""Requests of each client; the first round, in which all begin at once, is not counted."""
STEADY_S = 1200.0
ROOM_FOR_ALL = 1e13


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way in which the engine may have been started."""

    name: str
    model: str
    kv_cache: str
    weights: str = "fp8"
    max_batched_tokens: int = 8192
    reserve_prompt: bool = True
    prefix_cache: bool = False
    same_document: bool = False
    """Whether each client asks about its one document again and again; else every prompt is new."""

    def engine_model(self) -> EngineModel:
        """The engine on an H100 of 80 GB."""
        return EngineModel(
            gpu=H100,
            model=model_named(self.model),
            weights=self.weights,
            kv_cache=self.kv_cache,
            max_batched_tokens=self.max_batched_tokens,
        )

    def scheduling(self) -> Scheduling:
        """How it lets requests in."""
        return Scheduling(reserve_prompt=self.reserve_prompt, prefix_cache=self.prefix_cache)


_WASTEFUL = Case(name="by piece", model="qwen3-32b", kv_cache="bf16", reserve_prompt=False)
CASES = (
    Case(name="32B, fp8 KV", model="qwen3-32b", kv_cache="fp8"),
    Case(name="32B, bf16 KV", model="qwen3-32b", kv_cache="bf16"),
    replace(_WASTEFUL, name="32B, by piece, prefix cache", prefix_cache=True),
    replace(_WASTEFUL, name="32B, by piece, budget 2048", max_batched_tokens=2048),
    replace(_WASTEFUL, name="32B, by piece, budget 8192"),
    Case(name="32B, same document", model="qwen3-32b", kv_cache="bf16", prefix_cache=True, same_document=True),
    Case(name="14B", model="qwen3-14b", kv_cache="bf16"),
    Case(name="14B, by piece", model="qwen3-14b", kv_cache="bf16", reserve_prompt=False),
)
"""All but the first with a cache in BF16. `by piece`: before `scheduler_reserve_full_isl` (vllm-project/vllm#37307)
vLLM let a request in as soon as the first piece of its prompt fitted. A prefix cache, which keeps what a preempted
request had, makes that harmless."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What so many clients see, each of which asks again as soon as it is answered."""

    concurrency: int
    e2e_s: float
    """Median from asking to the last token."""
    ttft_s: float
    """Mean time to the first token."""
    service_s: float
    """Mean time from the first step that computes it to the last token."""
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Where the latency of `COMPARED` concurrent requests comes from; the parts sum up to `e2e_s`."""

    alone_s: float
    bandwidth_s: float
    prefill_s: float
    memory_s: float
    e2e_s: float

    @property
    def inflation(self) -> float:
        """How many times as long as one alone."""
        return self.e2e_s / self.alone_s

    @property
    def unexplained(self) -> float:
        """What is missing to the least inflation that was reported, in latencies of one alone; at least 0."""
        return max(0.0, REPORTED[0] - self.inflation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Median latency of requests that arrive evenly for 20 minutes, `COMPARED` in the time that one takes alone."""

    free_s: float
    held_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case, served."""

    case: Case
    kv_use: float
    """Share of the KV cache that one request takes."""
    prefill_at_peaks_s: float
    """What computing one new prompt takes at least, at the peaks of the datasheet."""
    free: tuple[Latency, ...]
    """Latency by concurrency, as many requests at once as there are."""
    held: tuple[Latency, ...]
    """The same with the engine's batch cap held at 1."""
    parts: Parts
    steady: Steady


def collapse(case: Case) -> CaseResult:
    """Serve a case at every concurrency, free and held, and take the latency of `COMPARED` apart."""
    model = case.engine_model()
    free = tuple(latency(case, model, clients) for clients in CONCURRENCIES)
    held = tuple(latency(case, model, clients, cap=1) for clients in CONCURRENCIES)
    alone_s = free[0].e2e_s
    whole = free[CONCURRENCIES.index(COMPARED)]
    boundless = replace(model, gpu=replace(model.gpu, hbm_bytes=ROOM_FOR_ALL))
    fitting = latency(case, boundless, COMPARED)
    cost = model.cost(FLASH_ATTN)
    context = PROMPT_TOKENS + OUTPUT_TOKENS // 2
    slower_s = cost.step_s(COMPARED, COMPARED * context) - cost.step_s(1, context)
    bandwidth_s = slower_s * (OUTPUT_TOKENS - 1)
    parts = Parts(
        alone_s=alone_s,
        bandwidth_s=bandwidth_s,
        prefill_s=fitting.e2e_s - alone_s - bandwidth_s,
        memory_s=whole.e2e_s - fitting.e2e_s,
        e2e_s=whole.e2e_s,
    )
    return CaseResult(
        case=case,
        prefill_at_peaks_s=least_prefill_s(model),
        kv_use=(PROMPT_TOKENS + OUTPUT_TOKENS) / (model.kv_blocks * BLOCK_TOKENS),
        free=free,
        held=held,
        parts=parts,
        steady=Steady(free_s=_steady_s(case, model, alone_s), held_s=_steady_s(case, model, alone_s, cap=1)),
    )


def least_prefill_s(engine: EngineModel) -> float:
    """Seconds for one new prompt if every kernel reached the datasheet's peaks: attention computes in BF16."""
    model, gpu = engine.model, engine.gpu
    linear = 2.0 * model.shared_weights * PROMPT_TOKENS / gpu.flops_per_s(engine.weights)
    pairs = 0.5 * PROMPT_TOKENS**2
    return linear + model.attention_flops_per_pair() * pairs / gpu.bf16_flops_per_s


def latency(case: Case, model: EngineModel, clients: int, *, cap: int | None = None) -> Latency:
    """What `clients` see that ask again as soon as they are answered; `cap` is held by the engine's live knob."""
    engine = _started(case, model, cap)
    asked = clients
    answered: list[Attempt] = []
    for index in range(clients):
        engine.submit(_request(case, index, index, 0.0), 0.0)
    engine.begin(0.0)
    while (now_s := engine.step_end_s) != NEVER:
        finished = engine.finish_step()
        answered += finished
        for attempt in finished:
            if asked < clients * ROUNDS:
                engine.submit(_request(case, asked, int(attempt.request.session), now_s), now_s)
                asked += 1
        engine.begin(now_s)
    later = answered[clients:]
    return Latency(
        concurrency=clients,
        e2e_s=median(_e2e_s(later)),
        ttft_s=fmean((attempt.first_token_s or NEVER) - attempt.arrived_s for attempt in later),
        service_s=fmean((attempt.finished_s or NEVER) - (attempt.scheduled_s or 0.0) for attempt in later),
        preemptions=engine.counters.preemptions,
    )


def _steady_s(case: Case, model: EngineModel, alone_s: float, *, cap: int | None = None) -> float:
    """Median latency of requests that arrive evenly, whatever becomes of those before."""
    engine = _started(case, model, cap)
    apart_s = alone_s / COMPARED
    answered: list[Attempt] = []
    for index in range(int(STEADY_S / apart_s)):
        at_s = index * apart_s
        engine.run(at_s, answered.extend)
        engine.submit(_request(case, index, index % COMPARED, at_s), at_s)
        engine.begin(at_s)
    while engine.step_end_s != NEVER:
        engine.run(engine.step_end_s, answered.extend)
    return median(_e2e_s(answered))


def _started(case: Case, model: EngineModel, cap: int | None) -> Engine:
    engine = Engine(EngineId("engine-0"), model, FLASH_ATTN.name, scheduling=case.scheduling())
    if cap is not None:
        engine.set_live(BATCH_CAP, cap)
    return engine


def _request(case: Case, index: int, client: int, at_s: float) -> Request:
    runs = PROMPT_TOKENS // PREFIX_TOKENS
    document = client if case.same_document else index
    return Request(
        id=index,
        arrival_s=at_s,
        prompt_tokens=PROMPT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        lane="long",
        session=str(client),
        prefix=(document,) * runs,
    )


def _e2e_s(attempts: Iterable[Attempt]) -> Sequence[float]:
    return [(attempt.finished_s or NEVER) - attempt.arrived_s for attempt in attempts]
