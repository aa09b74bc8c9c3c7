"""Kernel choice made real: drain, relaunch, warm, ramp, one engine at a time.

Attention backends bind at load, so a variant changes only with a new incarnation. The
engine's weight goes to zero first; when it is empty, or the drain has lasted too long, its
receiver is told to restart; when the new incarnation has attached and shows telemetry, it
serves again and is watched as a canary beside its peers.
"""

import numpy as np

from flyball_controller.machine.features import Measured
from flyball_controller.machine.guard import Rails
from flyball_controller.machine.records import Recorder
from flyball_controller.machine.state import (
    DRAINING,
    RELAUNCHING,
    SERVING,
    WARMING,
    Canary,
    EngineState,
    PoolState,
    Relaunch,
)
from flyball_core.inputs import Mode
from flyball_core.knobs import VARIANT
from flyball_core.outputs import RecordKind

LEAST_DRAIN_S = 3.0
"""Work on its way when the weight went to zero arrives within this time."""

BARRED_S = 3600.0
"""How long a variant whose canary failed is not tried again."""


def begin(
    pool: PoolState, engine: EngineState, variant: str, rails: Rails, decision: str, *, rollback: bool = False
) -> None:
    """Start the way of one engine into `variant`."""
    engine.phase = DRAINING
    pool.relaunches.append(
        Relaunch(
            engine=engine.engine,
            variant=variant,
            before=engine.variant,
            phase=DRAINING,
            since_s=rails.now_s,
            decision=decision,
            ends=engine.incarnation,
            rollback=rollback,
        )
    )


def advance(pool: PoolState, measured: Measured, rails: Rails, recorder: Recorder) -> None:
    """Move every engine in change on, as far as this tick allows."""
    for change in list(pool.relaunches):
        engine = pool.engines.get(change.engine)
        if engine is None:
            pool.relaunches.remove(change)
            continue
        if change.phase == DRAINING:
            _drain(change, engine, rails)
        elif change.phase == RELAUNCHING:
            _relaunch(pool, change, engine, rails, recorder)
        else:
            _warm(pool, change, engine, rails, recorder)
    if pool.mode is not Mode.CONTROL:
        pool.canary = None  # what a canary's failure asks for is not done in other modes
    elif pool.canary is not None and rails.now_s >= pool.canary.until_s:
        _judge_canary(pool, pool.canary, measured, rails, recorder)


def _drain(change: Relaunch, engine: EngineState, rails: Rails) -> None:
    lasted = rails.now_s - change.since_s
    empty = engine.row is not None and engine.row[0] == 0 and engine.row[1] in (0, None)
    if (lasted >= LEAST_DRAIN_S and empty) or lasted >= rails.document.guard.drain_timeout_s:
        change.phase = engine.phase = RELAUNCHING
        change.since_s = rails.now_s
        change.ends = engine.incarnation
        engine.wanted[VARIANT] = change.variant
        engine.holding.must_publish, engine.holding.nack = True, ""
        engine.holding.decision = change.decision


def _relaunch(pool: PoolState, change: Relaunch, engine: EngineState, rails: Rails, recorder: Recorder) -> None:
    back = engine.attached and engine.incarnation != change.ends
    if back and engine.variant == change.variant:
        change.phase = engine.phase = WARMING
        change.since_s = rails.now_s
        engine.wanted.pop(VARIANT, None)
        return
    refused = bool(engine.holding.nack)
    if refused or rails.now_s - change.since_s >= rails.document.guard.relaunch_timeout_s:
        why = f"refused: {engine.holding.nack}" if refused else "did not come back in time"
        _give_up(pool, change, engine, rails, recorder, why)


def _give_up(
    pool: PoolState, change: Relaunch, engine: EngineState, rails: Rails, recorder: Recorder, why: str
) -> None:
    recorder.note(
        RecordKind.ALARM, change.decision, f"{engine.engine} into {change.variant}: {why}", target=engine.engine
    )
    engine.wanted.pop(VARIANT, None)
    _end(pool, change, engine, rails)


def _end(pool: PoolState, change: Relaunch, engine: EngineState, rails: Rails) -> None:
    engine.phase = SERVING
    engine.restarted_s = rails.now_s
    pool.relaunches.remove(change)


def _warm(pool: PoolState, change: Relaunch, engine: EngineState, rails: Rails, recorder: Recorder) -> None:
    if engine.engine not in rails.fresh or engine.row_tick != pool.tick or not engine.attached:
        if rails.now_s - change.since_s >= rails.document.guard.relaunch_timeout_s:
            _give_up(pool, change, engine, rails, recorder, "came back, but shows no telemetry")
        return
    engine.smooth = []
    _end(pool, change, engine, rails)
    if not change.rollback:
        pool.canary = Canary(
            engine=engine.engine,
            variant=change.variant,
            before=change.before,
            until_s=rails.now_s + rails.document.guard.canary_s,
            decision=change.decision,
        )


def _judge_canary(pool: PoolState, canary: Canary, measured: Measured, rails: Rails, recorder: Recorder) -> None:
    pool.canary = None
    tpot = dict(zip((e.engine for e in measured.engines), measured.columns["tpot_s"].tolist(), strict=True))
    own = tpot.get(canary.engine, np.nan)
    peers = [
        tpot[e.engine]
        for e, usable in zip(measured.engines, measured.usable.tolist(), strict=True)
        if usable and e.engine != canary.engine and not e.degraded and tpot[e.engine] > 0
    ]
    tolerance = rails.document.guard.canary_tolerance
    median = float(np.median(peers)) if peers else np.inf
    if not own > median * (1.0 + tolerance):
        return
    pool.barred[canary.variant] = rails.now_s + BARRED_S
    recorder.note(
        RecordKind.ALARM,
        canary.decision,
        f"canary {canary.engine} in {canary.variant} failed: TPOT {own * 1e3:.1f} ms, peers {median * 1e3:.1f} ms",
        target=canary.engine,
    )
    engine = pool.engines.get(canary.engine)
    if engine is not None and engine.phase == SERVING:
        begin(pool, engine, canary.before, rails, canary.decision, rollback=True)
