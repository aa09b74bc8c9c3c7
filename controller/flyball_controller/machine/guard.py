"""The guard: what of a proposal may happen. Policies propose, the guard disposes.

Bounds, slew, dwell, dead-band, change budget, canary, overrides, pause and staleness live
here and nowhere else, so no policy can reach around them. Dwell and budget bind what
raises risk; backing off is always allowed, within bounds and slew.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from flyball_controller.machine.state import SERVING, EngineState, PoolState
from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import VARIANT, WEIGHT, KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Verdict
from flyball_policies.document import KnobRule, PolicyDocument, WeightsRule

ACCEPTED = "accepted"
OVERRIDE = "override"
RETURN = "override-return"
"""Under this name a knob goes back to where it was before it was pinned."""
"""The policy name of what an operator pinned."""

LEAD_IN = "bounds"
"""The policy name of what leads a setting back within its bounds."""

WHOLE_STEP_S = 1.0
"""How often a whole number may move by one where its slew allows less."""

_NO_RULE = KnobRule()

_QUIET = frozenset({"dead_band", "no_change"})
"""Rules whose stops are not worth a record."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """The guard's answers for one tick. `stopped` holds only what was not stopped so before."""

    accepted: tuple[Verdict, ...]
    stopped: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Rails:
    """What the guard measures against at one tick."""

    document: PolicyDocument
    now_s: float
    interval_s: float
    fresh: frozenset[str]
    """Engines with telemetry new enough."""


def weight_spec(document: PolicyDocument) -> KnobSpec:
    """The routing weight as a knob."""
    return _weight_spec(document.weights)


@lru_cache(maxsize=64)
def _weight_spec(rule: WeightsRule) -> KnobSpec:
    return KnobSpec(
        name=WEIGHT,
        knob_class=KnobClass.ROUTING,
        kind=KnobKind.INTEGER,
        safe=rule.nominal,
        minimum=rule.minimum,
        maximum=rule.maximum,
    )


def spec_of(engine: EngineState, knob: str, document: PolicyDocument) -> KnobSpec | None:
    """The knob's spec on this engine; None if it has no such knob."""
    return weight_spec(document) if knob == WEIGHT else engine.knobs.get(knob)


def bounds_of(spec: KnobSpec, document: PolicyDocument) -> tuple[float, float]:
    """Lowest and highest value that both engine and operator allow.

    Where the operator's bounds lie outside the engine's, the engine's nearest bound holds.
    """
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    rule = document.knobs.get(spec.name, _NO_RULE)
    lower = low if rule.minimum is None else min(max(low, rule.minimum), high)
    upper = high if rule.maximum is None else max(min(high, rule.maximum), lower)
    if spec.kind is KnobKind.INTEGER and math.isfinite(lower) and math.isfinite(upper):
        lower = math.ceil(lower)
        upper = max(math.floor(upper), lower)
    return lower, upper


def lead_in(pool: PoolState, document: PolicyDocument, engines: Iterable[str]) -> list[Proposal]:
    """Proposals for settings of these engines that stand outside their bounds, as after a stricter document."""
    found = []
    for name in engines:
        engine = pool.engines[name]
        for knob in (WEIGHT, *sorted(engine.wanted)):
            spec, value = spec_of(engine, knob, document), current_value(engine, knob)
            if spec is None or spec.kind not in (KnobKind.INTEGER, KnobKind.REAL) or isinstance(value, (str, bool)):
                continue
            low, high = bounds_of(spec, document)
            if value is None or low <= value <= high or override_for(pool, name, knob) is not None:
                continue
            bound = min(max(value, low), high)
            found.append(
                Proposal(
                    policy=LEAD_IN,
                    kind=TargetKind.ENGINE,
                    target=name,
                    knob=knob,
                    value=int(bound) if spec.kind is KnobKind.INTEGER else bound,
                    reason=f"{value} is outside {low:g} to {high:g}",
                )
            )
    return found


def current_value(engine: EngineState, knob: str) -> Value | None:
    """What the engine is wanted to hold now."""
    if knob == WEIGHT:
        return engine.weight
    if knob == VARIANT:
        return engine.variant
    return engine.wanted.get(knob)


def raises_risk(spec: KnobSpec, before: Value | None, value: Value) -> bool:
    """Whether a change adds risk: more load on an engine, or a restart."""
    if spec.knob_class is KnobClass.RESTART or isinstance(before, (str, bool)) or isinstance(value, (str, bool)):
        return True
    return before is None or value > before


def judge(pool: PoolState, proposals: list[Proposal], rails: Rails) -> Ruling:
    """Rule on every proposal, in order; a knob moves at most once a tick."""
    accepted: list[Verdict] = []
    stopped: list[Verdict] = []
    moved: set[str] = set()
    restarts = 0
    for proposal in proposals:
        where = f"{proposal.target}/{proposal.knob}"
        verdict = _rule(pool, proposal, rails, restarts)
        if verdict.rule == "unknown":
            where = f"{proposal.policy} unknown"  # once for each policy: there is no end to names that are none
        if verdict.allowed is not None and where in moved:
            verdict = _stop(
                proposal, verdict.before, "one_change", "another change of this knob was accepted this tick"
            )
        if verdict.allowed is not None:
            accepted.append(verdict)
            moved.add(where)
            pool.stopped.pop(where, None)
            restarts += proposal.knob == VARIANT
            _account(pool, verdict, rails)
        elif verdict.rule not in _QUIET and pool.stopped.get(where) != verdict.rule:
            pool.stopped[where] = verdict.rule
            stopped.append(verdict)
    return Ruling(tuple(accepted), tuple(stopped))


def _stop(proposal: Proposal, before: Value | None, rule: str, reason: str) -> Verdict:
    return Verdict(proposal=proposal, before=before, allowed=None, rule=rule, reason=reason)


def _rule(pool: PoolState, proposal: Proposal, rails: Rails, restarts: int) -> Verdict:
    engine = pool.engines.get(proposal.target) if proposal.kind is TargetKind.ENGINE else None
    spec = None if engine is None else spec_of(engine, proposal.knob, rails.document)
    if engine is None or spec is None:
        return _stop(proposal, None, "unknown", f"{proposal.target} has no knob {proposal.knob!r}")
    before = current_value(engine, proposal.knob)
    pin = override_for(pool, engine.engine, proposal.knob)
    pinned = pin is not None and proposal.policy == f"{OVERRIDE}:{pin}"
    refusal = _invalid(spec, proposal.value)
    if refusal:
        return _stop(proposal, before, "invalid", refusal)
    if pin is not None and not pinned:
        return _stop(proposal, before, "override", f"pinned by override {pin}")
    if spec.knob_class is KnobClass.RESTART:
        reason = _restart_stop(pool, engine, proposal, rails, restarts, pinned=pinned)
        if reason:
            return _stop(proposal, before, *reason)
        return Verdict(
            proposal=proposal, before=before, allowed=proposal.value, rule=ACCEPTED, reason="within all rails"
        )
    return _move(pool, engine, spec, proposal, before, rails, pinned=pinned)


def _invalid(spec: KnobSpec, value: Value) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{spec.name} cannot be {value}"
    if spec.kind in (KnobKind.INTEGER, KnobKind.REAL):
        return f"{spec.name} takes a number, not {value!r}" if isinstance(value, (str, bool)) else ""
    return spec.refuse(value) or ""


def override_for(pool: PoolState, engine: str, knob: str) -> str | None:
    """The id of the override that pins this knob: an engine's own before its pool's, the last set before the others."""
    if not pool.overrides:
        return None
    for target in (engine, ""):
        for override_id, override in reversed(pool.overrides.items()):
            if override.knob == knob and override.target == target:
                return override_id
    return None


def _move(
    pool: PoolState,
    engine: EngineState,
    spec: KnobSpec,
    proposal: Proposal,
    before: Value | None,
    rails: Rails,
    *,
    pinned: bool,
) -> Verdict:
    """A live or routing knob: bounds, slew, then what binds only raises."""
    if (
        spec.kind in (KnobKind.CHOICE, KnobKind.FLAG)
        or isinstance(before, (str, bool))
        or isinstance(proposal.value, (str, bool))
    ):
        value: Value = proposal.value
        rule, reason = ACCEPTED, "within all rails"
    else:
        since_s = rails.now_s - engine.changed_s.get(proposal.knob, -math.inf)
        value, rule, reason = _bounded(spec, proposal.value, before, rails, since_s=since_s, pinned=pinned)
    if value == before:
        return _stop(proposal, before, "no_change" if rule == ACCEPTED else rule, reason)
    stop = _freeze(pool, engine, rails, raising=raises_risk(spec, before, value), pinned=pinned)
    if not stop and not pinned:
        small = None if proposal.policy in (LEAD_IN, RETURN) else _small(value, before, rails)
        stop = small or _dwell(pool, engine, spec, before, value, rails)
    if stop:
        return _stop(proposal, before, *stop)
    return Verdict(proposal=proposal, before=before, allowed=value, rule=rule, reason=reason)


def _bounded(
    spec: KnobSpec, wanted: float, before: float | None, rails: Rails, *, since_s: float, pinned: bool
) -> tuple[float, str, str]:
    whole = spec.kind is KnobKind.INTEGER
    low, high = bounds_of(spec, rails.document)
    value, rule, reason = wanted, ACCEPTED, "within all rails"
    if not low <= value <= high:
        value, rule = min(max(value, low), high), "bounds"
        reason = f"{spec.name} stays within {low:g} to {high:g}"
    if before is not None:
        interval = min(max(rails.interval_s, 0.0), 1.0)
        slew = rails.document.guard
        down, up = sorted((before * slew.slew_up**interval, before * slew.slew_down**interval))
        if whole:
            down, up = min(math.ceil(down), before), max(math.floor(up), before)
            if since_s >= WHOLE_STEP_S:  # or a small number could never move
                down, up = min(down, before - 1), max(up, before + 1)
        if not down <= value <= up:
            value, rule = min(max(value, down), up), "slew"
            reason = (
                f"at most x{rails.document.guard.slew_up:g} up and x{rails.document.guard.slew_down:g} down a second"
            )
            # A setting that starts outside the bounds is led into them, never further out.
            value = min(value, high) if before <= high else value
            value = max(value, low) if before >= low else value
    if pinned and rule == ACCEPTED:
        reason = "pinned by an operator"
    return (int(value) if whole else value), rule, reason


def _freeze(
    pool: PoolState, engine: EngineState, rails: Rails, *, raising: bool, pinned: bool
) -> tuple[str, str] | None:
    """What holds a knob still: a pause every way, all else only what raises risk."""
    if pool.paused:
        return "paused", "the pool is paused"
    if not raising:
        return None
    holding = engine.holding
    if rails.now_s < holding.not_before_s:
        wait = holding.not_before_s - rails.now_s
        return "backoff", f"{holding.nack or holding.diverged}; next try in {wait:.0f} s"
    if holding.diverged:
        return "diverged", f"it does not hold what it acknowledged: {holding.diverged}"
    if pinned:
        return None
    if engine.engine not in rails.fresh:
        return "stale", f"no telemetry for more than {rails.document.guard.stale_ticks} ticks"
    if pool.regime.name == "unknown":
        return "unknown_regime", "the regime is unknown"
    return None


def _small(value: Value, before: Value | None, rails: Rails) -> tuple[str, str] | None:
    if isinstance(value, (str, bool)) or isinstance(before, (str, bool)) or before is None:
        return None
    if abs(value - before) < rails.document.guard.dead_band * abs(before):
        return "dead_band", "smaller than the dead-band"
    return None


def _dwell(
    pool: PoolState, engine: EngineState, spec: KnobSpec, before: Value | None, value: Value, rails: Rails
) -> tuple[str, str] | None:
    if not raises_risk(spec, before, value):
        return None
    guard = rails.document.guard
    since = rails.now_s - engine.raised_s.get(spec.name, -math.inf)
    if since < guard.raise_dwell_s:
        return "dwell", f"raised {since:.0f} s ago; at most once in {guard.raise_dwell_s:.0f} s"
    if _spent(pool, rails) >= guard.changes_per_hour:
        return "budget", f"{guard.changes_per_hour} raises in the last hour"
    return None


def _spent(pool: PoolState, rails: Rails) -> int:
    pool.raises_s = [at for at in pool.raises_s if at > rails.now_s - 3600.0]
    return len(pool.raises_s)


def _restart_stop(
    pool: PoolState, engine: EngineState, proposal: Proposal, rails: Rails, restarts: int, *, pinned: bool
) -> tuple[str, str] | None:
    guard = rails.document.guard
    if proposal.knob != VARIANT:
        return "unknown", f"of what needs a restart only {VARIANT!r} can be changed, not {proposal.knob!r}"
    stop = _freeze(pool, engine, rails, raising=True, pinned=pinned)
    if stop:
        return stop
    if proposal.value == engine.variant:
        return "no_change", "it runs that already"
    if engine.phase != SERVING or not engine.attached:
        return "in_change", f"the engine is {engine.phase if engine.attached else 'not attached'}"
    if pool.canary is not None:
        return "canary", f"{pool.canary.engine} is being watched in {pool.canary.variant}"
    away = len(pool.relaunches) + restarts
    if away >= max(1, int(guard.in_change * len(pool.engines))):
        return "in_change", f"{away} of {len(pool.engines)} engines are in change already"
    serving = sum(e.phase == SERVING and name in rails.fresh for name, e in pool.engines.items())
    if serving - 1 < guard.min_serving * len(pool.engines):
        return "min_serving", f"only {serving} of {len(pool.engines)} engines serve"
    if pinned:
        return None
    if rails.now_s < pool.barred.get(str(proposal.value), -math.inf):
        return "barred", f"variant {proposal.value} failed its canary"
    since = rails.now_s - engine.restarted_s
    if since < guard.restart_dwell_s:
        return "dwell", f"restarted {since:.0f} s ago; at most once in {guard.restart_dwell_s:.0f} s"
    if _spent(pool, rails) + 10 > guard.changes_per_hour:
        return "budget", "a restart needs ten of the hour's changes"
    return None


def _account(pool: PoolState, verdict: Verdict, rails: Rails) -> None:
    proposal = verdict.proposal
    engine = pool.engines[proposal.target]
    spec = spec_of(engine, proposal.knob, rails.document)
    engine.changed_s[proposal.knob] = rails.now_s
    if spec is None or verdict.allowed is None or not raises_risk(spec, verdict.before, verdict.allowed):
        return
    engine.raised_s[proposal.knob] = rails.now_s
    pool.raises_s.extend([rails.now_s] * (10 if spec.knob_class is KnobClass.RESTART else 1))
