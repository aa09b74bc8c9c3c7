"""From a scenario to what runs: its traffic and its fleets. Both are functions of the scenario and a seed.

Every fleet built from a scenario and a seed is asked the same: an ungoverned one beside a governed one too, but for
sessions, whose steps come when the answers before them have. Refuses to run anything, and to govern.
"""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from zlib import crc32

from flyball_twin.engine.engine import Engine
from flyball_twin.engine.scheduling import Scheduling, scheduling_of
from flyball_twin.fleet.fleet import Fleet, Pool
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Record
from flyball_twin.physics import EngineModel, hardware_of
from flyball_twin.scenario.model import (
    DiurnalSource,
    EnginePlan,
    MmppSource,
    PoolPlan,
    Scenario,
    SessionSource,
    Stream,
    TraceSource,
)
from flyball_twin.scenario.registries import model_of
from flyball_twin.traffic.asking import Draft, play_diurnal, play_mmpp, play_trace
from flyball_twin.traffic.files import find_trace
from flyball_twin.traffic.lots import Lots
from flyball_twin.traffic.recorded import read_sessions
from flyball_twin.traffic.seam import Traffic
from flyball_twin.traffic.sessions import DrawnPlans, RecordedPlans, SessionStream
from flyball_twin.traffic.streams import Asking, Merged, OpenStream
from flyball_twin.traffic.traces import open_trace


def build_traffic(scenario: Scenario, seed: int) -> Merged:
    """The requests of a run. Raises `Rejected`, with file and row, for a trace that cannot be played."""
    return Merged([_stream(scenario, index, stream, seed) for index, stream in enumerate(scenario.streams)])


def build_fleet(
    scenario: Scenario, seed: int, record: Record | None = None, *, traffic: Traffic | None = None
) -> Fleet:
    """A fleet at its defaults, at time 0, with the scenario's requests and faults to come.

    `record` is told what becomes of each request, `traffic` takes the place of the scenario's. Raises `Rejected` as
    `build_traffic`, and for engines whose model does not fit their GPUs.
    """
    pools = [_pool(scenario, plan, seed) for plan in scenario.pools]
    asked = traffic if traffic is not None else build_traffic(scenario, seed)
    return Fleet(pools, asked, scenario.faults, record=record)


def engine_model(scenario: Scenario, plan: EnginePlan) -> EngineModel:
    """What an engine is. Raises `Rejected` for names or a layout that there is not."""
    gpu, kernels = hardware_of(plan.gpu, scenario.folder)
    return EngineModel(
        gpu=gpu,
        kernels=kernels,
        model=model_of(plan.model, scenario.folder),
        backend=plan.backend,
        tensor_parallel=plan.tensor_parallel,
        expert_parallel=plan.expert_parallel,
        weights=plan.weights,
        kv_cache=plan.kv_cache,
        max_active_requests=plan.max_active_requests,
        max_batched_tokens=plan.max_batched_tokens,
        draft_tokens=plan.draft_tokens,
        memory_share=plan.memory_share,
        cold_start_s=plan.cold_start_s,
    )


def scheduling(plan: EnginePlan) -> Scheduling:
    """How an engine schedules."""
    return replace(
        scheduling_of(plan.backend),
        priority=plan.priority,
        prefix_cache=plan.prefix_cache,
        draft_acceptance=plan.draft_acceptance,
    )


def _pool(scenario: Scenario, plan: PoolPlan, seed: int) -> Pool:
    engines = tuple(
        Engine(one.engine, engine_model(scenario, one), one.variant, scheduling=scheduling(one)) for one in plan.engines
    )
    # Of a pool's own, so that two pools' draws have nothing to do with each other.
    draws = crc32(f"{seed}/{plan.pool}".encode())
    gateway = Gateway(
        [engine.id for engine in engines], plan.lanes, plan.balance, seed=draws, timeouts_s=plan.timeouts_s
    )
    return Pool(id=plan.pool, engines=engines, gateway=gateway)


def _stream(scenario: Scenario, index: int, stream: Stream, seed: int) -> Asking:
    salt = f"{seed}/{index}"
    priorities = {(str(pool.pool), rule.lane): rule.priority for pool in scenario.pools for rule in pool.lanes}
    pools = {str(pool): share for pool, share in stream.pools.items()}
    lots = Lots(pools, stream.lanes, priorities, salt)
    if isinstance(stream.source, SessionSource):
        return _sessions(scenario, index, stream, stream.source, lots)
    drafts = _drafts(scenario, stream.source, Random(f"{salt}/source"), stream.to_s - stream.from_s)
    return OpenStream(index, drafts, lots, stream.from_s, stream.to_s)


def _drafts(
    scenario: Scenario, source: TraceSource | MmppSource | DiurnalSource, rng: Random, until_s: float
) -> Iterator[Draft]:
    if isinstance(source, MmppSource):
        return play_mmpp(source, rng, until_s)
    if isinstance(source, DiurnalSource):
        return play_diurnal(source, rng)
    return play_trace(source, open_trace(find_trace(source.trace, scenario.folder)), rng, until_s)


def _sessions(scenario: Scenario, index: int, stream: Stream, source: SessionSource, lots: Lots) -> SessionStream:
    if source.trace:
        recorded = read_sessions(find_trace(source.trace, scenario.folder))
        plans: RecordedPlans | DrawnPlans = RecordedPlans(recorded, source.longest_tokens)
    else:
        plans = DrawnPlans(source)
    return SessionStream(index, plans, source.sessions_per_s, lots, (stream.from_s, stream.to_s))
