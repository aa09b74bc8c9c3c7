"""Records the bytes of version 1 of the wire format: `python tests/foundation/record_wire_v1.py`.

Adds what is new (messages, fields, examples) to tests/data/wire_v1.json. Refuses to change or drop
what is recorded there: somebody's log holds such bytes.
"""

import json
import sys
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor, FileDescriptor

import wire_examples
from flyball_proto.codec import encode_audit, encode_checkpoint, encode_directive, encode_input
from flyball_proto.v1 import common_pb2, inputs_pb2, outputs_pb2, services_pb2, telemetry_pb2

RECORDED = Path(__file__).resolve().parent.parent / "data" / "wire_v1.json"
FILES: tuple[FileDescriptor, ...] = tuple(
    module.DESCRIPTOR for module in (common_pb2, telemetry_pb2, inputs_pb2, outputs_pb2, services_pb2)
)
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def _field(field: FieldDescriptor) -> str:
    """What a reader of old bytes relies on: name, type, presence, and where it belongs."""
    kind = field.message_type or field.enum_type
    words = [field.name, str(kind.full_name) if kind else _TYPES[field.type]]
    if field.is_repeated:
        words.append("repeated")
    elif field.has_presence and not field.message_type:
        words.append("presence")
    if field.containing_oneof is not None and not field.containing_oneof.name.startswith("_"):
        words.append(f"in {field.containing_oneof.name}")
    return " ".join(words)


def describe() -> dict[str, str]:
    """Every field, enum value and method of the contract: its place, and what is promised of it."""
    said: dict[str, str] = {}
    for file in FILES:
        for message in file.message_types_by_name.values():
            for inner in (message, *message.nested_types):
                said |= {f"{inner.full_name} {field.number}": _field(field) for field in inner.fields}
        for enum in file.enum_types_by_name.values():
            said |= {f"{enum.full_name} {value.number}": value.name for value in enum.values}
        for service in file.services_by_name.values():
            for method in service.methods:
                called = f"{method.input_type.full_name} -> {method.output_type.full_name}"
                streams = f"client {method.client_streaming}, server {method.server_streaming}"
                said[f"{service.full_name}/{method.name}"] = f"{called} (streaming: {streams})"
    return said


def encode() -> dict[str, dict[str, str]]:
    """The bytes of every example, in hexadecimal, by topic and name."""
    return {
        "inputs": {name: encode_input(body).hex() for name, body in wire_examples.INPUTS.items()},
        "directives": {name: encode_directive(made).hex() for name, made in wire_examples.DIRECTIVES.items()},
        "decisions": {name: encode_audit(made).hex() for name, made in wire_examples.AUDIT.items()},
        "state": {name: encode_checkpoint(made).hex() for name, made in wire_examples.CHECKPOINTS.items()},
    }


def record() -> int:
    """Write the file anew; 1 and a line for each change if something recorded would change."""
    made = {"schema": describe(), **encode()}
    kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    changed = [
        f"{section}: {name}"
        for section in kept
        for name in kept[section]
        if made[section].get(name) != kept[section][name]
    ]
    if changed:
        print("wire: version 1 would change, which breaks whoever reads it:", *changed, sep="\n  ", file=sys.stderr)
        return 1
    RECORDED.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")
    print(f"wire: {sum(map(len, made.values()))} entries recorded in {RECORDED.name}")
    return 0


if __name__ == "__main__":
    sys.exit(record())
