"""Prints the shape of the controller's state as JSON: run with either version, so it imports nothing of the tests.

`{"schema": n, "kinds": {name: {field: {"type": ..., "default": ...}}}}`: every class that a state can hold,
from `PartitionState` down. What the detector and policies remember is plain data and does not show.
"""

import enum
import json
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from flyball_controller.machine import export, state


def _kind(kind: Any, kinds: dict[str, Any]) -> str:
    """The type in words; classes of ours that it names are added to `kinds`."""
    if isinstance(kind, typing.NewType):
        return _kind(kind.__supertype__, kinds)
    arguments = typing.get_args(kind)
    if arguments:
        origin = typing.get_origin(kind)
        name = "union" if origin in (types.UnionType, typing.Union) else getattr(origin, "__name__", str(origin))
        inner = [_kind(one, kinds) if one is not Ellipsis else "..." for one in arguments]
        return f"{name}[{', '.join(sorted(inner) if name == 'union' else inner)}]"
    if not isinstance(kind, type):
        return str(kind)
    if kind.__name__ not in kinds and kind.__module__.startswith("flyball"):
        _add(kind, kinds)
    return kind.__name__


def _add(kind: type, kinds: dict[str, Any]) -> None:
    if issubclass(kind, enum.Enum):
        kinds[kind.__name__] = {member.name: {"type": repr(member.value), "default": ""} for member in kind}
    elif is_dataclass(kind):
        known = kinds[kind.__name__] = {}
        hints = typing.get_type_hints(kind)
        for field in fields(kind):
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            default = "" if made is MISSING else repr(made)
            known[field.name] = {"type": _kind(hints[field.name], kinds), "default": default}
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        known = kinds[kind.__name__] = {}
        defaults = getattr(kind, "_field_defaults", {})
        for place, (name, hint) in enumerate(typing.get_type_hints(kind).items()):
            default = repr(defaults[name]) if name in defaults else ""
            known[f"{place} {name}"] = {"type": _kind(hint, kinds), "default": default}
    else:  # an id: text with a name
        kinds[kind.__name__] = {"": {"type": str(kind.__mro__[1].__name__), "default": ""}}


def main() -> None:
    """Print it."""
    kinds: dict[str, Any] = {}
    _add(state.PartitionState, kinds)
    print(json.dumps({"schema": export.SCHEMA, "kinds": kinds}, sort_keys=True))


if __name__ == "__main__":
    main()
