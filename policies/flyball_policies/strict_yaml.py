"""Strict YAML: nodes turned into checked values, with the place of the fault in every error.

Knows no schema of its own: the policy document and the configuration file each bring theirs. Refuses
what it does not know instead of guessing: an unknown key names the nearest right one, a number without
its unit names the unit, a key given twice is one too many. Tags, merges and objects mean nothing here.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import yaml

from flyball_core.errors import InvalidDocument

LONGEST_S = 366 * 86_400.0
"""Longest duration taken."""
MAX_DEPTH = 16
"""Deepest nesting taken, lists and mappings together; no document of ours has a third of it."""

Parse = Callable[[yaml.Node], Any]
"""Turns a node into a value, or raises `InvalidDocument`."""
# No part can match the same digits in two ways, so that a long one takes no longer than its length.
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(ms|s|min|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


class _Loader(yaml.SafeLoader):
    """Refuses what is nested too deep. Without this Python's own limit did, which depends on who calls."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """One node and what is in it."""
        peek: Callable[[], Any] = self.peek_event  # whose stub has no types
        if self._depth >= MAX_DEPTH and isinstance(peek(), yaml.CollectionStartEvent):
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH}", peek().start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def compose(text: str, file: str, max_bytes: int) -> yaml.Node:
    """The root node of `text`, which is one YAML document of at most `max_bytes`; `InvalidDocument` otherwise."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise InvalidDocument("not UTF-8 text", file=file, line=line) from error
    if size > max_bytes:
        raise InvalidDocument(f"larger than {max_bytes // 1024} KiB", file=file, line=1)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InvalidDocument(f"not YAML: {error.problem}", file=file, line=line, column=column) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidDocument(f"not YAML: the character {text[error.position]!r}", file=file, line=line) from error
    # Of a character that there is none of, or a version beyond all numbers, the scanner raises what `int` and `chr` do.
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise InvalidDocument(f"not YAML: {error}", file=file, line=1) from error
    if node is None:
        raise InvalidDocument("the document is empty", file=file, line=1)
    return node


class DocumentReader:
    """Turns YAML nodes into checked values; knows the file's name for its errors."""

    def __init__(self, file: str) -> None:
        self.file = file

    def wrong(self, node: yaml.Node, problem: str, hint: str = "") -> InvalidDocument:
        """The error for this node."""
        mark = node.start_mark
        return InvalidDocument(problem, file=self.file, line=mark.line + 1, column=mark.column + 1, hint=hint)

    def scalar(self, node: yaml.Node, wanted: str) -> str:
        """The text of a scalar."""
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            raise self.wrong(node, f"expected {wanted}")
        text = str(node.value)
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            raise self.wrong(node, f"{text!r} holds half a character", "write the character itself, not its escapes")
        return text

    def items(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """The entries of a mapping: key, key node, value node. A key given twice is refused."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} must be a mapping of keys to values")
        found: dict[str, tuple[str, yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node, "a key")
            if key in found:
                raise self.wrong(key_node, f"{key!r} is given twice in {what}")
            found[key] = (key, key_node, value_node)
        return list(found.values())

    def section(self, node: yaml.Node, what: str, fields: Mapping[str, tuple[str, Parse]]) -> dict[str, Any]:
        """A mapping with known keys only: document key -> (field name, parser)."""
        values: dict[str, Any] = {}
        for key, key_node, value_node in self.items(node, what):
            if key not in fields:
                near = get_close_matches(key, fields, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else "known keys: " + ", ".join(fields)
                raise self.wrong(key_node, f"unknown key {key!r} in {what}", hint)
            name, parse = fields[key]
            values[name] = parse(value_node)
        return values

    def duration(self, node: yaml.Node) -> float:
        """Seconds of a duration such as `50ms`, `2s`, `10min`, `1h`."""
        text = self.scalar(node, "a duration such as 50ms, 2s, 10min or 1h")
        match = _DURATION.fullmatch(text.strip())
        if match is None:
            number = re.fullmatch(r"[0-9.]+", text.strip())
            hint = f"write {text}ms or {text}s" if number else "units are ms, s, min, h"
            raise self.wrong(node, f"{text!r} is not a duration with a unit", hint)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if seconds > LONGEST_S:
            raise self.wrong(node, f"{text} is longer than a year")
        return seconds

    def share(self, node: yaml.Node) -> float:
        """A share such as `8%` or `0.08`, 0 to 1."""
        text = self.scalar(node, "a share such as 8% or 0.08").strip()
        try:
            value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
        except ValueError:
            raise self.wrong(node, f"{text!r} is not a share", "write 8% or 0.08") from None
        if not 0.0 <= value <= 1.0:
            percent = 1.0 < value <= 100.0 and not text.endswith("%")
            raise self.wrong(node, f"{text} is not between 0 and 1", f"write {text}%" if percent else "")
        return value

    def number(self, low: float, high: float, kind: type[float] | type[int] = float) -> Parse:
        """A parser for a number in [low, high]."""

        def parse(node: yaml.Node) -> float | int:
            text = self.scalar(node, "a number").strip()
            try:
                value = kind(text)
            except ValueError:
                wanted = "a whole number" if kind is int else "a number"
                raise self.wrong(node, f"{text!r} is not {wanted}") from None
            if not low <= value <= high:
                raise self.wrong(node, f"{text} is not between {low:.10g} and {high:.10g}")
            return value

        return parse

    def choice(self, options: tuple[str, ...]) -> Parse:
        """A parser for one of some words."""

        def parse(node: yaml.Node) -> str:
            text = self.scalar(node, "one of " + ", ".join(options))
            if text not in options:
                near = get_close_matches(text, options, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else ""
                raise self.wrong(node, f"{text!r} is none of {', '.join(options)}", hint)
            return text

        return parse

    def list_of(self, node: yaml.Node) -> list[yaml.Node]:
        """The nodes of a list."""
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong(node, "expected a list of names", "write [a, b]")
        return list(node.value)

    def names(self, node: yaml.Node) -> tuple[str, ...]:
        """A list of names."""
        return tuple(self.scalar(item, "a name") for item in self.list_of(node))
