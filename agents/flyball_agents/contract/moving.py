"""The rules about what a receiver does of itself: easing, coming back, leaving silence; and rebases."""

import math
import time
from dataclasses import replace

from flyball_agents.contract.door import Ended, NothingCame
from flyball_agents.contract.examining import Broken, Examination, Skipped
from flyball_core.inputs import Ack, AckStatus
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Heartbeat

_HOLD_S = 1.0  # the lease that the examiner asks for
_LATE_S = 5.0  # how much later easing may be told: jitter, and the time between two looks
_RENEWED_S = 3600.0


async def lease_runs_out(exam: Examination) -> None:
    """R21."""
    spec, far = _far(exam)
    await exam.take({spec.name: far})
    beat = exam.heartbeat(exam.newer(), _HOLD_S)
    await exam.say(beat)
    await _eases(exam, spec, far, None)


async def old_heartbeat_renews_nothing(exam: Examination) -> None:
    """R22."""
    spec, far = _far(exam)
    await exam.take({spec.name: far})
    assert exam.held is not None
    beat = exam.heartbeat(exam.newer(), _HOLD_S)
    await exam.say(beat)
    older = replace(beat, version=replace(beat.version, revision=beat.version.revision - 1), hold_s=_RENEWED_S)
    await exam.say(older)
    await _eases(exam, spec, far, replace(beat, hold_s=_RENEWED_S))


async def eased_stays_eased(exam: Examination) -> None:
    """R23."""
    spec, far = _far(exam)
    if math.isclose(_number((await exam.now()).get(spec.name)), _number(far)):
        raise Skipped("it was not seen to ease")
    await exam.say(exam.heartbeat(exam.newer(), _RENEWED_S))
    try:
        await exam.attach_anew(_LATE_S)
    except NothingCame:
        raise Broken("did not attach anew when its lease was renewed") from None
    if (await exam.now()).get(spec.name) == far:
        raise Broken("went back to the version's values when its lease was renewed")
    await exam.take({spec.name: far})


async def comes_back(exam: Examination) -> None:
    """R2."""
    name, value, _ = exam.two()
    await exam.take({name: value})
    await exam.sit_again(exam.patience.move_s)
    _still_held(exam)


async def silence_is_left(exam: Examination) -> None:
    """R24."""
    await exam.say(exam.heartbeat(exam.newer(), 0.0))
    start_s = time.monotonic()
    while (left_s := start_s + exam.patience.move_s - time.monotonic()) > 0:
        try:
            said = await exam.sitting.hear(left_s)
        except Ended:
            await exam.sit_again(exam.patience.move_s)
            return _still_held(exam)
        except NothingCame:
            break
        if isinstance(said, Ack):
            raise Broken("answered where there was nothing to answer")
    raise Broken(f"kept a stream on which nothing came for {exam.patience.move_s:g} s")


async def rebase_frees(exam: Examination) -> None:
    """R25."""
    name, value, _ = exam.two()
    await exam.take({name: value})
    old = exam.held
    assert old is not None
    await exam.say(exam.notice(exam.newer()))  # of the log that it holds: concerns nobody
    await exam.now()
    exam.change_log()
    await exam.say(exam.notice(exam.newer(), target=exam.attach.target + "-other"))
    await exam.now()
    await exam.say(exam.notice(exam.newer()))
    if (attach := await exam.attach_anew(exam.patience.answer_s)).held is not None:
        raise Broken(f"still holds {attach.held} of log {attach.held.log_id}")
    version = exam.newer()
    exam.taken(await exam.ask(exam.offer(version, {name: value})), version, {name: value})
    back = await exam.ask(exam.offer(replace(old, epoch=old.epoch + 10), {name: value}))
    if back.status is not AckStatus.NACK:
        raise Broken("still takes versions of the log that it was freed from")


async def _eases(exam: Examination, spec: KnobSpec, far: Value, again: Heartbeat | None) -> None:
    """See easing begin, late enough and in steps; meanwhile `again` is repeated."""
    start_s = time.monotonic()
    while True:
        try:
            attach = await exam.attach_anew(0.25)
            if time.monotonic() - start_s > _HOLD_S / 2:
                break
            if attach.effective.get(spec.name) != far:
                raise Broken("eased before its lease ran out")  # else it tells that an earlier easing has ended
        except NothingCame:
            if time.monotonic() > start_s + _HOLD_S + _LATE_S:
                raise Broken(f"did not attach anew within {_LATE_S:g} s of its lease's end") from None
            if again is not None:
                await exam.say(again)
    if attach.effective.get(spec.name) == spec.safe:
        raise Broken(f"{spec.name} fell from {far} to {spec.safe} at once")
    end_s = time.monotonic() + _LATE_S
    while (await exam.now()).get(spec.name) == far:
        if time.monotonic() > end_s:
            raise Broken(f"said that it eases, but {spec.name} stays at {far}")
        if again is not None:
            await exam.say(again)
        await exam.rest()


def _far(exam: Examination) -> tuple[KnobSpec, Value]:
    """The knob with the longest way to its safe value, and the value at its other end."""
    found: list[tuple[float, KnobSpec, Value]] = []
    for spec in exam.attach.knobs:
        movable = spec.kind in (KnobKind.INTEGER, KnobKind.REAL) and spec.knob_class is not KnobClass.RESTART
        if not movable or spec.maximum is None or spec.safe == 0:
            continue
        value: Value = int(spec.maximum) if spec.kind is KnobKind.INTEGER else spec.maximum
        found.append((_number(value) / max(_number(spec.safe), 1e-9), spec, value))
    far = max(found, key=lambda one: one[0], default=None)
    if far is None or far[0] < 2.0:
        raise Skipped("no knob's greatest value is twice its safe one or more")
    return far[1], far[2]


def _still_held(exam: Examination) -> None:
    if exam.attach.held != exam.held:
        raise Broken(f"took {exam.held}, but came back holding {exam.attach.held}")


def _number(value: Value | None) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
