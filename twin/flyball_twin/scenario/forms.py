"""The forms that a scenario's values have: each reads a YAML node, and says the same as JSON schema.

One description serves the reader, the schema for editors and the tables of the documentation, so that none of them
can say something else than the others. A form judges what stands in one place of the document; whether two places fit
each other is for `meaning`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import yaml

from flyball_core.errors import InvalidDocument
from flyball_policies.strict_yaml import DocumentReader

MOST_ENTRIES = 256
"""Entries of a list or of a mapping by names; aliases would let a short document mean a long one."""

Schema = dict[str, Any]
Value = Any
"""What a document holds; the form knows which type."""
_STRING, _NUMBERS = "tag:yaml.org,2002:str", {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_BOOL = "tag:yaml.org,2002:bool"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


class ScenarioReader(DocumentReader):
    """Goes on after a fault, so that all of a document's faults can be told at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.folder = path.absolute().parent
        """Where what the document names is looked for."""
        self.faults: list[InvalidDocument] = []

    def fault(self, node: yaml.Node, problem: str, hint: str = "") -> None:
        """Keep a fault."""
        self.faults.append(self.wrong(node, problem, hint))

    def unknown(self, node: yaml.Node, what: str, name: str, known: Iterable[str]) -> None:
        """Keep that there is no such thing, with the nearest that there is."""
        there = list(known)
        near = get_close_matches(name, there, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "there are " + ", ".join(there)
        self.fault(node, f"there is no {what} {name!r}", hint)

    def attempt(self, form: "Form", node: yaml.Node) -> Value:
        """The value of a node; None if it is wrong, which is kept."""
        try:
            return form.read(self, node)
        except InvalidDocument as error:
            self.faults.append(error)
            return None


class Form(Protocol):
    """What a value may be."""

    @property
    def wanted(self) -> str:
        """In a few words, for the documentation."""
        ...

    def read(self, reader: ScenarioReader, node: yaml.Node) -> Value:
        """The value. Raises `InvalidDocument`."""
        ...

    def schema(self, defs: Schema) -> Schema:
        """The same as JSON schema; what it refers to is added to `defs`."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A section as read: the values of the keys that are there, and where they stand."""

    node: yaml.Node
    values: Mapping[str, Any]
    nodes: Mapping[str, yaml.Node]

    def get(self, key: str, default: Value = None) -> Value:
        """The value of a key; `default` if it is not there."""
        return self.values.get(key, default)

    def at(self, key: str) -> yaml.Node:
        """Where a key's value stands; the section where it is not there."""
        return self.nodes.get(key, self.node)


@dataclass(frozen=True, slots=True)
class Duration:
    """`30s`, `5min`; in seconds."""

    signed: bool = False

    @property
    def wanted(self) -> str:
        """In a few words."""
        return "duration (`30s`, `5min`, `-2s`)" if self.signed else "duration (`30s`, `5min`)"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> float:
        """Seconds."""
        if self.signed and isinstance(node, yaml.ScalarNode) and node.value.startswith("-"):
            return -reader.duration(yaml.ScalarNode(node.tag, node.value[1:], node.start_mark, node.end_mark))
        return reader.duration(node)

    def schema(self, defs: Schema) -> Schema:
        """A text with a unit."""
        del defs
        sign = "-?" if self.signed else ""
        return {"type": "string", "pattern": rf"^{sign}([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*(ms|s|min|h)$"}


@dataclass(frozen=True, slots=True)
class Share:
    """`8%` or `0.08`; from 0 to 1, or above 0."""

    above: bool = False

    @property
    def wanted(self) -> str:
        """In a few words."""
        return "share above 0 (`45%`)" if self.above else "share (`45%`)"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> float:
        """0 to 1."""
        value = reader.share(node)
        if self.above and not value > 0.0:
            raise reader.wrong(node, "a share above 0 is wanted")
        return value

    def schema(self, defs: Schema) -> Schema:
        """A number or a percentage."""
        del defs
        number: Schema = {"type": "number", "maximum": 1}
        number["exclusiveMinimum" if self.above else "minimum"] = 0
        percent = r"(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%"
        not_zero = r"(?!0+(\.0+)?%)" if self.above else ""
        return {"anyOf": [number, {"type": "string", "pattern": f"^{not_zero}{percent}$"}]}


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`; above `low` if `above`."""

    low: float
    high: float
    whole: bool = False
    above: bool = False

    @property
    def wanted(self) -> str:
        """In a few words."""
        low = f"above {self.low:g}" if self.above else f"{self.low:g}"
        return f"{'whole number' if self.whole else 'number'}, {low} to {self.high:,.10g}"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> float | int:
        """The number; one in quotes is a text, as in YAML."""
        if isinstance(node, yaml.ScalarNode) and node.tag not in _NUMBERS and not _plain_power(node):
            raise reader.wrong(node, f"{node.value!r} is not a number", "a number without unit or quotes")
        value: float | int = reader.number(self.low, self.high, int if self.whole else float)(node)
        if self.above and not value > self.low:
            raise reader.wrong(node, f"{value:g} is not above {self.low:g}")
        return value

    def schema(self, defs: Schema) -> Schema:
        """A number with its bounds."""
        del defs
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "integer" if self.whole else "number", low: self.low, "maximum": self.high}


def _plain_power(node: yaml.ScalarNode) -> bool:
    """Whether it is `1e6`, which is a number in YAML 1.2 and in JSON, and a text in YAML 1.1."""
    return node.style is None and re.fullmatch(r"[0-9]+(\.[0-9]+)?[eE][0-9]+", node.value) is not None


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""

    wanted: str = "`true` or `false`"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> bool:
        """Whether it is so."""
        if not isinstance(node, yaml.ScalarNode) or node.tag != _BOOL:
            raise reader.wrong(node, "expected true or false")
        return str(node.value).lower() in ("true", "yes", "on")

    def schema(self, defs: Schema) -> Schema:
        """A truth value."""
        del defs
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Name:
    """A name; of letters, digits, `.`, `_` and `-` unless `pattern` says otherwise."""

    what: str
    pattern: str = _NAME
    known: tuple[str, ...] = ()
    """Names that an editor may offer; others may be right as well."""

    @property
    def wanted(self) -> str:
        """In a few words."""
        return self.what

    def read(self, reader: ScenarioReader, node: yaml.Node) -> str:
        """The name."""
        text = reader.scalar(node, self.what)
        if isinstance(node, yaml.ScalarNode) and node.tag != _STRING:
            raise reader.wrong(node, f"{text} is no text", f'write "{text}"')
        if re.fullmatch(self.pattern, text) is None:
            raise reader.wrong(node, f"{text!r} is not {self.what}")
        return text

    def schema(self, defs: Schema) -> Schema:
        """A text of that pattern."""
        del defs
        offered = {"examples": list(self.known)} if self.known else {}
        return {"type": "string", "pattern": f"^{self.pattern}$", **offered}


@dataclass(frozen=True, slots=True)
class Text:
    """Any text on a line, which a terminal can show."""

    wanted: str = "text"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> str:
        """The text."""
        text = reader.scalar(node, "a text")
        if isinstance(node, yaml.ScalarNode) and node.tag != _STRING:
            raise reader.wrong(node, f"{text} is no text", f'write "{text}"')
        if not text.isprintable():
            raise reader.wrong(node, f"{text!r} holds a line break or a control character", "one line of plain text")
        return text

    def schema(self, defs: Schema) -> Schema:
        """A text."""
        del defs
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Word:
    """One of some words."""

    options: tuple[str, ...]

    @property
    def wanted(self) -> str:
        """In a few words."""
        return " or ".join(f"`{option}`" for option in self.options)

    def read(self, reader: ScenarioReader, node: yaml.Node) -> str:
        """The word."""
        return str(reader.choice(self.options)(node))

    def schema(self, defs: Schema) -> Schema:
        """One of these."""
        del defs
        return {"enum": list(self.options)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of at least `least` values."""

    form: Form
    least: int = 0

    @property
    def wanted(self) -> str:
        """In a few words."""
        return f"list of {self.form.wanted}"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> list[Any]:
        """The values; those that are wrong are left out, and kept as faults."""
        if not isinstance(node, yaml.SequenceNode):
            raise reader.wrong(node, f"expected a {self.wanted}", "write [a, b], or one on each line after `- `")
        if not self.least <= len(node.value) <= MOST_ENTRIES:
            bound = f"at least {self.least} is" if len(node.value) < self.least else f"at most {MOST_ENTRIES} are"
            raise reader.wrong(node, f"{bound} wanted")
        return [reader.attempt(self.form, item) for item in node.value]

    def schema(self, defs: Schema) -> Schema:
        """An array."""
        return {"type": "array", "items": self.form.schema(defs), "minItems": self.least, "maxItems": MOST_ENTRIES}


@dataclass(frozen=True, slots=True)
class ByName:
    """A mapping of at least one name to values."""

    key: Name
    form: Form

    @property
    def wanted(self) -> str:
        """In a few words."""
        return f"by {self.key.wanted}: {self.form.wanted}"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> dict[str, Any]:
        """The values by name, in the document's order; those that are wrong are kept as faults."""
        values: dict[str, Any] = {}
        items = reader.items(node, f"a mapping of {self.key.wanted}")
        if not items:
            raise reader.wrong(node, f"at least one {self.key.wanted} is wanted")
        if len(items) > MOST_ENTRIES:
            raise reader.wrong(node, f"at most {MOST_ENTRIES} are wanted")
        for name, key_node, value in items:
            if reader.attempt(self.key, key_node) is not None:
                values[name] = reader.attempt(self.form, value)
        return values

    def schema(self, defs: Schema) -> Schema:
        """An object with keys of the operator's own."""
        values = {self.key.schema(defs)["pattern"]: self.form.schema(defs)}
        return {
            "type": "object",
            "patternProperties": values,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": MOST_ENTRIES,
        }


@dataclass(frozen=True, slots=True)
class Shares:
    """One name, which gets everything, or names with their shares."""

    key: Name

    @property
    def wanted(self) -> str:
        """In a few words."""
        return f"{self.key.wanted}, or shares by name (`{{a: 70%, b: 30%}}`)"

    def read(self, reader: ScenarioReader, node: yaml.Node) -> dict[str, float]:
        """Shares by name."""
        if isinstance(node, yaml.ScalarNode):
            return {self.key.read(reader, node): 1.0}
        return ByName(self.key, Share(above=True)).read(reader, node)

    def schema(self, defs: Schema) -> Schema:
        """Either."""
        return {"anyOf": [self.key.schema(defs), ByName(self.key, Share(above=True)).schema(defs)]}
