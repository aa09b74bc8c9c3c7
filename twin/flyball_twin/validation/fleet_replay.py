"""A fleet's log served again by the twin, for the ways of routing that a front of HAProxy has.

The fleet: 8 replicas of Llama-3.1-8B, each on an A100 of 80 GB, vLLM 0.7.0 with prefix caching, chunked prefill off
and 32,000 tokens of context (`test/regression/v0.2.1` of vllm-project/aibrix). Without chunked prefill that vLLM runs
whole prompts before decodes, which is what the twin calls prefill first. The runs of a variant followed each
other on the same engines, so their caches stay warm from one rate to the next, and the twin plays them as one.
Nothing is fitted. It refuses routes that look into engines' caches: HAProxy cannot.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import LaneRule
from flyball_twin.engine import Engine
from flyball_twin.fleet import Fleet
from flyball_twin.gateway import Gateway
from flyball_twin.outcomes import Outcome
from flyball_twin.physics import FLASH_ATTN, EngineModel, gpu_named, model_named
from flyball_twin.scheduling import BatchPolicy, Scheduling
from flyball_twin.validation.fleet_logs import FleetLog, knee_rps, medians

LANE = "logged"
REPLICAS = 8
LONGEST_TOKENS = 32_000
LOOK_S = 3600.0
"""How often a replay looks whether all requests are answered; requests end, so it does."""
ENGINE = EngineModel(
    gpu=gpu_named("a100_sxm"),
    model=model_named("llama-3.1-8b"),
    max_active_requests=256,
    max_batched_tokens=LONGEST_TOKENS,
)
SCHEDULING = Scheduling(policy=BatchPolicy.PREFILL_FIRST, prefix_cache=True)


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
    "ps_naive": Route(
        balance="hash",
        haproxy="balance hdr(x-user-id), hash-type consistent",
        because="a router that hashes the user onto a ring",
    ),
}
"""The variants whose routing HAProxy could do."""

BEYOND: Mapping[str, str] = {
    "ps_stack_high_low": "its engines keep 120 GB of KV in host memory (LMCache), which the twin does not model",
    "ps_stack_low_high": "its engines keep 120 GB of KV in host memory (LMCache), which the twin does not model",
    "aibrix_high_low": "its engines share a distributed KV cache, which the twin does not model; and many of its "
    "requests are not in the log",
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


def predict(log: FleetLog, route: Route, seeds: tuple[int, ...], engine: EngineModel = ENGINE) -> Predicted:
    """Serve the log once for each seed, which draws engines, or renames the users that are hashed."""
    pairs: list[tuple[float, float]] = []
    knees: list[float | None] = []
    for seed in seeds:
        made = _ttfts(log, route, seed, engine)
        pairs += made
        knees.append(knee_rps(medians(made)))
    ttft_s = medians(pairs)
    return Predicted(ttft_s=ttft_s, knee_rps=knee_rps(ttft_s), knees_rps=tuple(knees))


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
