"""Alarms that telemetry and claims give rise to: clocks that are wrong, engines unheard of, owners that contend.

Each is raised when it begins, not again while it lasts, and only so often, whatever comes in; several of one tick make
one record. Nothing here moves a knob: what is stale, and what may then happen, is `features` and `guard`.
"""

from collections.abc import Sequence

from flyball_controller.machine.records import Recorder
from flyball_controller.machine.state import SERVING, WARMING, AgentState, ClockReading, PartitionState, PoolState
from flyball_core.outputs import RecordKind

CLOCK_SKEW = "clock_skew"
STALE = "stale"
CONTENDED = "contended"
"""How the summaries of these alarms begin."""

SKEW_S = 30.0
"""A wall clock that is wrong by less is no trouble; a live frame is some seconds old when it is looked at."""

STEP_S = 2.0
"""A wall clock that moves otherwise than the agent's monotonic one by less, between two ticks, was only disciplined."""

QUIET_TICKS = 60
"""The same is not told of the same agent more often than this."""

MANY_CLAIMS = 3
CLAIMS_WITHIN_S = 60.0
"""So many claims within this time of the machine's are no change of owner."""

MAX_NAMED = 8
"""Most agents or engines that an alarm names."""


def look_at_telemetry(
    partition: PartitionState, pool: PoolState, fresh: frozenset[str], stale_ticks: int, recorder: Recorder
) -> None:
    """Tell of clocks that have become wrong, and of engines whose telemetry has just become too old to go by."""
    if wrong := _wrong_clocks(partition, pool):
        recorder.note(RecordKind.ALARM, recorder.decision, f"{CLOCK_SKEW}: {_some(wrong)}", features=pool.features)
    if silent := _newly_silent(pool, fresh):
        summary = f"{STALE}: no telemetry of {_some(silent)} for more than {stale_ticks} ticks: nothing may raise risk"
        target = silent[0] if len(silent) == 1 else ""
        recorder.note(RecordKind.ALARM, recorder.decision, summary, target=target, features=pool.features)


def look_at_claims(state: PartitionState, owner: str, offset: int) -> None:
    """Keep count of claims, and tell every pool once when they come too often."""
    since_s = state.time_s - CLAIMS_WITHIN_S
    recent = [claim for claim in state.claims if claim[0] > since_s][1 - MANY_CLAIMS :]
    state.claims = [*recent, (state.time_s, owner)]
    many = len(state.claims) >= MANY_CLAIMS
    if many and not state.contended:
        owners = _some(sorted({name for _, name in state.claims}))
        often = f"{MANY_CLAIMS} claims of partition {state.partition} within {CLAIMS_WITHIN_S:.0f} s"
        summary = f"{CONTENDED}: {often}, by {owners}: two believe that they own it, or one fails again and again"
        for pool in state.pools.values():
            recorder = Recorder(state, pool, offset)
            recorder.note(RecordKind.ALARM, recorder.decision, summary)
    state.contended = many


def _wrong_clocks(partition: PartitionState, pool: PoolState) -> list[str]:
    """Agents whose newest frame shows a fault of their clocks that the one looked at before did not show."""
    wrong = []
    for name, agent in pool.agents.items():
        boot = agent.boots.get(agent.boot)
        if boot is None or boot.newest is None or boot.newest == boot.looked_at:
            continue
        kind, what = _clock_fault(boot.looked_at, boot.newest, partition)
        boot.looked_at = boot.newest
        if kind and kind != agent.clock_fault and _may_tell(agent, kind, pool.tick):
            wrong.append(f"agent {name}: {what}")
        agent.clock_fault, agent.clock = kind, what
    return sorted(wrong)


def _may_tell(agent: AgentState, kind: str, tick: int) -> bool:
    told = agent.clock_told.get(kind)
    if told is not None and tick - told < QUIET_TICKS:
        return False
    agent.clock_told[kind] = tick
    return True


def _clock_fault(before: ClockReading | None, now: ClockReading, partition: PartitionState) -> tuple[str, str]:
    """The kind of fault and the fault in words; both empty if the clocks are as they should be."""
    wall = monotonic = 0.0
    if before is not None:
        wall, monotonic = now.wall_s - before.wall_s, now.monotonic_s - before.monotonic_s
        if monotonic <= 0.0:
            how = f"went back by {-monotonic:.0f} s" if monotonic < 0.0 else "stands still"
            return "monotonic", f"its monotonic clock {how}: no rate can be told from its frames"
        if wall == 0.0:
            return "stopped", "its wall clock stands still"
    ahead_s = now.wall_s - partition.wall_s
    if ahead_s > SKEW_S:
        return "ahead", f"its wall clock is {ahead_s:.0f} s ahead of the controller's"
    # It was filed since the tick before, however long that is ago.
    if now.wall_s < partition.wall_before_s - SKEW_S:
        return "behind", f"its wall clock is {-ahead_s:.0f} s behind the controller's"
    if wall < 0.0:
        return "back", f"its wall clock went back by {-wall:.0f} s"
    if abs(wall - monotonic) > STEP_S:
        return "step", f"its wall clock moved {wall:.0f} s in {monotonic:.0f} s"
    return "", ""


def _newly_silent(pool: PoolState, fresh: frozenset[str]) -> list[str]:
    """Engines that are stale and were not. Who left, or is relaunching, is silent rightly."""
    new = []
    for name, engine in pool.engines.items():
        here = engine.gone_s is None and engine.row_tick >= 0 and engine.phase in (SERVING, WARMING)
        silent = here and name not in fresh
        if silent and not engine.silent:
            new.append(name)
        engine.silent = silent
    return sorted(new)


def _some(items: Sequence[str]) -> str:
    more = len(items) - MAX_NAMED
    return ", ".join(items[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
