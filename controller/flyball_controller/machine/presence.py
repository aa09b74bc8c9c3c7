"""Who is attached: what stands when attaches and farewells come late, in any order, and of lives long over.

While the log is away, or a controller stands still, words of one receiver wait at every controller that it went to.
Within an incarnation its own count of attempts tells their order; between incarnations nothing does but what follows: a
late attach is followed by its farewell, and who is really there answers what it is told.
"""

from flyball_controller.machine.records import Recorder
from flyball_controller.machine.state import Displaced, EngineState, GatewayState, PoolState
from flyball_core.fencing import Version
from flyball_core.inputs import Attach, TargetKind
from flyball_core.outputs import RecordKind

MAX_BEFORE = 4
"""Most earlier incarnations remembered of one target."""

FALL_BACK_S = 60.0
"""An attach that is over within this time may have been a late one: who stood before it stands again."""

_Known = EngineState | GatewayState


def comes_late(known: _Known, body: Attach, pool: PoolState) -> bool:
    """Whether the log took this only after what had made it untrue: its receiver has long attached elsewhere."""
    late = _attach_is_late(known, body) if body.attached else _farewell_is_late(known, body)
    if late:
        pool.count(late)
        _note_of_displaced(known, body)
    return bool(late)


def note_attach(known: _Known, body: Attach, recorder: Recorder, now_s: float) -> None:
    """Remember which attach this is. Raise an alarm if another incarnation is attached and has not left."""
    if known.incarnation not in ("", body.incarnation):
        earlier = [name for name in known.before if name not in (body.incarnation, known.incarnation)]
        known.before = [*earlier, known.incarnation][-MAX_BEFORE:]
        known.displaced = _standing(known, now_s) if known.attached else None
        if known.attached:
            summary = f"{body.target}: incarnation {body.incarnation} came while {known.incarnation} had not left"
            recorder.note(RecordKind.ALARM, recorder.decision, summary, target_kind=body.kind, target=body.target)
    elif not body.attempt:
        known.displaced = None  # who does not count its attempts has come back just now
    known.attach_offset, known.attach_attempt = recorder.version.revision, body.attempt


def falls_back(known: _Known, recorder: Recorder, now_s: float) -> bool:
    """Whether a farewell only ended an attach that came late; if so, the incarnation that it displaced stands again."""
    displaced, known.displaced = known.displaced, None
    if displaced is None or displaced.left or now_s - displaced.since_s > FALL_BACK_S:
        return False
    _stand_again(known, displaced, recorder, now_s)
    return True


def proves_presence(known: _Known, incarnation: str, version: Version, recorder: Recorder, now_s: float) -> bool:
    """Whether an answer is by who stands, or by the incarnation that it displaced, which then stands again.

    Only an answer to what was told since says anything: an older one may be late itself.
    """
    since = version.revision > known.attach_offset
    if incarnation == known.incarnation:
        known.displaced = None if since else known.displaced
        return True
    displaced = known.displaced
    if displaced is None or displaced.incarnation != incarnation or not since:
        return False
    _stand_again(known, displaced, recorder, now_s)
    return True


def _attach_is_late(known: _Known, body: Attach) -> str:
    """Under which count; empty if it is not."""
    if known.attached and body.incarnation != known.incarnation and body.incarnation in known.before:
        return "attaches_of_an_earlier_incarnation"
    if body.incarnation == known.incarnation and 0 < body.attempt <= known.attach_attempt:
        return "attaches_overtaken"
    displaced = known.displaced
    if displaced is not None and body.incarnation == displaced.incarnation and 0 < body.attempt <= displaced.attempt:
        return "attaches_overtaken"
    return ""


def _farewell_is_late(known: _Known, body: Attach) -> str:
    """Under which count; empty if it is not."""
    if known.incarnation not in ("", body.incarnation):
        return "detaches_of_another_incarnation"
    overtaken = _is_overtaken(body, known.attach_attempt, known.attach_offset)
    return "detaches_of_another_attach" if overtaken else ""


def _is_overtaken(farewell: Attach, attempt: int, offset: int) -> bool:
    """Whether it ends an attach before that one."""
    if farewell.attempt and attempt:  # the receiver's own order, which no controller's delay can turn round
        return farewell.attempt < attempt
    return farewell.ends is not None and farewell.ends < offset


def _note_of_displaced(known: _Known, body: Attach) -> None:
    """Keep what is known of the incarnation that may stand again up to what it says meanwhile."""
    displaced = known.displaced
    if displaced is None or body.incarnation != displaced.incarnation:
        return
    if body.attached:
        displaced.attempt = max(displaced.attempt, body.attempt)
    elif not _is_overtaken(body, displaced.attempt, displaced.offset):
        displaced.left = True


def _standing(known: _Known, now_s: float) -> Displaced:
    engine = known if isinstance(known, EngineState) else None
    return Displaced(
        incarnation=known.incarnation,
        offset=known.attach_offset,
        attempt=known.attach_attempt,
        since_s=now_s,
        capability_hash="" if engine is None else engine.capability_hash,
        knobs={} if engine is None else dict(engine.knobs),
    )


def _stand_again(known: _Known, displaced: Displaced, recorder: Recorder, now_s: float) -> None:
    """Have the displaced incarnation stand; the other may prove to be a successor after all, by a later attempt."""
    if isinstance(known, EngineState):
        name, kind = known.engine, TargetKind.ENGINE
    else:
        name, kind = known.gateway, TargetKind.GATEWAY
    summary = f"{name}: the attach of incarnation {known.incarnation} came late; {displaced.incarnation} stands"
    recorder.note(RecordKind.ALARM, recorder.decision, summary, target_kind=kind, target=name)
    known.displaced = _standing(known, now_s)
    known.displaced.left = True
    known.before = [other for other in known.before if other not in (known.incarnation, displaced.incarnation)]
    known.attached, known.gone_s = True, None
    known.incarnation, known.attach_offset, known.attach_attempt = (
        displaced.incarnation,
        displaced.offset,
        displaced.attempt,
    )
    if isinstance(known, EngineState):
        known.capability_hash, known.knobs = displaced.capability_hash, displaced.knobs
    known.holding.must_publish = known.holding.must_publish or known.holding.version is not None
