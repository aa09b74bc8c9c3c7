"""Versions, values, knob specs and enums, both ways."""

import math
from collections.abc import Mapping, MutableMapping
from enum import Enum
from typing import TypeVar

from flyball_core.errors import Rejected
from flyball_core.fencing import Version
from flyball_core.ids import LogId
from flyball_core.inputs import AckStatus, Mode, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting, Value
from flyball_proto.v1 import common_pb2 as pb, inputs_pb2

MAX_RECORD_BYTES = 256 * 1024
"""Largest record that is read at all. No log of ours takes a larger one; a broker may, from a stranger."""

E = TypeVar("E", bound=Enum)


class EnumPair:
    """A domain enum and its wire numbers; an unknown number is `Rejected`, not guessed."""

    def __init__(self, name: str, pairs: Mapping[int, Enum]) -> None:
        self.name = name
        self._from = dict(pairs)
        self._to = {member: number for number, member in pairs.items()}

    def knows(self, number: int) -> bool:
        """Whether the wire number stands for a member."""
        return number in self._from

    def number(self, member: Enum) -> int:
        """The wire number of a member."""
        return self._to[member]

    def member(self, number: int, kind: type[E]) -> E:
        """The member of a wire number."""
        found = self._from.get(number)
        if not isinstance(found, kind):
            raise Rejected(f"{self.name} {number} is not known here")
        return found


TARGET_KINDS = EnumPair(
    "target kind",
    {pb.TARGET_KIND_ENGINE: TargetKind.ENGINE, pb.TARGET_KIND_GATEWAY: TargetKind.GATEWAY},
)
KNOB_CLASSES = EnumPair(
    "knob class",
    {
        pb.KNOB_CLASS_LIVE: KnobClass.LIVE,
        pb.KNOB_CLASS_RESTART: KnobClass.RESTART,
        pb.KNOB_CLASS_ROUTING: KnobClass.ROUTING,
    },
)
KNOB_KINDS = EnumPair(
    "knob kind",
    {
        pb.KNOB_KIND_INTEGER: KnobKind.INTEGER,
        pb.KNOB_KIND_REAL: KnobKind.REAL,
        pb.KNOB_KIND_CHOICE: KnobKind.CHOICE,
        pb.KNOB_KIND_FLAG: KnobKind.FLAG,
    },
)
MODES = EnumPair(
    "mode",
    {pb.MODE_OBSERVE: Mode.OBSERVE, pb.MODE_ADVISE: Mode.ADVISE, pb.MODE_CONTROL: Mode.CONTROL},
)
ACK_STATUSES = EnumPair(
    "ack status",
    {
        inputs_pb2.ACK_STATUS_APPLIED: AckStatus.APPLIED,
        inputs_pb2.ACK_STATUS_PENDING_RESTART: AckStatus.PENDING_RESTART,
        inputs_pb2.ACK_STATUS_NACK: AckStatus.NACK,
    },
)


def fill_value(message: pb.Value, value: Value) -> None:
    """Write `value` into `message`; a bool is a flag, never a number."""
    if isinstance(value, bool):
        message.flag = value
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Rejected(f"{value} does not fit 64 bits")
        message.integer = value
    elif isinstance(value, float):
        message.real = value
    else:
        message.text = value


def read_value(message: pb.Value) -> Value:
    """The value of a message; `Rejected` if it carries none."""
    kind = message.WhichOneof("kind")
    if kind == "integer":
        return message.integer
    if kind == "real":
        return message.real
    if kind == "text":
        return message.text
    if kind == "flag":
        return message.flag
    raise Rejected("a value carries none of integer, real, text, flag")


def fill_setting(target: MutableMapping[str, pb.Value], setting: Setting) -> None:
    """Write a setting into a message's map field."""
    for name in sorted(setting):
        fill_value(target[name], setting[name])


def read_setting(source: Mapping[str, pb.Value]) -> dict[str, Value]:
    """The setting of a map field, its knobs in order of name; `Rejected` if a value is of no known kind."""
    return {name: read_value(source[name]) for name in sorted(source)}


def read_known(source: Mapping[str, pb.Value]) -> dict[str, Value]:
    """What of a setting can be read here: a newer peer may hold values of kinds not known yet.

    What is no finite number is no value that anything can hold, so it is left out as well.
    """
    known = {name: read_value(source[name]) for name in sorted(source) if source[name].WhichOneof("kind")}
    return {name: value for name, value in known.items() if not isinstance(value, float) or math.isfinite(value)}


def fill_version(message: pb.Version, version: Version) -> None:
    """Write a version."""
    message.log_id = version.log_id
    message.partition = version.partition
    message.epoch = version.epoch
    message.revision = version.revision


def read_version(message: pb.Version) -> Version:
    """Read a version."""
    return Version(
        log_id=LogId(message.log_id),
        partition=message.partition,
        epoch=message.epoch,
        revision=message.revision,
    )


def fill_knob(message: pb.KnobSpec, knob: KnobSpec) -> None:
    """Write a knob spec."""
    message.name = knob.name
    message.knob_class = pb.KnobClass.ValueType(KNOB_CLASSES.number(knob.knob_class))
    message.kind = pb.KnobKind.ValueType(KNOB_KINDS.number(knob.kind))
    fill_value(message.safe, knob.safe)
    if knob.minimum is not None:
        message.minimum = knob.minimum
    if knob.maximum is not None:
        message.maximum = knob.maximum
    message.choices.extend(knob.choices)
    message.unit = knob.unit


def knows_knob(message: pb.KnobSpec) -> bool:
    """Whether this knob is of a class and kind known here; a newer peer may have others."""
    return KNOB_CLASSES.knows(message.knob_class) and KNOB_KINDS.knows(message.kind)


def read_knob(message: pb.KnobSpec) -> KnobSpec:
    """Read a knob spec; `Rejected` if its own safe value does not fit it, or a bound is no number."""
    low = message.minimum if message.HasField("minimum") else -math.inf
    high = message.maximum if message.HasField("maximum") else math.inf
    if not low < math.inf or not high > -math.inf:  # NaN too
        raise Rejected(f"knob {message.name!r}: its bounds are {low:g} and {high:g}")
    knob = KnobSpec(
        name=message.name,
        knob_class=KNOB_CLASSES.member(message.knob_class, KnobClass),
        kind=KNOB_KINDS.member(message.kind, KnobKind),
        safe=read_value(message.safe),
        minimum=low if low > -math.inf else None,
        maximum=high if high < math.inf else None,
        choices=tuple(message.choices),
        unit=message.unit,
    )
    refusal = knob.refuse(knob.safe)
    if refusal is not None:
        raise Rejected(f"knob {knob.name!r}: its safe value is outside its own bounds: {refusal}")
    return knob
