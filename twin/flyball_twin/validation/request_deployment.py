"""How a logged engine was started: what its publisher says, what its telemetry shows, and vLLM's defaults for the rest.

Caps, budgets and the size of the cache are configuration, not physics: nothing of them is fitted. A log's own
columns do not say them, so the deployments of published logs stand here, and of others is read what can be
seen: a cap as the height at which `running` stays flat while requests wait, the blocks of the cache as the
grid on which its use lies. What cannot be seen is assumed, and said so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flyball_core.errors import Rejected
from flyball_twin.physics import BLOCK_TOKENS, EngineModel, LanguageModel, gpu_named, model_named
from flyball_twin.validation.request_logs import LogKey, RequestLog, TelemetryPoint
from flyball_twin.validation.request_replay import Deployment

DEFAULT_ACTIVE = 256
LARGE_GPU = 70 * 2**30
LARGE_BUDGET, SMALL_BUDGET = 8192, 2048
"""vLLM's defaults: its token budget depends on whether the GPU has 70 GiB."""
WEIGHTS_SHARE = 0.75
"""Of a GPU's memory that weights may take, for what else has to fit."""
GPUS_OF_A_NODE = 8
FLAT_POINTS = 3
"""Seconds for which `running` has to stand at its height to count as capped."""
BY_CHANCE = 0.02
"""How many coarser grids may be expected to hold the cache's uses by chance, for the one found to count."""
FINEST_GRID = 20_000
PERCENT_DIGITS = 2
"""Telemetry gives the use of the cache in percent with two digits; on a grid finer than that nothing is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the publisher of a log says about how it was taken."""

    max_active_requests: int
    max_batched_tokens: int = 2048
    tensor_parallel: int = 1
    ranks: int = 1
    """Data-parallel."""


PUBLISHED: dict[LogKey, Published] = {
    ("RTX4090", "Llama-3.1-8B"): Published(max_active_requests=256),
    ("RTXPRO6000", "Llama-3.1-8B"): Published(max_active_requests=128),
    ("RTXPRO6000", "Qwen3-32B"): Published(max_active_requests=128, tensor_parallel=2),
    ("RTXPRO6000", "Qwen3-30B-A3B-Instruct-2507"): Published(max_active_requests=128, ranks=2),
}
"""`bench/examples/*/vllm/meta.json` of casys-kaist/LLMServingSim: `max_num_seqs`, `max_num_batched_tokens`,
`tensor_parallel_size`, `data_parallel_size`. All are vLLM 0.19, which schedules asynchronously and in chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A deployment, and where its parts come from, in words."""

    deployment: Deployment
    sources: tuple[str, ...]


def deployment_of(log: RequestLog) -> Known:
    """How the engine of a log was started. Raises `Rejected` for a GPU or a model that the twin does not know."""
    published = PUBLISHED.get((log.gpu, log.model))
    seen = [point for point in log.telemetry if point.at_s <= _first_third_s(log)]
    if published is not None:
        found, sources = published, ["cap, budget and ranks as published"]
    else:
        found, sources = _assumed(log)
    engine = EngineModel(
        gpu=gpu_named(log.gpu),
        model=_on_one_rank(model_named(log.model), found.ranks),
        tensor_parallel=found.tensor_parallel,
        max_active_requests=found.max_active_requests,
        max_batched_tokens=found.max_batched_tokens,
    )
    blocks = blocks_seen([point.kv_share for point in seen])
    if blocks is None:
        sources.append(f"{engine.kv_blocks} KV blocks beside the weights by memory")
    else:
        engine = with_blocks(engine, blocks)
        sources.append(f"{blocks} KV blocks by the grid of the cache's use in the first third")
    return Known(deployment=Deployment(engine=engine, ranks=found.ranks), sources=tuple(sources))


def _first_third_s(log: RequestLog) -> float:
    """When the last request of the first third came."""
    return log.requests[max(0, log.first_third - 1)].queued_s


def _assumed(log: RequestLog) -> tuple[Published, list[str]]:
    cap = cap_seen(log.telemetry)
    budget = LARGE_BUDGET if gpu_named(log.gpu).hbm_bytes >= LARGE_GPU else SMALL_BUDGET
    gpus = _least_gpus(log)
    said = f"{cap} requests where `running` stays flat" if cap else f"{DEFAULT_ACTIVE} requests assumed"
    found = Published(max_active_requests=cap or DEFAULT_ACTIVE, max_batched_tokens=budget, tensor_parallel=gpus)
    return found, [
        f"cap: {said}",
        f"budget: {budget} tokens assumed, vLLM's default",
        f"tensor parallel {gpus} assumed: the fewest GPUs that hold the weights",
    ]


def _least_gpus(log: RequestLog) -> int:
    gpu, model = gpu_named(log.gpu), model_named(log.model)
    gpus = 1
    while gpus < GPUS_OF_A_NODE and model.weight_bytes_in("bf16") / gpus > WEIGHTS_SHARE * gpu.hbm_bytes:
        gpus *= 2
    return gpus


def cap_seen(points: Sequence[TelemetryPoint]) -> int | None:
    """The request cap, if the telemetry shows one: the most that ran, if it ran for long while others waited.

    A full cache flattens nothing: what fits it depends on who is in it.
    """
    waiting = [point.running for point in points if point.waiting and point.kv_share < 1.0]
    most = max(waiting, default=0)
    return most if most and waiting.count(most) >= FLAT_POINTS else None


def blocks_seen(shares: Sequence[float]) -> int | None:
    """How many blocks a KV cache has, by its use at several times: the coarsest grid on which all of them lie.

    None if too little is seen: the cache is not reported, or too fine for the digits that telemetry gives.
    """
    partial = {share for share in shares if 0.0 < share < 1.0}
    tolerance = 0.501 * 10.0 ** -(PERCENT_DIGITS + 2)
    for blocks in range(1, FINEST_GRID if partial else 0):
        if all(abs(round(share * blocks) / blocks - share) <= tolerance for share in partial):
            # On a fine grid everything lies: how many of those up to this one would hold them by chance.
            by_chance = (2.0 * tolerance * blocks) ** len(partial) * blocks / (len(partial) + 1)
            return blocks if by_chance < BY_CHANCE else None
    return None


def with_blocks(engine: EngineModel, blocks: int) -> EngineModel:
    """The same engine with room for just that many KV blocks. Raises `Rejected` below one."""
    if blocks < 1:
        raise Rejected(f"an engine has at least one KV block, not {blocks}")
    room = engine.gpu.hbm_bytes * engine.memory_share - engine.weight_bytes
    # Half a block more, so that rounding cannot cost one.
    return replace(engine, reserved_bytes=room - (blocks + 0.5) * BLOCK_TOKENS * engine.kv_bytes_per_token)


def _on_one_rank(model: LanguageModel, ranks: int) -> LanguageModel:
    """The model as one of several data-parallel ranks has it, which hold the experts together.

    Each holds its share of the experts and computes them for all ranks: as many choices fall on it as its own
    tokens make, on so many fewer experts. What passes between the GPUs is not modelled.
    """
    if model.experts is None or ranks == 1:
        return model
    return replace(model, experts=replace(model.experts, experts=model.experts.experts // ranks))
