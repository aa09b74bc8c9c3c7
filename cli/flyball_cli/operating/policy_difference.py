"""What a policy document changes: in its text line by line, and in its meaning field by field.

Two documents may differ in every line and mean the same. Fields that are left out stand with
the default that holds for them, so that nothing hides behind a missing line.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import unified_diff
from enum import Enum
from typing import Any

from flyball_core.errors import InvalidDocument
from flyball_policies.document import Lane, PolicyDocument
from flyball_policies.reading import read_document

Plain = bool | int | float | str | list[str] | None


def text_difference(old: str, new: str, old_name: str, new_name: str) -> list[str]:
    """The unified difference of two texts; empty if they are the same."""
    lines = unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm="")
    return list(lines)


def meaning(document: PolicyDocument) -> dict[str, Plain]:
    """Every field of a document by its path, defaults included; lanes by their names."""
    found: dict[str, Plain] = {}
    _flatten(document, "", found)
    return found


def _flatten(value: Any, path: str, found: dict[str, Plain]) -> None:  # noqa: ANN401 - a field of any type
    if is_dataclass(value):
        for one in fields(value):
            if not (isinstance(value, Lane) and one.name == "name"):
                _flatten(getattr(value, one.name), f"{path}.{one.name}".lstrip("."), found)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}", found)
    elif isinstance(value, tuple) and any(isinstance(one, Lane) for one in value):
        for lane in value:
            _flatten(lane, f"{path}.{lane.name}", found)
    else:
        found[path] = value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value


def changed_meaning(old: str, new: str) -> list[dict[str, Any]] | None:
    """The fields in which two documents differ: `field`, `old`, `new`, and null where one has no such field.

    None if the old text cannot be read here: a newer Flyball may have written it. The empty text
    stands for all defaults. Raises `InvalidDocument` for the new one.
    """
    after = meaning(read_document(new))
    try:
        before = meaning(read_document(old) if old else PolicyDocument())
    except InvalidDocument:
        return None
    return [
        {"field": path, "old": before.get(path), "new": after.get(path)}
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path) and not (_empty(before.get(path)) and _empty(after.get(path)))
    ]


def _empty(value: Plain) -> bool:
    """Whether nothing stands there: no field, no value, or a list of nothing."""
    return value is None or value == []


def meaning_lines(changes: list[dict[str, Any]] | None) -> list[str]:
    """The changed fields in words."""
    if changes is None:
        return ["The document in force cannot be read by this version, so what changes in meaning is not known."]
    if not changes:
        return ["Nothing changes in meaning."]
    return ["What changes:", *[f"  {one['field']}: {_said(one['old'])} -> {_said(one['new'])}" for one in changes]]


def _said(value: Plain) -> str:
    if value is None:
        return "-"
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
