"""What a scenario asks of its engines, and roughly how much of what they can do that is, without running it.

The requests are drawn as a run would draw them, each session going on as soon as an unhurried engine would have
answered; what engines can do is worked out for the mean request at a full batch. That leaves out bursts and the spread
of lengths, so it tells a light scenario from a rated or overloaded one, and no more. A run says what is so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flyball_core.ids import PoolId
from flyball_twin.engine.knobs import live_knobs
from flyball_twin.engine.speculation import tokens_per_step
from flyball_twin.physics import BLOCK_TOKENS, EngineModel
from flyball_twin.physics.variants import variant_named
from flyball_twin.scenario.building import build_traffic, engine_model
from flyball_twin.scenario.model import EnginePlan, PoolPlan, Scenario, TraceSource
from flyball_twin.traffic.files import find_trace
from flyball_twin.traffic.seam import NEVER
from flyball_twin.traffic.traces import open_trace
from flyball_twin.workload import PREFIX_TOKENS, Request

DRAWN = 100_000
"""Requests that are drawn; a longer run is taken to go on like them."""
ANSWER_S = 0.02
"""What an unhurried engine takes for an output token."""
REMEMBERED = 1_000_000
"""Names of prefixes that are remembered to find shared ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEstimate:
    """What one pool is asked, on average over the time in which requests arrive, by the first seed."""

    pool: PoolId
    engines: int
    gpus: int
    kv_tokens: int
    """Tokens that fit the KV caches of its engines together."""
    longest_tokens: int
    """The longest request that every engine of it takes."""
    requests: int
    """How many arrive in the whole scenario; of a long one extrapolated."""
    too_long: int
    """How many of them do not fit `longest_tokens`."""
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    shared: float
    """Share of the prompt tokens that an earlier prompt began with, in whole runs of a prefix."""
    load: float
    """Offered work over what the engines can do, roughly."""


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    prompt: int = 0
    output: int = 0
    shared: int = 0
    too_long: int = 0


def estimate(scenario: Scenario) -> tuple[PoolEstimate, ...]:
    """What each pool is asked. Raises `Rejected` for a trace or an engine that cannot be built."""
    models = {plan.pool: [engine_model(scenario, engine) for engine in plan.engines] for plan in scenario.pools}
    for model in (model for found in models.values() for model in found):
        live_knobs(model)  # which refuses a budget too small for the batch
    longest = {pool: min(_longest(model) for model in found) for pool, found in models.items()}
    sums, drawn_s = _draw(scenario, {str(pool): tokens for pool, tokens in longest.items()})
    whole = scenario.duration_s / drawn_s
    return tuple(
        _estimate(plan, models[plan.pool], longest[plan.pool], sums[str(plan.pool)], drawn_s, whole)
        for plan in scenario.pools
    )


def notes(scenario: Scenario) -> tuple[str, ...]:
    """What is no mistake, and perhaps not meant."""
    found: list[str] = []
    for index, stream in enumerate(scenario.streams, start=1):
        source = stream.source
        if isinstance(source, TraceSource) and source.splice_s is None and not source.repeat:
            end_s = min(source.to_s, open_trace(find_trace(source.trace, scenario.folder)).end_s)
            played_s, wanted_s = (end_s - source.from_s) / source.speed, stream.to_s - stream.from_s
            if played_s < 0.98 * wanted_s:
                found.append(
                    f"stream {index}: its trace ends after {played_s:.0f} s of {wanted_s:.0f} s; "
                    "`repeat: true` or `splice: ...` would play on"
                )
    return tuple(found)


def _draw(scenario: Scenario, longest: dict[str, int]) -> tuple[dict[str, _Sum], float]:
    """Sums by pool, and how many seconds of the scenario they are of."""
    traffic = build_traffic(scenario, scenario.seeds[0])
    sums = {pool: _Sum() for pool in longest}
    seen: set[int] = set()
    while (now_s := traffic.next_s()) < NEVER:
        if traffic.taken == DRAWN:
            return sums, now_s
        request = traffic.take()
        one = sums[request.pool]
        one.requests += 1
        one.prompt += request.prompt_tokens
        one.output += request.output_tokens
        one.too_long += request.prompt_tokens + request.output_tokens > longest[request.pool]
        if request.prefix:
            one.shared += _shared(request, seen) * PREFIX_TOKENS
        if request.session:
            traffic.ended(request, now_s + ANSWER_S * request.output_tokens)
    return sums, scenario.duration_s


def _shared(request: Request, seen: set[int]) -> int:
    """Leading names that were seen before; all are seen then."""
    count = next((at for at, name in enumerate(request.prefix) if name not in seen), len(request.prefix))
    if len(seen) < REMEMBERED:
        seen.update(request.prefix[count:])
    return count


def _estimate(
    plan: PoolPlan, models: Sequence[EngineModel], longest: int, asked: _Sum, drawn_s: float, whole: float
) -> PoolEstimate:
    count = max(asked.requests, 1)
    prompt, output = asked.prompt / count, max(asked.output / count, 1.0)
    shared = asked.shared / max(asked.prompt, 1)
    can_do = sum(
        1.0 / _seconds(engine, model, prompt, output, shared)
        for engine, model in zip(plan.engines, models, strict=True)
    )
    return PoolEstimate(
        pool=plan.pool,
        engines=len(plan.engines),
        gpus=sum(engine.tensor_parallel for engine in plan.engines),
        kv_tokens=sum(model.kv_blocks * BLOCK_TOKENS for model in models),
        longest_tokens=longest,
        requests=round(asked.requests * whole),
        too_long=round(asked.too_long * whole),
        prompt_tokens_per_s=asked.prompt / drawn_s,
        output_tokens_per_s=asked.output / drawn_s,
        shared=shared,
        load=asked.requests / drawn_s / can_do,
    )


def _longest(model: EngineModel) -> int:
    return min(model.model.max_context_tokens, model.kv_blocks * BLOCK_TOKENS)


def _seconds(engine: EnginePlan, model: EngineModel, prompt: float, output: float, shared: float) -> float:
    """How long a full engine works for one mean request: its share of decode steps, and what its prefill adds."""
    context = prompt + output / 2.0
    batch = max(1, min(engine.max_active_requests, int(model.kv_blocks * BLOCK_TOKENS / context)))
    cost = model.cost(variant_named(engine.variant))
    step_s = cost.step_s(batch, int(batch * context))
    decode_s = output * step_s / batch / tokens_per_step(engine.draft_tokens, engine.draft_acceptance)
    fresh = prompt * (1.0 - shared) if engine.prefix_cache else prompt
    chunk = max(min(int(fresh), engine.max_batched_tokens - batch), 1)
    behind = int(prompt - chunk / 2.0) if chunk < prompt else 0
    chunk_s = cost.step_s(batch, int(batch * context), ((behind // 2, chunk),)) - step_s
    return decode_s + chunk_s * fresh / chunk
