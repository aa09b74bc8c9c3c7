"""The state of a pool's owner in words for operators: pure, from the machine's state to messages.

Tells what is wanted, what is held, and what stands between, and judges nothing that the machine does not.
"""

from flyball_controller.machine.filing import LATENESS_S
from flyball_controller.machine.orders import document_of
from flyball_controller.machine.state import (
    UNKNOWN_SKEW_S,
    AgentState,
    EngineState,
    GatewayState,
    Holding,
    PartitionState,
    PoolState,
)
from flyball_controller.owner import Owned
from flyball_core.fencing import Version
from flyball_core.inputs import TargetKind
from flyball_core.knobs import Value
from flyball_proto.codec.inputs import fill_override
from flyball_proto.codec.words import MODES, TARGET_KINDS, fill_knob, fill_setting, fill_version
from flyball_proto.v1 import common_pb2, services_pb2 as pb


def partition_status(owned: Owned) -> pb.PartitionStatus:
    """One partition owned here."""
    return pb.PartitionStatus(
        partition=owned.state.partition,
        epoch=max(owned.epoch, 0),
        inputs_behind=max(owned.end - owned.next_offset, 0),
        ticks=owned.state.ticks,
    )


def pool_status(state: PartitionState, pool: PoolState, tick_s: float) -> pb.PoolStatus:
    """One pool as its owner knows it; `tick_s` is the owner's period."""
    stale_ticks = document_of(pool.policy_text).guard.stale_ticks
    status = pb.PoolStatus(
        pool=pool.pool,
        owner=state.owner,
        epoch=max(state.epoch, 0),
        mode=common_pb2.Mode.ValueType(MODES.number(pool.mode)),
        paused=pool.paused,
        regime=pool.regime.name,
        confidence=pool.regime.confidence,
        partition=state.partition,
        regime_s=state.time_s - pool.regime.since_s,
        time_s=state.time_s,
        wall_s=state.wall_s,
        policy_author=pool.policy_author,
        features=pool.features,
        quarantined=pool.quarantined,
        counts=pool.counts,
        relaunching=[f"{one.engine} to {one.variant}: {one.phase}" for one in pool.relaunches],
    )
    if pool.canary is not None:
        status.relaunching.append(f"{pool.canary.engine} in {pool.canary.variant}: watched as a canary")
    for _, engine in sorted(pool.engines.items()):
        _fill_engine(status.targets.add(), engine, stale=is_stale(pool, engine, stale_ticks))
    for _, gateway in sorted(pool.gateways.items()):
        _fill_gateway(status.targets.add(), gateway)
    for _, override in sorted(pool.overrides.items()):
        fill_override(status.overrides.add(), override)
    for name, agent in sorted(pool.agents.items()):
        _fill_agent(status.agents.add(), name, agent, pool, state.time_s)
        told = status.agents[-1]
        told.stale = not told.HasField("age_s") or told.age_s > stale_ticks * tick_s + LATENESS_S
    return status


def is_stale(pool: PoolState, engine: EngineState, stale_ticks: int) -> bool:
    """Whether the last tick had no telemetry of the engine that is new enough."""
    return pool.tick - 1 - engine.row_tick > stale_ticks


def stale_pool(pool: PoolState) -> bool:
    """Whether no engine of a pool that has some has telemetry new enough."""
    stale_ticks = document_of(pool.policy_text).guard.stale_ticks
    return bool(pool.engines) and all(is_stale(pool, engine, stale_ticks) for engine in pool.engines.values())


def _trouble(holding: Holding, *, attached: bool, stale: bool = False) -> str:
    """The first thing that stands between what is wanted and what is held."""
    if holding.foreign_log:
        return f"holds another log: {holding.foreign_log}"
    if not attached:
        return "not attached"
    if holding.nack:
        return f"nack: {holding.nack}"
    if holding.diverged:
        return f"diverged: {holding.diverged}"
    return "stale" if stale else ""


def _fill_target(told: pb.TargetStatus, kind: TargetKind, name: str, known: EngineState | GatewayState) -> None:
    told.kind = common_pb2.TargetKind.ValueType(TARGET_KINDS.number(kind))
    told.target, told.incarnation, told.attached = name, known.incarnation, known.attached
    fill_setting(told.effective, known.holding.effective)
    _fill_versions(told, known.holding.version, known.holding.acked)


def _fill_versions(told: pb.TargetStatus, version: Version | None, acked: Version | None) -> None:
    if version is not None:
        fill_version(told.told, version)
    if acked is not None:
        fill_version(told.acked, acked)


def _fill_engine(told: pb.TargetStatus, engine: EngineState, *, stale: bool) -> None:
    _fill_target(told, TargetKind.ENGINE, engine.engine, engine)
    fill_setting(told.wanted, engine.wanted)
    told.trouble = _trouble(engine.holding, attached=engine.attached, stale=stale)
    told.stale, told.weight, told.variant = stale, engine.weight, engine.variant
    told.phase, told.degraded = engine.phase, engine.degraded
    for name in sorted(engine.knobs):
        fill_knob(told.knobs.add(), engine.knobs[name])


def _fill_gateway(told: pb.TargetStatus, gateway: GatewayState) -> None:
    _fill_target(told, TargetKind.GATEWAY, gateway.gateway, gateway)
    told.trouble = _trouble(gateway.holding, attached=gateway.attached)
    if gateway.published is not None:
        routes: dict[str, Value] = {}
        for route in gateway.published.routes:
            routes[f"weight:{route.engine}"], routes[f"cap:{route.engine}"] = route.weight, route.in_flight_cap
        fill_setting(told.wanted, routes)


def _fill_agent(told: pb.AgentStatus, name: str, agent: AgentState, pool: PoolState, now_s: float) -> None:
    told.agent, told.boot, told.clock = name, agent.boot, agent.clock
    boot = agent.boots.get(agent.boot)
    if boot is None:
        return
    sender = f"{name}/{agent.boot}/"
    sampled = [engine.row_monotonic_s for engine in pool.engines.values() if engine.source.startswith(sender)]
    sampled += [frame.monotonic_s for frame in boot.pending.values()]
    skew_s = min(boot.skew_s, boot.skew_before_s)
    if sampled and skew_s < UNKNOWN_SKEW_S:  # else it has been silent for so long that its clock is forgotten
        told.age_s = max(0.0, now_s - max(sampled) - skew_s)
