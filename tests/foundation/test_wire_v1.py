"""Version 1 of the wire format, held to recorded bytes; and what a newer or a mad peer may do to it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import given, strategies as st

import record_wire_v1
import wire_examples
from flyball_core.frames import BandwidthSource, Frame
from flyball_core.ids import PoolId
from flyball_core.inputs import Attach, Malformed
from flyball_core.outputs import TickRecord
from flyball_proto.codec import decode_audit, decode_checkpoint, decode_directive, decode_input, is_attach, is_tick
from flyball_proto.v1 import inputs_pb2, outputs_pb2

RECORDED: dict[str, dict[str, str]] = json.loads(record_wire_v1.RECORDED.read_text())
EXAMPLES: dict[str, dict[str, Any]] = {
    "inputs": dict(wire_examples.INPUTS),
    "directives": dict(wire_examples.DIRECTIVES),
    "decisions": dict(wire_examples.AUDIT),
    "state": dict(wire_examples.CHECKPOINTS),
}
DECODERS: dict[str, Callable[[bytes], object]] = {
    "inputs": lambda value: decode_input(7, value).body,
    "directives": decode_directive,
    "decisions": decode_audit,
    "state": decode_checkpoint,
}
MESSAGES: dict[str, type[Message]] = {
    "inputs": inputs_pb2.InputRecord,
    "directives": outputs_pb2.DirectiveRecord,
    "decisions": outputs_pb2.AuditRecord,
    "state": outputs_pb2.Checkpoint,
}
NAMES = [(topic, name) for topic in EXAMPLES for name in RECORDED[topic]]

UNKNOWN_FIELD = bytes.fromhex("fa7d0474657374")
"""Field 2015, the text "test": nothing of version 1 has that number."""


def recorded(topic: str, name: str) -> bytes:
    """The recorded bytes of one example."""
    return bytes.fromhex(RECORDED[topic][name])


def framed(number: int, value: bytes) -> bytes:
    """A length-delimited field of fewer than 2,048 numbers and 16,384 bytes."""
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])
    size = len(value)
    return head + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + value


@pytest.mark.parametrize(("topic", "name"), NAMES)
def test_encoder_gives_recorded_bytes(topic: str, name: str) -> None:
    """Today's encoder gives exactly the bytes that version 1 was recorded with."""
    assert RECORDED[topic][name] == record_wire_v1.encode()[topic][name]


@pytest.mark.parametrize(("topic", "name"), NAMES)
def test_decoder_reads_recorded_bytes(topic: str, name: str) -> None:
    """The recorded bytes of version 1 are read back as what was written."""
    assert EXAMPLES[topic][name] == DECODERS[topic](recorded(topic, name))


def test_every_example_is_recorded() -> None:
    """No example is held to nothing: each has recorded bytes."""
    assert {topic: set(made) for topic, made in EXAMPLES.items()} == {topic: set(RECORDED[topic]) for topic in EXAMPLES}


def test_every_kind_of_record_has_an_example() -> None:
    """Each kind that a record of any topic can carry is among the recorded ones."""
    for topic in ("inputs", "directives", "decisions"):
        kinds = {field.name for field in MESSAGES[topic].DESCRIPTOR.oneofs_by_name["body"].fields}
        seen = {MESSAGES[topic].FromString(recorded(topic, name)).WhichOneof("body") for name in RECORDED[topic]}

        assert kinds == seen


@pytest.mark.parametrize(("topic", "peek", "kind"), [("decisions", is_tick, TickRecord), ("inputs", is_attach, Attach)])
def test_a_kind_is_told_by_its_first_byte(topic: str, peek: Callable[[bytes], bool], kind: type) -> None:
    """Whoever looks for ticks or attaches among many records need not decode the others."""
    told = {name: peek(recorded(topic, name)) for name in RECORDED[topic]}

    assert {name: isinstance(EXAMPLES[topic][name], kind) for name in told} == told
    assert {True, False} == set(told.values())


def _set_in(message: Message) -> set[str]:
    """The fields that are set in a message and in those within it, as `message.field`."""
    found: set[str] = set()
    for field, value in message.ListFields():
        found.add(field.full_name)
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = value.values() if field.message_type.fields_by_name["value"].message_type else ()
        else:
            inner = value if field.is_repeated else (value,)
        for one in inner:
            found |= _set_in(one)
    return found


def _fields_of(kind: Descriptor, seen: set[str]) -> set[str]:
    """The fields of a kind of message and of those it can hold, as `message.field`."""
    if kind.full_name in seen:
        return set()
    seen.add(kind.full_name)
    named = set() if kind.GetOptions().map_entry else {field.full_name for field in kind.fields}
    return named.union(*(_fields_of(field.message_type, seen) for field in kind.fields if field.message_type))


def test_every_field_of_a_record_has_an_example() -> None:
    """Each field that a record of any topic can carry is set in some recorded example: none can change unnoticed."""
    seen: set[str] = set()
    kinds = {name: kind for file in record_wire_v1.FILES for name, kind in file.message_types_by_name.items()}
    known = set[str]().union(*(_fields_of(kinds[topmost.__name__], seen) for topmost in MESSAGES.values()))
    shown = set[str]().union(*(_set_in(MESSAGES[topic].FromString(recorded(topic, name))) for topic, name in NAMES))

    assert set() == known - shown


def test_numbers_keep_their_meaning() -> None:
    """Every recorded field, enum value and method of version 1 still is what it was; new ones are recorded too."""
    assert RECORDED["schema"] == record_wire_v1.describe()


def test_the_recorder_refuses_a_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: Any) -> None:
    """The recorder writes nothing when an example that is recorded already would get other bytes."""
    kept = {**RECORDED, "inputs": {**RECORDED["inputs"], "tick": "1a00"}}
    copy = tmp_path / "wire_v1.json"
    copy.write_text(json.dumps(kept))
    monkeypatch.setattr(record_wire_v1, "RECORDED", copy)

    assert 1 == record_wire_v1.record()
    assert "inputs: tick" in capsys.readouterr().err
    assert kept == json.loads(copy.read_text())


@pytest.mark.parametrize(("topic", "name"), NAMES)
def test_unknown_fields_survive(topic: str, name: str) -> None:
    """A field that only a newer peer knows survives being parsed and written again by this one."""
    made = MESSAGES[topic].FromString(recorded(topic, name) + UNKNOWN_FIELD)

    assert UNKNOWN_FIELD in made.SerializeToString(deterministic=True)


@pytest.mark.parametrize(("topic", "name"), NAMES)
def test_a_newer_record_is_read(topic: str, name: str) -> None:
    """A record with a field that only a newer peer knows is read as what this one knows of it."""
    assert EXAMPLES[topic][name] == DECODERS[topic](recorded(topic, name) + UNKNOWN_FIELD)


@pytest.mark.parametrize(("topic", "name"), [pair for pair in NAMES if pair[0] != "state"])
def test_a_newer_body_is_read(topic: str, name: str) -> None:
    """A body with a field that only a newer peer knows is read as what this one knows of it."""
    made = MESSAGES[topic].FromString(recorded(topic, name))
    kind = made.WhichOneof("body")
    assert kind is not None
    field = made.DESCRIPTOR.fields_by_name[kind]
    newer = framed(field.number, getattr(made, kind).SerializeToString(deterministic=True) + UNKNOWN_FIELD)

    assert EXAMPLES[topic][name] == DECODERS[topic](newer)


def test_newer_samples_are_read() -> None:
    """Samples within a frame may carry numbers that only a newer agent knows."""
    record = inputs_pb2.InputRecord.FromString(recorded("inputs", "frame"))
    record.frame.gpus[0].MergeFromString(UNKNOWN_FIELD)
    record.frame.engines[0].MergeFromString(UNKNOWN_FIELD)

    assert wire_examples.FRAME == decode_input(7, record.SerializeToString()).body


def test_unknown_bandwidth_source_is_none() -> None:
    """A bandwidth source that only a newer agent knows is read as no source to rely on; the frame counts."""
    record = inputs_pb2.InputRecord.FromString(recorded("inputs", "frame"))
    newer = record.frame.gpus[0].SerializeToString() + bytes.fromhex("1863")  # field 3 again: 99
    record.frame.gpus[0].ParseFromString(newer)

    body = decode_input(7, record.SerializeToString()).body

    assert isinstance(body, Frame)
    assert wire_examples.GPU._replace(hbm_bandwidth_source=BandwidthSource.NONE) == body.gpus[0]


@pytest.mark.parametrize(
    ("name", "kind", "enum_field"),
    [("attach_engine", "attach", "kind"), ("ack_nack", "ack", "status"), ("intent", "intent", "mode")],
)
def test_unknown_enum_values_are_counted(name: str, kind: str, enum_field: str) -> None:
    """An enum value that only a newer peer knows makes its record malformed, with its pool and the reason."""
    record = inputs_pb2.InputRecord.FromString(recorded("inputs", name))
    number = getattr(record, kind).DESCRIPTOR.fields_by_name[enum_field].number
    getattr(record, kind).MergeFromString(bytes([number << 3, 99]))

    body = decode_input(7, record.SerializeToString()).body

    assert isinstance(body, Malformed)
    assert wire_examples.CHAT == body.pool
    assert "99 is not known here" in body.reason


def test_unknown_kind_of_input_is_counted() -> None:
    """A kind of input that only a newer peer knows is malformed, not an error."""
    assert Malformed(reason="unknown kind of input") == decode_input(7, framed(200, b"\x0a\x04chat")).body


def test_absent_input_is_counted() -> None:
    """A record without bytes is malformed, not an error, and keeps its offset."""
    found = decode_input(7, None)

    assert 7 == found.offset
    assert isinstance(found.body, Malformed)


def test_a_flag_is_no_number() -> None:
    """False, 0 and 0.0 are told apart on the wire: `0 == False` must not change a knob's type."""
    body = decode_input(7, recorded("inputs", "attach_engine")).body

    assert isinstance(body, Attach)
    assert wire_examples.EFFECTIVE == body.effective
    assert [bool, float, int, str] == [type(value) for value in body.effective.values()]


def _never_raises(value: bytes) -> None:
    body = decode_input(7, value).body

    if isinstance(body, Malformed):
        assert body.reason
        assert body.pool is None or body.pool == PoolId(str(body.pool))


@given(st.binary(max_size=400))
def test_random_bytes_never_raise(value: bytes) -> None:
    """No bytes make `decode_input` raise."""
    _never_raises(value)


@given(st.sampled_from(sorted(RECORDED["inputs"])), st.data())
def test_damaged_inputs_never_raise(name: str, data: st.DataObject) -> None:
    """No input with bytes changed, cut off, doubled or put in makes `decode_input` raise."""
    value = bytearray(recorded("inputs", name))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(value)))
        match data.draw(st.sampled_from(["change", "cut", "double", "put in"])):
            case "change":
                value[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del value[at : at + data.draw(st.integers(1, 8))]
            case "double":
                value[at:at] = value[at : at + data.draw(st.integers(1, 40))]
            case _:
                value[at:at] = data.draw(st.binary(max_size=12))

    _never_raises(bytes(value))


@given(st.sampled_from(sorted(RECORDED["inputs"])), st.sampled_from(sorted(RECORDED["inputs"])))
def test_two_inputs_in_one_never_raise(first: str, second: str) -> None:
    """Two inputs run together are read as one of them or counted, never an error."""
    _never_raises(recorded("inputs", first) + recorded("inputs", second))
