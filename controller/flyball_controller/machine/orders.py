"""Standing orders and answers: what an input other than a frame or tick does to a pool.

All of it is filed at once and acted on at the next tick. Nothing here raises: an order
that cannot be followed is recorded with its reason and changes nothing.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

from flyball_controller.machine.admission import MAX_NAME, answer_fits, fits, overrides_fit, room_for
from flyball_controller.machine.answers import MAX_WORDS
from flyball_controller.machine.filing import MAX_ENGINES
from flyball_controller.machine.guard import bounds_of, spec_of
from flyball_controller.machine.presence import comes_late, falls_back, note_attach, proves_presence
from flyball_controller.machine.records import Recorder
from flyball_controller.machine.state import RELAUNCHING, EngineState, GatewayState, Holding, PoolState
from flyball_core.errors import InvalidDocument
from flyball_core.ids import PoolId
from flyball_core.inputs import (
    Ack,
    AckStatus,
    Attach,
    Grant,
    Intent,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Rebase,
    TargetKind,
)
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobClass, Setting
from flyball_core.outputs import RebaseNotice, RecordKind
from flyball_policies.document import PolicyDocument
from flyball_policies.reading import read_document

FIRST_BACKOFF_S = 5.0
LONGEST_BACKOFF_S = 300.0
MAX_OVERRIDES = 256
INTENTS_OUT_OF_DATE = "intents_out_of_date"
MAX_GATEWAYS = 256
MAX_GRANTS = 256
MAX_REBASES = 64
REBASE_S = 600.0
"""How long a rebase counts for receivers that attach after it."""


@lru_cache(maxsize=64)
def document_of(text: str) -> PolicyDocument:
    """The document of a pool's standing text; the empty text stands for all defaults."""
    return read_document(text) if text else PolicyDocument()


def take_policy(pool: PoolState, body: PolicyText, recorder: Recorder) -> None:
    """A new policy document: taken whole, or refused whole with its place and reason."""
    try:
        document = read_document(body.text)
    except InvalidDocument as error:
        pool.count("policy_refused")
        recorder.note(RecordKind.ORDER, recorder.decision, f"policy of {body.author} refused: {error}", refused=True)
        return
    pool.policy_text, pool.policy_author, pool.mode = body.text, body.author[:MAX_NAME], document.mode
    recorder.note(RecordKind.ORDER, recorder.decision, f"policy of {body.author} in force, mode {document.mode.value}")


def take_order(pool: PoolState, body: Order, recorder: Recorder) -> None:
    """Mode, pause or the end of a quarantine."""
    said = []
    if body.mode is not None:
        pool.mode = body.mode
        said.append(f"mode {body.mode.value}")
    if body.paused is not None:
        pool.paused = body.paused
        said.append("paused" if body.paused else "resumed")
    if body.reset_policy is not None:
        pool.quarantined.pop(body.reset_policy, None)
        pool.trips.pop(body.reset_policy, None)
        said.append(f"policy {body.reset_policy} allowed again")
    why = f": {body.reason}" if body.reason else ""
    recorder.note(RecordKind.ORDER, recorder.decision, f"{body.author}: {', '.join(said) or 'nothing'}{why}")


def take_intent(pool: PoolState, body: Intent) -> None:
    """All standing orders at once, as an owner repeats them; wrong or overtaken ones leave those in force."""
    overrides = [one for one in body.overrides[:MAX_OVERRIDES] if math.isfinite(one.expires_wall_s)]
    if body.as_of < pool.orders_end:
        pool.count(INTENTS_OUT_OF_DATE)
        return
    try:
        document_of(body.policy_text)
    except InvalidDocument:
        pool.count("policy_refused")
        return
    if not overrides_fit(overrides):
        pool.count("intents_refused")
        return
    pool.policy_text, pool.policy_author = body.policy_text, body.policy_author[:MAX_NAME]
    pool.mode, pool.paused = body.mode, body.paused
    pool.overrides = {override.override_id: override for override in overrides}


def take_override(pool: PoolState, body: OverrideSet, recorder: Recorder) -> None:
    """Pin a knob, if an engine in its scope has it and the value is within its bounds."""
    reason = _override_refusal(pool, body)
    if reason:
        pool.count("override_refused")
        summary = f"override {body.override_id} of {body.author} refused: {reason}"
        recorder.note(RecordKind.ORDER, recorder.decision, summary, refused=True)
        return
    pool.overrides.pop(body.override_id, None)  # their order is that of their setting
    pool.overrides[body.override_id] = body
    where = body.target or "the pool"
    summary = f"{body.author} pins {body.knob} of {where} at {body.value}: {body.reason}"
    recorder.note(RecordKind.ORDER, recorder.decision, summary, target=body.target)


def _override_refusal(pool: PoolState, body: OverrideSet) -> str:
    document = document_of(pool.policy_text)
    if body.override_id not in pool.overrides and len(pool.overrides) >= MAX_OVERRIDES:
        return f"there are {MAX_OVERRIDES} overrides already"
    if not overrides_fit([*pool.overrides.values(), body]):
        return "its words and those of the others are more than an intent can repeat"
    if not math.isfinite(body.expires_wall_s):
        return "its expiry is not a time"
    engines = [pool.engines[body.target]] if body.target in pool.engines else list(pool.engines.values())
    if body.target and body.target not in pool.engines:
        return f"no engine {body.target!r} in this pool"
    specs = [spec for engine in engines if (spec := spec_of(engine, body.knob, document)) is not None]
    if not specs:
        return f"no engine in its scope has a knob {body.knob!r}"
    for spec in specs:
        low, high = bounds_of(spec, document)
        if isinstance(body.value, (int, float)) and not isinstance(body.value, bool) and not low <= body.value <= high:
            return f"{body.knob} must be {low:g} to {high:g}, not {body.value}"
        refusal = spec.refuse(body.value)
        if refusal:
            return refusal
    return ""


def clear_override(pool: PoolState, body: OverrideClear, recorder: Recorder) -> None:
    """Lift an override before its expiry."""
    gone = pool.overrides.pop(body.override_id, None)
    what = (
        f"lifts override {body.override_id}" if gone else f"lifts override {body.override_id}, which there is none of"
    )
    recorder.note(RecordKind.ORDER, recorder.decision, f"{body.author} {what}", refused=gone is None)


def take_rebase(pool: PoolState, body: Rebase, wall_s: float, recorder: Recorder) -> None:
    """Let receivers that hold another log's version take this log's, for a while."""
    known = body.target in pool.engines or body.target in pool.gateways
    if (body.target and not known) or not body.author:
        why = f"there is no {body.target!r} in this pool" if body.author else "it names no author"
        recorder.note(RecordKind.ORDER, recorder.decision, f"rebase refused: {why}", refused=True)
        return
    if len(pool.rebases) >= MAX_REBASES:
        recorder.note(RecordKind.ORDER, recorder.decision, "rebase refused: too many at one tick", refused=True)
        return
    notice = RebaseNotice(
        pool=PoolId(pool.pool),
        target=body.target,
        version=recorder.version,
        author=body.author[:MAX_NAME],
        expires_wall_s=wall_s + REBASE_S,
    )
    pool.rebases.append(notice)
    why = f": {body.reason}" if body.reason else ""
    summary = f"{body.author} rebases {body.target or 'every receiver of another log'}{why}"
    recorder.note(RecordKind.ORDER, recorder.decision, summary)


def take_grant(pool: PoolState, body: Grant) -> None:
    """Keep what the fleet's step allows this pool."""
    room = body.name in pool.grants or (len(pool.grants) < MAX_GRANTS and len(body.name) <= MAX_NAME)
    if room and math.isfinite(body.amount) and math.isfinite(body.expires_wall_s):
        pool.grants[body.name] = (body.amount, body.expires_wall_s)


def take_attach(pool: PoolState, body: Attach, recorder: Recorder, now_s: float) -> None:
    """A receiver came, came back, or left."""
    known: Mapping[str, object] = pool.gateways if body.kind is TargetKind.GATEWAY else pool.engines
    most = MAX_GATEWAYS if body.kind is TargetKind.GATEWAY else MAX_ENGINES
    if not fits(body) or (body.target not in known and not room_for(known, body.target, most)):
        pool.count("attaches_refused")
        return
    if body.kind is TargetKind.GATEWAY:
        gateway = pool.gateways.setdefault(body.target, GatewayState(gateway=body.target))
        if comes_late(gateway, body, pool):
            return
        if body.attached:
            note_attach(gateway, body, recorder, now_s)
        elif falls_back(gateway, recorder, now_s):
            return
        gateway.attached, gateway.gone_s = body.attached, None if body.attached else now_s
        if body.attached:
            _reconcile(gateway.holding, body, recorder, restarted=gateway.incarnation != body.incarnation)
            gateway.incarnation = body.incarnation
            if _difference(_told(pool, body), body.effective):
                gateway.holding.must_publish = True  # it has eased since: a table has no way to be led
        return
    engine = pool.engines.setdefault(body.target, EngineState(engine=body.target))
    if comes_late(engine, body, pool):
        return
    if body.attached:
        note_attach(engine, body, recorder, now_s)
    elif falls_back(engine, recorder, now_s):
        return
    engine.attached, engine.gone_s = body.attached, None if body.attached else now_s
    if body.attached:
        _attach_engine(engine, body, recorder)


def _attach_engine(engine: EngineState, body: Attach, recorder: Recorder) -> None:
    restarted = bool(engine.incarnation) and engine.incarnation != body.incarnation
    engine.incarnation, engine.capability_hash = body.incarnation, body.capability_hash
    engine.knobs = {knob.name: knob for knob in body.knobs}
    variant = body.effective.get(VARIANT)
    if isinstance(variant, str):
        engine.variant = variant
    eased = frozenset() if restarted else _eased(engine, body)
    for name, knob in engine.knobs.items():
        if name in engine.wanted and knob.refuse(engine.wanted[name]) is not None:
            del engine.wanted[name]  # its bounds are others than before
        held = body.effective.get(name)
        # What it holds is what it is wanted to hold, until somebody wants otherwise.
        if knob.knob_class is not KnobClass.RESTART and held is not None and knob.refuse(held) is None:
            engine.wanted.setdefault(name, held)
            if name in eased:
                engine.wanted[name] = held
    for name in [name for name in engine.wanted if name not in engine.knobs]:
        del engine.wanted[name]
    _reconcile(engine.holding, body, recorder, restarted=restarted)
    if restarted:
        if engine.wanted.get(VARIANT) == engine.variant and engine.phase == RELAUNCHING:
            summary = f"{engine.engine} runs {engine.variant} in incarnation {engine.incarnation}"
            recorder.note(
                RecordKind.ACK, engine.holding.decision, summary, target=engine.engine, effective=body.effective
            )
        else:
            recorder.note(RecordKind.ALARM, recorder.decision, f"{engine.engine} restarted", target=engine.engine)


def _eased(engine: EngineState, body: Attach) -> frozenset[str]:
    """What the engine holds otherwise than it was last told, though it took that: it has eased since.

    The guard leads those knobs from where they are; told again outright, they would jump.
    """
    if engine.published is None or body.held is None or body.held != engine.holding.version:
        return frozenset()
    told = engine.published.values
    return frozenset(name for name, value in told.items() if name in body.effective and body.effective[name] != value)


def _reconcile(holding: Holding, body: Attach, recorder: Recorder, *, restarted: bool) -> None:
    """Compare what a receiver says it holds with what it was last told."""
    holding.effective = dict(body.effective)
    own = recorder.version.log_id
    foreign = body.held.log_id if body.held is not None and body.held.log_id != own else ""
    if foreign and foreign != holding.foreign_log:
        summary = f"{body.target} holds a version of another log, {foreign}: it takes nothing until a rebase"
        recorder.note(RecordKind.ALARM, recorder.decision, summary, target_kind=body.kind, target=body.target)
    if holding.foreign_log and not foreign:
        holding.backoff_s = holding.not_before_s = 0.0  # rebased: what stood between is gone
    holding.foreign_log = foreign
    behind = holding.version is not None and body.held != holding.version
    if restarted or behind:
        holding.diverged = ""
        holding.must_publish = holding.must_publish or holding.version is not None


def take_ack(pool: PoolState, body: Ack, recorder: Recorder, now_s: float) -> None:
    """A receiver's answer to the last thing it was told; answers to anything else only count."""
    holding = pool.holding(body.kind, body.target)
    if holding is None or holding.version is None or holding.version != body.version:
        pool.count("acks_of_another_version")
        return
    if not proves_presence(_known(pool, body), body.incarnation, body.version, recorder, now_s):
        pool.count("acks_of_another_incarnation")
        return
    if not answer_fits(body.kind, {**holding.effective, **body.effective}):
        pool.count("acks_too_large")
        return
    if body.status is AckStatus.NACK:
        _take_nack(pool, holding, body, recorder, now_s)
        return
    holding.acked, holding.nack = body.version, ""
    holding.effective.update(body.effective)
    if body.kind is TargetKind.ENGINE and isinstance(variant := body.effective.get(VARIANT), str):
        pool.engines[body.target].variant = variant
    told = _told(pool, body)
    holding.diverged = "" if body.status is AckStatus.PENDING_RESTART else _difference(told, body.effective)
    if holding.diverged:
        _back_off(holding, now_s)
        holding.must_publish = True
        _note_answer(pool, body, recorder, RecordKind.ALARM, f"{body.target} diverged: {holding.diverged}")
        return
    holding.backoff_s = 0.0
    _note_answer(pool, body, recorder, RecordKind.ACK, f"{body.target}: {body.status.value}")


def _note_answer(pool: PoolState, body: Ack, recorder: Recorder, kind: RecordKind, summary: str) -> None:
    """Put on record what a receiver answered, under the decision that it answers."""
    recorder.note(
        kind,
        _decision(pool, body),
        summary,
        target_kind=body.kind,
        target=body.target,
        effective=body.effective,
    )


def _known(pool: PoolState, body: Ack) -> EngineState | GatewayState:
    """Who is answering; it is known."""
    targets: Mapping[str, EngineState | GatewayState]
    targets = pool.engines if body.kind is TargetKind.ENGINE else pool.gateways
    return targets[body.target]


def _decision(pool: PoolState, body: Ack) -> str:
    if body.kind is TargetKind.ENGINE:
        directive = pool.engines[body.target].published
        return directive.decision if directive is not None else ""
    table = pool.gateways[body.target].published
    return table.decision if table is not None else ""


def _told(pool: PoolState, body: Ack | Attach) -> Setting:
    if body.kind is TargetKind.ENGINE:
        directive = pool.engines[body.target].published
        return directive.values if directive is not None else {}
    table = pool.gateways[body.target].published
    if table is None:
        return {}
    told: dict[str, bool | int | float | str] = {}
    for route in table.routes:
        told[f"weight:{route.engine}"], told[f"cap:{route.engine}"] = route.weight, route.in_flight_cap
    return told


def _difference(told: Setting, effective: Setting) -> str:
    wrong = [
        f"{name} is {effective[name]}, not {value}"
        for name, value in sorted(told.items())
        if name in effective and effective[name] != value
    ]
    return "; ".join(wrong)


def _take_nack(pool: PoolState, holding: Holding, body: Ack, recorder: Recorder, now_s: float) -> None:
    holding.nack = body.reason[:MAX_WORDS] or "no reason given"
    holding.must_publish = True  # in another version, after a while
    _back_off(holding, now_s)
    if body.kind is TargetKind.ENGINE:
        engine = pool.engines[body.target]
        # The last acknowledged setting stays: what was refused is no longer wanted.
        for name, value in holding.effective.items():
            spec = engine.knobs.get(name)
            live = spec is not None and spec.knob_class is KnobClass.LIVE and spec.refuse(value) is None
            if live and name in engine.wanted:
                engine.wanted[name] = value
        if engine.published is not None and engine.published.values.get(BATCH_CAP) != engine.wanted.get(BATCH_CAP):
            engine.changed_s[BATCH_CAP] = now_s
    pool.count("nacks")
    _note_answer(pool, body, recorder, RecordKind.ACK, f"{body.target} refused: {holding.nack}")


def _back_off(holding: Holding, now_s: float) -> None:
    holding.backoff_s = min(max(FIRST_BACKOFF_S, holding.backoff_s * 2.0), LONGEST_BACKOFF_S)
    holding.not_before_s = now_s + holding.backoff_s


def standing_intent(pool: PoolState, as_of: int) -> Intent | None:
    """All standing orders of a pool, before the input `as_of`, as one input; None if it has none to repeat."""
    if not pool.policy_text and pool.mode is Mode.OBSERVE and not pool.overrides and not pool.paused:
        return None
    return Intent(
        pool=PoolId(pool.pool),
        policy_text=pool.policy_text,
        policy_author=pool.policy_author,
        mode=pool.mode,
        paused=pool.paused,
        overrides=tuple(pool.overrides.values()),
        as_of=as_of,
    )
