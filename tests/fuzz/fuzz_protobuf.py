"""Protobuf messages changed field by field: sound in their form, and in nothing else."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzz_bytes import Draw

_EXAMPLES = Path(__file__).parents[1] / "data" / "wire_v1.json"
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e18, 1e24, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
_INTEGERS = (0, 1, 2, 7, 255, 2**31 - 1)
_WIDE = (*_INTEGERS, 2**32 - 1, 2**62, 2**63 - 1)
_TEXTS = (
    "",
    "x",
    "chat",
    "e0-0",
    "gw0",
    "max_active_requests",
    "variant",
    "weight",
    "\x00",
    "\u202e",
    "é😀",
    "a" * 300,
    "b" * 5000,
)
_KINDS = {
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOATS,
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_INT32: (*_INTEGERS, -1, -(2**31)),
    FieldDescriptor.CPPTYPE_INT64: (*_WIDE, -1, -(2**63)),
    FieldDescriptor.CPPTYPE_UINT32: (*_INTEGERS, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (*_WIDE, 2**64 - 1),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_ENUM: (0, 1, 2, 3, 4, 99, -1),
    FieldDescriptor.CPPTYPE_STRING: _TEXTS,
}


@cache
def recorded(kind: str) -> tuple[bytes, ...]:
    """The recorded examples of the wire contract: its `inputs`, `directives`, `decisions` or `state`."""
    return tuple(bytes.fromhex(each) for each in json.loads(_EXAMPLES.read_text())[kind].values())


def messages_in(message: Message) -> list[Message]:
    """The message and all that are set within it, maps apart."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else [value]:
            found += messages_in(inner)
    return found


def change(message: Message, draw: Draw) -> None:
    """Put an odd value into one field somewhere in the message, empty it, or double an element of a list."""
    inside = messages_in(message)
    one = inside[draw.byte() % len(inside)]
    fields = one.DESCRIPTOR.fields
    if not fields:
        return
    field = fields[draw.byte() % len(fields)]
    how = draw.byte()
    if how % 8 == 0:
        one.ClearField(field.name)
    elif field.message_type is not None:
        _change_inner(getattr(one, field.name), field.message_type, how, many=field.is_repeated)
    elif field.cpp_type in _KINDS:
        options = _KINDS[field.cpp_type]
        value: object = options[how % len(options)]
        if field.type == FieldDescriptor.TYPE_BYTES:
            value = str(value).encode()
        if field.is_repeated:
            getattr(one, field.name).append(value)
        else:
            setattr(one, field.name, value)


def _change_inner(inner: Any, kind: Any, how: int, *, many: bool) -> None:
    if not many:
        inner.SetInParent()
    elif not kind.GetOptions().map_entry:
        copy = inner[how % len(inner)] if inner else None
        made = inner.add()
        if copy is not None:
            made.CopyFrom(copy)
    elif kind.fields_by_name["value"].message_type is None:
        options = _KINDS[kind.fields_by_name["value"].cpp_type]
        inner[_TEXTS[how % len(_TEXTS)]] = options[how % len(options)]
    else:
        inner[_TEXTS[how % len(_TEXTS)]].SetInParent()
