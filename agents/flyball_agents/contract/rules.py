"""The rules that can be walked over the wire, each with what tries it out. Their numbers are docs/receiver.md's.

Every trial begins from a receiver that holds a version of the examiner's log and leaves it so;
one that raises `Broken` may leave it anyhow, and the next goes on from there.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from flyball_agents.contract.door import NothingCame
from flyball_agents.contract.examining import Broken, Examination, Skipped
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId
from flyball_core.inputs import AckStatus, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Directive
from flyball_proto.codec import Pushed, pusher_message


class Rule(NamedTuple):
    """One rule: its number, what it claims, and what tries it out."""

    number: str
    claim: str
    try_out: Callable[[Examination], Awaitable[None]]


async def attach_is_whole(exam: Examination) -> None:
    """R1."""
    attach = exam.attach
    for what, said in (("pool", attach.pool), ("target", attach.target), ("incarnation", attach.incarnation)):
        if not said:
            raise Broken(f"its attach names no {what}")
    if not attach.attached:
        raise Broken("its attach says that it left")
    if attach.knobs and not attach.capability_hash:
        raise Broken("its attach has knobs, but no capability hash")
    names = [spec.name for spec in attach.knobs]
    if len(set(names)) != len(names):
        raise Broken("its attach names a knob twice")
    for spec in attach.knobs:
        value = attach.effective.get(spec.name)
        if value is None:
            raise Broken(f"its attach does not say what {spec.name} is at")
        if wrong := spec.refuse(value):
            raise Broken(f"its attach shows a value outside its own bounds: {wrong}")


async def newer_is_taken(exam: Examination) -> None:
    """R4."""
    name, value, _ = exam.two()
    await exam.take({name: value})
    before = await exam.now()
    spec = exam.knob()
    second = exam.other(spec)
    ack = await exam.take({spec.name: second})
    if moved := {n for n, v in ack.effective.items() if n != spec.name and before.get(n) != v}:
        raise Broken(f"{', '.join(sorted(moved))} moved, which the version did not name")


async def greater_epoch_is_newer(exam: Examination) -> None:
    """R5."""
    name, value, _ = exam.two()
    version = exam.newer(epochs=1)
    exam.taken(await exam.ask(exam.offer(version, {name: value})), version, {name: value})


async def same_is_answered_again(exam: Examination) -> None:
    """R6."""
    name, value, _ = exam.two()
    first = await exam.take({name: value})
    again = await exam.ask(exam.offer(first.version, {name: value}))
    if (again.status, again.version, again.effective) != (first.status, first.version, first.effective):
        raise Broken(f"a repeated version was answered {again.status.value}, at first {first.status.value}")
    other = exam.other(exam.knob())
    copy = await exam.ask(exam.offer(first.version, {name: other}))
    if copy.effective != first.effective:
        raise Broken("a copy of the version held, with other values, was applied")


async def older_is_refused(exam: Examination) -> None:
    """R7."""
    name, value, _ = exam.two()
    await exam.take({name: value})
    before, held = await exam.now(), exam.held
    assert held is not None
    other = {name: exam.other(exam.knob())}
    for older in (replace(held, revision=held.revision - 1), replace(held, epoch=held.epoch - 1, revision=1 << 40)):
        exam.refused(await exam.ask(exam.offer(older, other)), older, before)


async def other_log_is_refused(exam: Examination) -> None:
    """R8."""
    await _elsewhere(exam, lambda v: replace(v, log_id=LogId(v.log_id + "x"), epoch=v.epoch + 1), "foreign_log")


async def other_partition_is_refused(exam: Examination) -> None:
    """R9."""
    await _elsewhere(exam, lambda v: replace(v, partition=v.partition + 1, epoch=v.epoch + 1), "foreign_partition")


async def _elsewhere(exam: Examination, move: Callable[[Version], Version], naming: str) -> None:
    before = await exam.now()
    assert exam.held is not None
    version = move(exam.held)
    name, value, _ = exam.two()
    exam.refused(await exam.ask(exam.offer(version, {name: value})), version, before, naming=naming)
    await exam.take({name: value})


async def misdirected_is_refused(exam: Examination) -> None:
    """R10."""
    name, value, _ = exam.two()
    before = await exam.now()
    for pool, target in ((None, exam.attach.target + "-other"), (exam.attach.pool + "-other", None)):
        version = exam.newer()
        offer = exam.offer(version, {name: value}, pool=pool, target=target)
        exam.refused(await exam.ask(offer), version, before)
        ack = await exam.ask(exam.offer(version, {name: value}))
        if ack.status is not AckStatus.APPLIED:
            raise Broken(f"what was meant for another left a trace: it then refused its own {version}: {ack.reason}")
        exam.taken(ack, version, {name: value})
        before = await exam.now()
        name, value, _ = exam.two()


async def no_version_is_refused(exam: Examination) -> None:
    """R11."""
    name, value, _ = exam.two()
    before = exam.attach.effective if exam.held is None else await exam.now()
    nameless = pusher_message(exam.offer(replace(exam.newer(), log_id=LogId("")), {name: value}))
    exam.refused(await exam.ask(nameless), None, before)
    absent = pusher_message(exam.offer(exam.newer(), {name: value}))
    (absent.directive if exam.attach.kind is TargetKind.ENGINE else absent.table).ClearField("version")
    exam.refused(await exam.ask(absent), None, before)
    await exam.take({name: value})


async def unknown_knob_is_refused(exam: Examination) -> None:
    """R12."""
    _engines_only(exam, "a table may name engines that are not there yet")
    await _refuses(exam, {"no_such_knob": 1})


async def out_of_bounds_is_refused(exam: Examination) -> None:
    """R13."""
    tried = 0
    for spec in exam.attach.knobs:
        for value in _beyond(spec):
            if exam.attach.kind is TargetKind.GATEWAY and not (isinstance(value, (int, float)) and value >= 0):
                continue  # the wire carries no such table
            await _refuses(exam, {spec.name: value})
            tried += 1
    if not tried:
        raise Skipped("none of its knobs has bounds")


async def wrong_type_is_refused(exam: Examination) -> None:
    """R14."""
    _engines_only(exam, "a table's fields have types of their own")
    for spec in exam.attach.knobs:
        await _refuses(exam, {spec.name: _misfit(spec)})
    before = await exam.now()
    version = exam.newer()
    message = pusher_message(exam.offer(version, {}))
    message.directive.values[exam.knob().name].SetInParent()  # a value of no kind at all
    exam.refused(await exam.ask(message), version, before)


async def all_or_nothing(exam: Examination) -> None:
    """R15."""
    spec = exam.knob()
    for other in exam.attach.knobs:
        wrong = [value for value in _beyond(other) if exam.attach.kind is TargetKind.ENGINE or _natural(value)]
        if other.name != spec.name and wrong:
            await _refuses(exam, {spec.name: exam.other(spec), other.name: wrong[0]})
            return
    _engines_only(exam, "no second knob has bounds")
    await _refuses(exam, {spec.name: exam.other(spec), "no_such_knob": 1})


async def other_capabilities_are_refused(exam: Examination) -> None:
    """R16."""
    directive = _directive(exam)
    await _refused_as(exam, replace(directive, capability_hash="0" * 16))


async def other_incarnation_is_refused(exam: Examination) -> None:
    """R17."""
    directive = _directive(exam)
    await _refused_as(exam, replace(directive, incarnation=Incarnation(exam.attach.incarnation + "-before")))


async def restart_names_its_incarnation(exam: Examination) -> None:
    """R18."""
    for spec in exam.attach.knobs:
        others = [choice for choice in spec.choices if choice != exam.attach.effective.get(spec.name)]
        if spec.knob_class is KnobClass.RESTART and others:
            await _refuses(exam, {spec.name: others[0]})
            return
    raise Skipped("it has no restart-class knob with another choice")


async def refusal_is_final(exam: Examination) -> None:
    """R19."""
    name, value, _ = exam.two()
    before = await exam.now()
    between, version = exam.newer(), exam.newer()
    exam.refused(await exam.ask(_wrong(exam, version)), version, before)
    for late in (version, between):
        ack = await exam.ask(exam.offer(late, {name: value}))
        exam.refused(ack, late, before)
    await exam.take({name: value})


async def every_offer_is_answered_once(exam: Examination) -> None:
    """R3."""
    name, value, _ = exam.two()
    await exam.take({name: value})
    assert exam.held is not None
    versions = [exam.held, replace(exam.held, revision=exam.held.revision - 1), exam.newer()]
    for version in versions:
        await exam.say(exam.offer(version, {name: value}))
    for version in versions:
        ack = await exam.answer()
        who = (ack.pool, ack.kind, ack.target, ack.incarnation)
        attach = exam.attach
        if who != (attach.pool, attach.kind, attach.target, attach.incarnation):
            raise Broken(f"an answer names {ack.kind.value} {ack.target} of {ack.pool}, incarnation {ack.incarnation}")
        if ack.version != version:
            raise Broken(f"the answer to {version} came as one to {ack.version}")
    exam.taken(ack, versions[-1], {name: value})
    await _stays_quiet(exam, "answered once more than it was asked")


async def heartbeat_says_nothing(exam: Examination) -> None:
    """R20."""
    before = await exam.now()
    await exam.say(exam.heartbeat(exam.newer(), 0.0))
    await _stays_quiet(exam, "answered a heartbeat")
    if await exam.now() != before:
        raise Broken("a heartbeat moved a knob")


async def _refuses(exam: Examination, values: dict[str, Value]) -> None:
    before, version = await exam.now(), exam.newer()
    exam.refused(await exam.ask(exam.offer(version, values)), version, before)
    if await exam.now() != before:
        raise Broken("was refused, and a knob moved after all")


async def _refused_as(exam: Examination, directive: Directive) -> None:
    before = await exam.now()
    exam.refused(await exam.ask(directive), directive.version, before)


async def _stays_quiet(exam: Examination, otherwise: str) -> None:
    try:
        said = await exam.sitting.hear(exam.patience.quiet_s)
    except NothingCame:
        return
    raise Broken(f"{otherwise}: {said}"[:200])


def _directive(exam: Examination) -> Directive:
    _engines_only(exam, "a table names neither capabilities nor an incarnation")
    spec = exam.knob()
    offer = exam.offer(exam.newer(), {spec.name: exam.other(spec)})
    assert isinstance(offer, Directive)
    return offer


def _wrong(exam: Examination, version: Version) -> Pushed:
    for spec in exam.attach.knobs:
        for value in _beyond(spec):
            if exam.attach.kind is TargetKind.ENGINE or _natural(value):
                return exam.offer(version, {spec.name: value})
    _engines_only(exam, "none of its knobs has bounds")
    return exam.offer(version, {"no_such_knob": 1})


def _engines_only(exam: Examination, why: str) -> None:
    if exam.attach.kind is TargetKind.GATEWAY:
        raise Skipped(why)


def _natural(value: Value) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _beyond(spec: KnobSpec) -> list[Value]:
    """Values outside the knob's bounds, of its own type."""
    if spec.kind is KnobKind.CHOICE:
        return ["no-such-choice"]
    if spec.kind is KnobKind.FLAG:
        return []
    step = 1 if spec.kind is KnobKind.INTEGER else 0.5
    values: list[Value] = [bound + step for bound in (spec.maximum,) if bound is not None]
    values += [bound - step for bound in (spec.minimum,) if bound is not None]
    if spec.kind is KnobKind.INTEGER:
        return [int(value) for value in values]
    return [*values, float("nan"), float("inf")]


def _misfit(spec: KnobSpec) -> Value:
    """A value of another type than the knob's."""
    return "7" if spec.kind is KnobKind.INTEGER else 1 if spec.kind in (KnobKind.FLAG, KnobKind.CHOICE) else "0.5"
