"""One tick of one pool: read what is due, name the regime, propose, judge, publish, record."""

import math
from collections.abc import Iterator
from types import MappingProxyType

import numpy as np

from flyball_controller.machine import relaunch
from flyball_controller.machine.alarms import look_at_telemetry
from flyball_controller.machine.answers import ask, trip
from flyball_controller.machine.features import Measured, mark_degraded, measure, pool_features, queue_features
from flyball_controller.machine.filing import release_frames
from flyball_controller.machine.guard import (
    OVERRIDE,
    RETURN,
    Rails,
    Ruling,
    current_value,
    judge,
    lead_in,
    override_for,
)
from flyball_controller.machine.knob_table import KnobTable, held
from flyball_controller.machine.orders import document_of
from flyball_controller.machine.publishing import publish, withdraw
from flyball_controller.machine.records import Recorder, pages
from flyball_controller.machine.seams import PolicySlot, Seams
from flyball_controller.machine.state import EngineState, Holding, OutcomeDue, PartitionState, PoolState
from flyball_core.ids import PoolId
from flyball_core.inputs import Mode, Proposal, TargetKind
from flyball_core.knobs import WEIGHT, KnobClass
from flyball_core.outputs import (
    Directive,
    Heartbeat,
    Output,
    RecordKind,
    RoutingTable,
    Snapshot,
    TickRecord,
    Tombstone,
    Verdict,
    compacted_key,
)
from flyball_policies.seam import PoolView

OUTCOME_AFTER_S = 30.0
MAX_OUTCOMES = 64
MAX_SAID = 16
"""Most changes that the summary of an outcome names."""

GONE_AFTER_S = 600.0
"""A target that left, or that nobody heard of, for this long is forgotten."""

MIX_FEATURE = "context_tokens"
"""The feature whose logarithm the change detector watches: it hardly moves with load."""

_OUTCOME_FEATURES = ("tpot_s", "ttft_s", "kv_used_max", "gen_tokens_per_s", "running", "waiting", "queued", "hbm_ratio")


def run_tick(
    partition: PartitionState, pool: PoolState, revision: int, interval_s: float, seams: Seams, *, takeover: bool
) -> list[Output]:
    """Everything one pool answers to one tick."""
    now_s = partition.time_s
    document = document_of(pool.policy_text)
    recorder = Recorder(partition, pool, revision)
    release_frames(pool, now_s, interval_s, takeover=takeover)
    measured = measure(pool, document.guard.stale_ticks)
    fresh = frozenset(e.engine for e, ok in zip(measured.engines, measured.fresh.tolist(), strict=True) if ok)
    look_at_telemetry(partition, pool, fresh, document.guard.stale_ticks, recorder)
    alarm, shifted = _look(pool, measured, document.guard.stale_ticks, seams, now_s, recorder)
    rails = Rails(document=document, now_s=now_s, interval_s=interval_s, fresh=fresh)
    _expire(pool, partition.wall_s, recorder)
    outputs: list[Output] = list(_forget(pool, now_s))
    for engine in pool.engines.values():
        engine.weight = engine.weight or document.weights.nominal
    ruling = Ruling((), ())
    # A relaunch begun in control is brought to its end in any mode: half way, the engine serves nobody.
    governing = pool.mode is Mode.CONTROL or bool(pool.relaunches) or pool.canary is not None
    if governing and not pool.paused:
        relaunch.advance(pool, measured, rails, recorder)
    if pool.mode is not Mode.OBSERVE:
        table = seams.knob_table(pool.pool, measured.engines, document)
        view = view_of(pool, measured, table, now_s)
        ruling = judge(pool, _proposals(pool, view, seams, recorder), rails)
        _apply(pool, ruling, rails, recorder)
        outputs.extend(_snapshot(pool, view, seams, revision))
    version = partition.version(revision)
    told = publish(pool, document, version, recorder.decision, now_s, takeover=takeover) if governing else []
    _record(pool, ruling, told, recorder, now_s, shifted=shifted)
    _outcomes(pool, recorder, now_s)
    outputs.extend(told)
    outputs.extend(pool.notes)
    pool.notes = []
    outputs.append(_tick_record(partition, pool, revision, alarm=alarm))
    outputs.extend(_beat(partition, pool, revision, document.hold_s))
    outputs.extend(_rebases(pool))
    pool.tick += 1
    return outputs


def _beat(partition: PartitionState, pool: PoolState, revision: int, hold_s: float) -> Iterator[Output]:
    """The heartbeat, and an end to the one kept of an earlier epoch."""
    beat = Heartbeat(
        pool=PoolId(pool.pool),
        version=partition.version(revision),
        time_s=partition.time_s,
        wall_s=partition.wall_s,
        hold_s=hold_s,
    )
    yield beat
    key = compacted_key(beat)
    if pool.beat_key not in ("", key):
        yield Tombstone(key=pool.beat_key)
    pool.beat_key = key


def _rebases(pool: PoolState) -> Iterator[Output]:
    """The notices of rebases that were ordered, and an end to those kept of an earlier epoch."""
    for notice in pool.rebases:
        yield notice
        key = compacted_key(notice)
        if pool.rebase_key not in ("", key):
            yield Tombstone(key=pool.rebase_key)
        pool.rebase_key = key
    pool.rebases = []


def _look(
    pool: PoolState, measured: Measured, stale_ticks: int, seams: Seams, now_s: float, recorder: Recorder
) -> tuple[bool, str]:
    """Features, detector, regime; the regime left behind if it changed, else empty."""
    pool.features = pool_features(measured, queue_features(pool, stale_ticks), pool.features)
    mix = pool.features.get(MIX_FEATURE)
    alarm = seams.detector(pool).update(pool.detector, None if mix is None else math.log1p(mix))
    if alarm:
        recorder.note(
            RecordKind.ALARM, recorder.decision, f"the mix changed: {MIX_FEATURE} {mix:.0f}", features=pool.features
        )
    for engine in mark_degraded(measured):
        recorder.note(
            RecordKind.ALARM,
            recorder.decision,
            f"{engine.engine} is degraded: slower than its peers at the same mix",
            target=engine.engine,
            features=pool.features,
        )
    before = pool.regime.name
    changed = seams.namer.name(pool.regime, pool.features, now_s, alarm=alarm)
    return alarm, before if changed else ""


def _expire(pool: PoolState, wall_s: float, recorder: Recorder) -> None:
    for override_id in [name for name, o in sorted(pool.overrides.items()) if o.expires_wall_s <= wall_s]:
        override = pool.overrides.pop(override_id)
        summary = f"override {override_id} of {override.author} on {override.knob} expired: automatic again"
        recorder.note(RecordKind.ORDER, recorder.decision, summary, target=override.target)
    pool.grants = {name: grant for name, grant in pool.grants.items() if grant[1] > wall_s}


def _forget(pool: PoolState, now_s: float) -> list[Output]:
    """Take back what stands for targets that are gone, and forget those gone for long."""
    outputs: list[Output] = []
    for engine in [pool.engines[name] for name in sorted(pool.engines)]:
        if engine.gone_s is not None:
            outputs.extend(_withdrawn(engine.holding))
        silent = not engine.attached and engine.row_tick >= 0 and pool.tick - engine.row_tick >= GONE_AFTER_S
        if silent or _long_gone(engine.gone_s, now_s):
            del pool.engines[engine.engine]
    for gateway in [pool.gateways[name] for name in sorted(pool.gateways)]:
        if gateway.gone_s is not None:
            outputs.extend(_withdrawn(gateway.holding))
        if _long_gone(gateway.gone_s, now_s):
            del pool.gateways[gateway.gateway]
    return outputs


def _withdrawn(holding: Holding) -> Iterator[Output]:
    """Take back what a target that left was told; it is told anew should it return."""
    holding.must_publish = holding.must_publish or bool(holding.key)
    yield from withdraw(holding)


def _long_gone(gone_s: float | None, now_s: float) -> bool:
    return gone_s is not None and now_s - gone_s >= GONE_AFTER_S


def view_of(pool: PoolState, measured: Measured, table: KnobTable, now_s: float) -> PoolView:
    """The pool as policies see it."""
    engines = measured.engines
    settings = {knob: held(engines, knob) for knob in table.floors}
    settings[WEIGHT] = np.array([float(engine.weight) for engine in engines])
    for column in (measured.usable, *measured.columns.values(), *settings.values()):
        column.flags.writeable = False  # what one policy does to its view must not reach the next
    return PoolView(
        pool=pool.pool,
        time_s=now_s,
        regime=pool.regime.name,
        confidence=pool.regime.confidence,
        regime_age_s=now_s - pool.regime.since_s,
        engines=tuple([engine.engine for engine in engines]),
        variants=tuple([engine.variant for engine in engines]),
        choices=table.choices,
        usable=measured.usable,
        columns=MappingProxyType(measured.columns),
        settings=MappingProxyType(settings),
        floors=MappingProxyType(table.floors),
        ceilings=MappingProxyType(table.ceilings),
        features=MappingProxyType(dict(pool.features)),
        document=table.document,
    )


def _proposals(pool: PoolState, view: PoolView, seams: Seams, recorder: Recorder) -> list[Proposal]:
    """What overrides, bounds, policies here, policies outside and overrides that ended ask for, in that order."""
    wanted = _pinned(pool) + lead_in(pool, view.document, _outside(view))
    for slot in seams.slots:
        wanted.extend(_ask(pool, view, slot, recorder))
    for name in sorted(pool.slow):
        wanted.extend(pool.slow[name])
    pool.slow = {}
    return wanted + _returning(pool)


def _outside(view: PoolView) -> list[str]:
    """The engines with a setting outside its bounds, found without going through them one by one."""
    weights = view.settings[WEIGHT]
    outside = (weights < view.document.weights.minimum) | (weights > view.document.weights.maximum)
    for knob, lowest in view.floors.items():
        held = view.settings[knob]
        outside |= (held < lowest) | (held > view.ceilings[knob])
    return [view.engines[i] for i in np.flatnonzero(outside).tolist()]


def _pinned(pool: PoolState) -> list[Proposal]:
    """Overrides as proposals; an engine's own comes before the pool's, the last set before earlier ones."""
    asked: list[Proposal] = []
    for scoped in (True, False):
        for override_id, override in reversed(pool.overrides.items()):
            if bool(override.target) is not scoped:
                continue
            asked.extend(
                Proposal(
                    policy=f"{OVERRIDE}:{override_id}",
                    kind=TargetKind.ENGINE,
                    target=engine,
                    knob=override.knob,
                    value=override.value,
                    reason=f"{override.author}: {override.reason}",
                )
                for engine in ([override.target] if scoped else sorted(pool.engines))
            )
    return asked


def _returning(pool: PoolState) -> list[Proposal]:
    """The way back of knobs that are pinned no longer."""
    asked: list[Proposal] = []
    for name in sorted(name for name, engine in pool.engines.items() if engine.before_pin):
        engine = pool.engines[name]
        for knob in [knob for knob in sorted(engine.before_pin) if override_for(pool, name, knob) is None]:
            value = engine.before_pin[knob]
            if current_value(engine, knob) in (None, value):
                del engine.before_pin[knob]
                continue
            why = "pinned no longer, and no policy asks for anything else"
            asked.append(
                Proposal(policy=RETURN, kind=TargetKind.ENGINE, target=name, knob=knob, value=value, reason=why)
            )
    return asked


def _ask(pool: PoolState, view: PoolView, slot: PolicySlot, recorder: Recorder) -> list[Proposal]:
    """A policy's proposals; if it fails, the baseline's, in the same tick."""
    for policy in (slot.policy, slot.baseline):
        if policy is None or policy.name in pool.quarantined:
            continue
        name = policy.name
        proposals, fault = ask(policy, view, pool.memory.setdefault(name, {}))
        if not fault:
            pool.trips.pop(name, None)
            return proposals
        trip(pool, name, fault, recorder)
    return []


def _apply(pool: PoolState, ruling: Ruling, rails: Rails, recorder: Recorder) -> None:
    """Make what the guard allowed the wanted setting; in `control` only."""
    if pool.mode is not Mode.CONTROL:
        return
    for verdict in ruling.accepted:
        engine = pool.engines[verdict.proposal.target]
        knob, value = verdict.proposal.knob, verdict.allowed
        if value is None:
            continue
        _remember_way_back(engine, verdict)
        if knob == WEIGHT:
            engine.weight = int(value)
        elif engine.knobs[knob].knob_class is KnobClass.RESTART:
            relaunch.begin(pool, engine, str(value), rails, recorder.decision)
        else:
            engine.wanted[knob] = value
            engine.holding.decision = recorder.decision


def _remember_way_back(engine: EngineState, verdict: Verdict) -> None:
    """Keep what a knob was at before it was pinned; forget it once a policy has moved the knob."""
    policy, knob = verdict.proposal.policy, verdict.proposal.knob
    if policy.startswith(f"{OVERRIDE}:"):
        spec = engine.knobs.get(knob)
        restarts = spec is not None and spec.knob_class is KnobClass.RESTART  # no restart that nobody asked for
        if verdict.before is not None and not restarts:
            engine.before_pin.setdefault(knob, verdict.before)
    elif policy != RETURN:
        engine.before_pin.pop(knob, None)


def _snapshot(pool: PoolState, view: PoolView, seams: Seams, revision: int) -> list[Output]:
    asked = tuple(name for name in seams.slow if name not in pool.quarantined)
    if not asked:
        return []
    pool.slow_revision, pool.slow_due = revision, list(asked)
    return [Snapshot(pool=PoolId(pool.pool), tick_revision=revision, policies=asked, view=view)]


def _record(
    pool: PoolState, ruling: Ruling, told: list[Output], recorder: Recorder, now_s: float, *, shifted: str
) -> None:
    """One decision record if anything was decided, stopped or told, or the regime changed."""
    accepted = ruling.accepted if pool.mode is Mode.CONTROL else _first_advised(pool, ruling.accepted)
    keys = tuple(compacted_key(output) for output in told if isinstance(output, (Directive, RoutingTable)))
    verdicts = accepted + ruling.stopped
    if not (verdicts or keys or shifted):
        return
    said = [f"regime {shifted} -> {pool.regime.name}"] if shifted else []
    verb = "" if pool.mode is Mode.CONTROL else "would set "
    for some, told_keys in pages(verdicts, keys):
        said += [_said(verdict, verb) for verdict in some]
        recorder.note(
            RecordKind.DECISION,
            recorder.decision,
            "; ".join(said) or f"told {len(told_keys)} receivers",
            features=pool.features,
            verdicts=some,
            published=told_keys,
        )
        said = []
    if accepted and pool.mode is Mode.CONTROL and len(pool.outcomes) < MAX_OUTCOMES:
        kept = {name: pool.features[name] for name in _OUTCOME_FEATURES if name in pool.features}
        summary = "; ".join([_said(verdict, verb) for verdict in accepted[:MAX_SAID]])
        if len(accepted) > MAX_SAID:
            summary += f"; and {len(accepted) - MAX_SAID} more"
        pool.outcomes.append(OutcomeDue(recorder.decision, now_s + OUTCOME_AFTER_S, summary, kept))


def _said(verdict: Verdict, verb: str) -> str:
    where = f"{verdict.proposal.target} {verdict.proposal.knob}"
    if verdict.allowed is None:
        return f"stopped {where} {verdict.proposal.value} by {verdict.rule}"
    return f"{verb}{where} {verdict.before} -> {verdict.allowed}"


def _first_advised(pool: PoolState, accepted: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    """Of what would be done, what was not advised just so before."""
    new = []
    for verdict in accepted:
        # Beside the key of stops, which every acceptance clears.
        where = f"{verdict.proposal.target}/{verdict.proposal.knob} advised"
        if pool.stopped.get(where) != str(verdict.allowed):
            new.append(verdict)
        pool.stopped[where] = str(verdict.allowed)
    return tuple(new)


def _outcomes(pool: PoolState, recorder: Recorder, now_s: float) -> None:
    """Record what became of decisions whose time has come: the features before, and now."""
    for due in [due for due in pool.outcomes if due.due_s <= now_s]:
        pool.outcomes.remove(due)
        compared = {f"{name}_before": value for name, value in due.features.items()}
        compared |= {name: pool.features[name] for name in due.features if name in pool.features}
        summary = f"{OUTCOME_AFTER_S:.0f} s after: {due.summary}"
        recorder.note(RecordKind.OUTCOME, due.decision, summary, features=compared)


def _tick_record(partition: PartitionState, pool: PoolState, revision: int, *, alarm: bool) -> TickRecord:
    return TickRecord(
        pool=PoolId(pool.pool),
        version=partition.version(revision),
        time_s=partition.time_s,
        wall_s=partition.wall_s,
        inputs_digest=partition.digest,
        mode=pool.mode.value,
        regime=pool.regime.name,
        confidence=pool.regime.confidence,
        alarm=alarm,
        features=pool.features,
        counts=dict(pool.counts),
    )
