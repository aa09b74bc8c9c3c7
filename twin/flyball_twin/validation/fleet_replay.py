"""A fleet's log served again by the twin, for the ways of routing that a front of HAProxy has.

The fleet: 8 replicas of Llama-3.1-8B, vLLM 0.7.0 or 0.8.5 with prefix caching, chunked prefill off and 32,000 tokens of
context (`test/regression` of vllm-project/aibrix). Without chunked prefill that vLLM runs whole prompts before
decodes, which is what the twin calls prefill first. The runs of a variant followed each other on the same engines, so
their caches stay warm from one rate to the next, and the twin plays them as one. Nothing is fitted on a GPU with
kernel tables; on another the lowest rate says how fast it computes. It refuses routes that look into engines' caches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.scheduling import BatchPolicy, Scheduling
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Outcome
from flyball_twin.physics import FLASH_ATTN, EngineModel, gpu_named, kernel_file_of, model_named
from flyball_twin.validation.fleet_logs import FleetLog, knee_rps, medians

LANE = "logged"
REPLICAS = 8
CONTEXT_TOKENS = 32_000
LOOK_S = 3600.0
"""How often a replay looks whether all requests are answered; requests end, so it does."""
MODEL = model_named("llama-3.1-8b")
GPU_OF: Mapping[str, str] = {"v021": "a100_sxm", "v030": "h20_sxm"}
"""What each release of the benchmark ran on: v0.2.1 names the A100 of 80 GB; of the two that v0.3.0 names, the one that
needs 3 s for a prompt and 1.25 s for an answer is the H20."""
ANCHORS = (0.4, 2.5)
"""Between what factors on its peak a GPU without kernel tables is looked for."""
SCHEDULING = Scheduling(policy=BatchPolicy.PREFILL_FIRST, prefix_cache=True)
"""Those versions make a step's batch when the one before has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a variant of the log chose an engine, and what HAProxy calls that."""

    balance: str
    """As the twin's gateway takes it."""
    haproxy: str
    """As HAProxy's configuration says it."""
    because: str


ROUTES: Mapping[str, Route] = {
    "naive": Route(
        balance="random(1)",
        haproxy="balance random(1)",
        because="a Kubernetes service draws an endpoint for each connection",
    ),
    "aibrix_naive_7": Route(
        balance="random(2)",
        haproxy="balance random(2)",
        because="Envoy's default, least request: the less loaded of two drawn",
    ),
    "aibrix_naive": Route(
        balance="random(2)",
        haproxy="balance random(2)",
        because="Envoy's default, least request: the less loaded of two drawn",
    ),
    "ps_naive": Route(
        balance="hash",
        haproxy="balance hdr(x-user-id), hash-type consistent",
        because="a router that hashes the user onto a ring",
    ),
}
"""The variants whose routing HAProxy could do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """Why a variant is not predicted: a short key for counting, and a sentence."""

    reason: str
    because: str


_OFFLOADED = Beyond(
    reason="fleet_kv_in_host_memory", because="its engines keep KV in host memory, which the twin does not model"
)
_SHARED = Beyond(
    reason="fleet_kv_shared", because="its engines share a distributed KV cache, which the twin does not model"
)
NOT_EXPLAINED = Beyond(reason="fleet_routing_unknown", because="nobody told how this variant routes")
BEYOND: Mapping[str, Beyond] = {
    "ps_stack": _OFFLOADED,
    "ps_stack_high_low": _OFFLOADED,
    "ps_stack_low_high": _OFFLOADED,
    "aibrix_kvcache_dram": _OFFLOADED,
    "aibrix_high_low": _SHARED,
    "aibrix_kvcache_external": _SHARED,
    "aibrix_naive_prefix_routing": Beyond(
        reason="fleet_prefix_routing",
        because="its router looks for the engine that has the prefix, which HAProxy cannot",
    ),
}
"""The variants that are not predicted, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What the twin makes of a log: the median time to first token by offered rate, and where the knee is."""

    ttft_s: Mapping[float, float]
    """Over all seeds."""
    knee_rps: float | None
    knees_rps: tuple[float | None, ...]
    """Of each seed by itself."""
    gpu: str
    compute: float | None
    """Factor on the GPU's peak compute that the lowest rate gave; None where kernel tables did."""


def engine_for(log: FleetLog) -> tuple[EngineModel, float | None]:
    """An engine of the fleet; and the factor on its peak compute, where the log's lowest rate had to give it."""
    gpu = gpu_named(GPU_OF.get(log.release, "a100_sxm"))
    engine = EngineModel(gpu=gpu, model=MODEL, max_active_requests=256, max_batched_tokens=CONTEXT_TOKENS)
    if log.release in GPU_OF and kernel_file_of(gpu).gemm:
        return engine, None
    unloaded_s = log.median_ttfts()[log.rates_rps[0]]
    prompt = log.requests[0].prompt_tokens
    prefill_s = unloaded_s - engine.path_s(prompt)
    low, high = ANCHORS
    for _ in range(30):
        factor = (low * high) ** 0.5
        if _computing(engine, factor).cost(FLASH_ATTN).step_s(0, 0, [(0, prompt)]) > prefill_s:
            low = factor
        else:
            high = factor
    return _computing(engine, factor), factor


def _computing(engine: EngineModel, factor: float) -> EngineModel:
    gpu = replace(engine.gpu, bf16_flops_per_s=engine.gpu.bf16_flops_per_s * factor)
    return replace(engine, gpu=gpu)


def predict(log: FleetLog, route: Route, seeds: tuple[int, ...]) -> Predicted:
    """Serve the log once for each seed, which draws engines, or renames the users that are hashed."""
    engine, factor = engine_for(log)
    pairs: list[tuple[float, float]] = []
    knees: list[float | None] = []
    for seed in seeds:
        made = _ttfts(log, route, seed, engine)
        pairs += made
        knees.append(knee_rps(medians(made)))
    ttft_s = medians(pairs)
    return Predicted(
        ttft_s=ttft_s, knee_rps=knee_rps(ttft_s), knees_rps=tuple(knees), gpu=engine.gpu.key, compute=factor
    )


def _ttfts(log: FleetLog, route: Route, seed: int, engine: EngineModel) -> list[tuple[float, float]]:
    """Offered rate and time to first token of each request."""
    names = [EngineId(f"replica-{index}") for index in range(REPLICAS)]
    engines = [Engine(name, engine, FLASH_ATTN.name, scheduling=SCHEDULING) for name in names]
    lanes = (LaneRule(lane=LANE, priority=0, max_wait_s=0.0),)
    gateway = Gateway(names, lanes, route.balance, seed=seed)
    made: list[tuple[float, float]] = []

    def record(outcome: Outcome) -> None:
        made.append((log.requests[outcome.request.id].rate_rps, outcome.ttft_s))

    requests = log.workload(lane=LANE, seed=seed)
    fleet = Fleet.single(engines, gateway, requests, record=record)
    while len(made) < len(requests):
        fleet.run_until(fleet.now_s + LOOK_S)
    return made
