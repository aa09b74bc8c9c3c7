"""Reading a policy document: its schema over strict YAML, with places in every error.

Refuses what it does not know instead of guessing. Reading is pure: the same text gives the
same document or the same `InvalidDocument`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import yaml

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
from flyball_policies.strict_yaml import DocumentReader, Parse, compose

MAX_BYTES = 64 * 1024
"""Largest document taken."""

MAX_LANES = 64
MAX_NAME = 200
"""Longest name of a lane, in characters."""


def read_document(text: str, file: str = "policy document") -> PolicyDocument:
    """The document that `text` (YAML) declares; `InvalidDocument` with the place if it is wrong."""
    return read_node(DocumentReader(file), compose(text, file, MAX_BYTES))


def read_node(reader: DocumentReader, node: yaml.Node) -> PolicyDocument:
    """The document that stands at a node, perhaps within another one; raises as `read_document`."""
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
