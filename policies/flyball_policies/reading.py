"""Reading a policy document: a strict schema over safe YAML, with places in every error.

Refuses what it does not know instead of guessing: an unknown key names the nearest
right one, a number without its unit names the unit. Reading is pure: the same text
gives the same document or the same `InvalidDocument`.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from flyball_core.errors import InvalidDocument
from flyball_core.inputs import Mode
from flyball_policies.document import (
    REGIMES,
    CapsRule,
    GuardRule,
    KnobRule,
    Lane,
    PolicyDocument,
    VariantsRule,
    WeightsRule,
)

MAX_BYTES = 64 * 1024
"""Largest document taken."""

MAX_LANES = 64
MAX_NAME = 200
"""Longest name of a lane, in characters."""

LONGEST_S = 366 * 86_400.0
"""Longest duration taken."""

T = TypeVar("T")
Parse = Callable[[yaml.Node], Any]
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)\s*(ms|s|min|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


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
        return str(node.value)

    def items(self, node: yaml.Node, what: str) -> list[tuple[str, yaml.Node, yaml.Node]]:
        """The entries of a mapping: key, key node, value node. A key given twice is refused."""
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(node, f"{what} must be a mapping of keys to values")
        found: list[tuple[str, yaml.Node, yaml.Node]] = []
        for key_node, value_node in node.value:
            key = self.scalar(key_node, "a key")
            if any(key == earlier for earlier, _, _ in found):
                raise self.wrong(key_node, f"{key!r} is given twice in {what}")
            found.append((key, key_node, value_node))
        return found

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
            raise self.wrong(node, f"{text} is not between 0 and 1", f"write {text}%" if 1.0 < value <= 100.0 else "")
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
                raise self.wrong(node, f"{text} is not between {low:g} and {high:g}")
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


def read_document(text: str, file: str = "policy document") -> PolicyDocument:
    """The document that `text` (YAML) declares; `InvalidDocument` with the place if it is wrong."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise InvalidDocument("not UTF-8 text", file=file, line=line) from error
    if size > MAX_BYTES:
        raise InvalidDocument(f"larger than {MAX_BYTES // 1024} KiB", file=file, line=1)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise InvalidDocument(f"not YAML: {error.problem}", file=file, line=line, column=column) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidDocument(f"not YAML: {error}", file=file, line=1) from error
    if node is None:
        raise InvalidDocument("the document is empty", file=file, line=1)
    reader = DocumentReader(file)
    fields: dict[str, tuple[str, Parse]] = {
        "version": ("version", reader.number(1, 1, int)),
        "mode": ("mode", lambda n: Mode(reader.choice(tuple(m.value for m in Mode))(n))),
        "pools": ("pools", reader.names),
        "lanes": ("lanes", lambda n: _lanes(reader, n)),
        "knobs": ("knobs", lambda n: _knobs(reader, n)),
        "caps": ("caps", lambda n: _caps(reader, n)),
        "weights": ("weights", lambda n: _weights(reader, n)),
        "variants": ("variants", lambda n: _variants(reader, n)),
        "guard": ("guard", lambda n: _guard(reader, n)),
        "hold": ("hold_s", reader.duration),
    }
    values = reader.section(node, "the document", fields)
    if "version" not in values:
        raise reader.wrong(node, "the document does not say its version", "begin with `version: 1`")
    del values["version"]
    return PolicyDocument(**values)


def _lanes(reader: DocumentReader, node: yaml.Node) -> tuple[Lane, ...]:
    fields: dict[str, tuple[str, Parse]] = {
        "priority": ("priority", reader.number(-1000, 1000, int)),
        "ttft": ("ttft_s", reader.duration),
        "tpot": ("tpot_s", reader.duration),
        "end_to_end": ("end_to_end_s", reader.duration),
        "longest_wait": ("longest_wait_s", reader.duration),
    }
    items = reader.items(node, "lanes")
    if len(items) > MAX_LANES:
        raise reader.wrong(node, f"{len(items)} lanes; a gateway's table has room for {MAX_LANES}")
    for name, key_node, _ in items:
        if not 0 < len(name) <= MAX_NAME:
            raise reader.wrong(key_node, f"the name of a lane has 1 to {MAX_NAME} characters, not {len(name)}")
    return tuple(Lane(name=name, **reader.section(value, f"lane {name!r}", fields)) for name, _, value in items)


def _knobs(reader: DocumentReader, node: yaml.Node) -> Mapping[str, KnobRule]:
    # Read-only: policies see the document in force, and bounds are not theirs to move.
    number = reader.number(0, 1e9)
    rules: dict[str, KnobRule] = {}
    for name, _, value in reader.items(node, "knobs"):
        fields = {"min": ("minimum", number), "max": ("maximum", number)}
        rule = KnobRule(**reader.section(value, f"knob {name!r}", fields))
        _ordered(reader, value, name, rule.minimum, rule.maximum)
        rules[name] = rule
    return MappingProxyType(rules)


def _caps(reader: DocumentReader, node: yaml.Node) -> CapsRule:
    fields: dict[str, tuple[str, Parse]] = {
        "tpot_target": ("tpot_target", reader.share),
        "ttft_target": ("ttft_target", reader.share),
        "kv_headroom": ("kv_headroom", reader.share),
        "backoff": ("backoff", reader.number(0.1, 0.99)),
        "step": ("step", reader.number(1, 64, int)),
        "token_step": ("token_step", reader.number(1, 65_536, int)),
    }
    return CapsRule(**reader.section(node, "caps", fields))


def _weights(reader: DocumentReader, node: yaml.Node) -> WeightsRule:
    weight = reader.number(1, 256, int)
    fields: dict[str, tuple[str, Parse]] = {
        "min": ("minimum", weight),
        "max": ("maximum", weight),
        "nominal": ("nominal", weight),
        "period": ("period_s", reader.duration),
    }
    rule = WeightsRule(**reader.section(node, "weights", fields))
    _ordered(reader, node, "weights", rule.minimum, rule.nominal)
    _ordered(reader, node, "weights", rule.nominal, rule.maximum)
    return rule


def _variants(reader: DocumentReader, node: yaml.Node) -> VariantsRule:
    def regimes(value: yaml.Node) -> Mapping[str, str]:
        known = {name: (name, lambda n: reader.scalar(n, "a variant's name")) for name in REGIMES}
        return MappingProxyType(reader.section(value, "variants.regimes", known))

    fields: dict[str, tuple[str, Parse]] = {
        "regimes": ("regimes", regimes),
        "preference": ("preference", reader.share),
        "relaunch": ("relaunch", lambda n: tuple(reader.choice(REGIMES)(item) for item in reader.list_of(n))),
        "keep": ("keep", reader.number(0, 10_000, int)),
        "settle": ("settle_s", reader.duration),
    }
    return VariantsRule(**reader.section(node, "variants", fields))


def _guard(reader: DocumentReader, node: yaml.Node) -> GuardRule:
    fields: dict[str, tuple[str, Parse]] = {
        "dead_band": ("dead_band", reader.share),
        "slew_up": ("slew_up", reader.number(1.01, 10)),
        "slew_down": ("slew_down", reader.number(0.1, 0.99)),
        "raise_dwell": ("raise_dwell_s", reader.duration),
        "restart_dwell": ("restart_dwell_s", reader.duration),
        "changes_per_hour": ("changes_per_hour", reader.number(0, 1_000_000, int)),
        "in_change": ("in_change", reader.share),
        "min_serving": ("min_serving", reader.share),
        "canary": ("canary_s", reader.duration),
        "canary_tolerance": ("canary_tolerance", reader.share),
        "drain_timeout": ("drain_timeout_s", reader.duration),
        "relaunch_timeout": ("relaunch_timeout_s", reader.duration),
        "stale_ticks": ("stale_ticks", reader.number(1, 3600, int)),
    }
    return GuardRule(**reader.section(node, "guard", fields))


def _ordered(reader: DocumentReader, node: yaml.Node, what: str, low: float | None, high: float | None) -> None:
    if low is not None and high is not None and low > high:
        raise reader.wrong(node, f"{what}: the lower bound {low:g} is above the upper bound {high:g}", "swap them")
