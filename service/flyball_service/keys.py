"""What the configuration file may hold, read off the dataclasses of `flyball_service.config`.

One description serves the reader, `flyball config explain` and `flyball config example`, so that
none of them can say something else than the others. Knows no YAML and reads no file but Python's own source.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from textwrap import dedent
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from flyball_service.forms import Form, Mark, OneOf, Within

_SECONDS = "_s"


class Many(Enum):
    """How many values a key takes."""

    ONE = "one"
    LIST = "list"
    BY_NAME = "by name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the file."""

    name: str
    """As written in the file: the field's name; a duration's without its unit."""
    field: str
    """Name of the dataclass's field."""
    doc: str
    """What it is for: the field's docstring, on one line."""
    of: type
    """Type of the value, or of each value."""
    many: Many
    """Whether `of` is one value, a list's or a mapping's."""
    mark: Mark | None
    """What values of that type are meant."""
    default: Any
    """Its default; `dataclasses.MISSING` if it must be given."""
    example: str
    """What an example file says, if it must be given."""
    shown: bool
    """Whether an example file gives it, though it need not be given."""

    @property
    def required(self) -> bool:
        """Whether the file must give it."""
        return self.default is MISSING

    @property
    def duration(self) -> bool:
        """Whether it is written with a unit, `1s`."""
        return self.field.endswith(_SECONDS)

    @property
    def section(self) -> bool:
        """Whether it holds keys of its own."""
        return is_dataclass(self.of)

    @property
    def wanted(self) -> str:
        """The type, in words."""
        one = self._one
        return {Many.ONE: one, Many.LIST: f"list of {one}", Many.BY_NAME: f"{one} by name"}[self.many]

    @property
    def _one(self) -> str:
        if self.section:
            return "section"
        if issubclass(self.of, Enum):
            return " | ".join(str(member.value) for member in self.of)
        if isinstance(self.mark, OneOf):
            return " | ".join(self.mark.options)
        if isinstance(self.mark, Form):
            return self.mark.value
        if self.duration:
            return "duration"
        return {bool: "true | false", int: "whole number", float: "number", Path: "path"}.get(self.of, "text")

    @property
    def limits(self) -> tuple[float, float] | None:
        """Least and greatest number taken, in the field's unit."""
        return (self.mark.low, self.mark.high) if isinstance(self.mark, Within) else None


@cache
def keys_of(section: type) -> tuple[Key, ...]:
    """The keys of a section, in the order of its dataclass."""
    hints = get_type_hints(section, include_extras=True)
    docs = _docs(section)
    return tuple(
        _key(one, hints[one.name], docs.get(one.name, "")) for one in fields(section) if one.metadata.get("key", True)
    )


def walk(section: type, path: str = "") -> Iterator[tuple[str, Key]]:
    """Every key below `section` with its dotted path; `[]` stands for each entry of a list."""
    for key in keys_of(section):
        here = f"{path}.{key.name}" if path else key.name
        yield here, key
        if key.section:
            yield from walk(key.of, here + ("[]" if key.many is Many.LIST else ""))


def _key(one: "Field[Any]", hint: object, doc: str) -> Key:
    of, many, mark = _resolved(hint)
    default = one.default_factory() if one.default_factory is not MISSING else one.default
    name = one.name.removesuffix(_SECONDS)
    return Key(
        name=name,
        field=one.name,
        doc=doc,
        of=of,
        many=many,
        mark=mark,
        default=default,
        example=one.metadata.get("example", ""),
        shown=one.metadata.get("shown", False),
    )


def _resolved(hint: object) -> tuple[type, Many, Mark | None]:
    """The type, how many, and the mark in a field's annotation."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        of, many, _ = _resolved(args[0])
        return of, many, args[1]
    if origin in (Union, UnionType):
        return _resolved(next(arg for arg in args if arg is not NoneType))
    if origin is tuple:
        of, _, mark = _resolved(args[0])
        return of, Many.LIST, mark
    if origin is dict:
        of, _, mark = _resolved(args[1])
        return of, Many.BY_NAME, mark
    assert isinstance(hint, type)
    return hint, Many.ONE, None


def _docs(section: type) -> dict[str, str]:
    """The docstring after each field. It is in the source only: Python keeps none for fields."""
    body = ast.parse(dedent(inspect.getsource(section))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[statement.target.id] = " ".join(text.split())
                case _:
                    pass
    return docs
