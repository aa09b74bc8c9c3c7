"""Whether the receivers that an override concerns hold its value, from the owner's status."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from flyball_cli.operating.merging import Owned
from flyball_cli.operating.status_document import mode_of
from flyball_core.inputs import Mode
from flyball_core.knobs import WEIGHT, Value
from flyball_proto.codec.words import read_known
from flyball_proto.v1.common_pb2 import TARGET_KIND_ENGINE, TARGET_KIND_GATEWAY
from flyball_proto.v1.inputs_pb2 import OverrideSet
from flyball_proto.v1.services_pb2 import TargetStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """One receiver of an override, and what it reads back of it."""

    name: str
    knob: str
    holds: bool
    effective: Value | None
    trouble: str

    def document(self) -> dict[str, Any]:
        """As part of a JSON document."""
        return {**asdict(self), "trouble": self.trouble or None}


def not_pushed(owned: Owned) -> str:
    """Why nothing is pushed to the pool's receivers now, in words; empty if it is."""
    pool, mode = owned.status.pool, mode_of(owned.status)
    if mode != Mode.CONTROL.value:
        return f"{pool} is in {mode}: nothing is pushed in this mode (flyball mode {pool} control)"
    if owned.status.paused:
        return f"{pool} is paused: nothing is pushed until it is resumed (flyball resume {pool})"
    return ""


def holdings(owned: Owned, order: OverrideSet, value: Value) -> list[Receiver]:
    """Each attached receiver that the override concerns: engines, or for a weight the gateways."""
    targets = owned.status.targets
    engines = [
        one for one in targets if one.kind == TARGET_KIND_ENGINE and order.target in ("", one.target) and one.attached
    ]
    if order.knob != WEIGHT:
        having = [one for one in engines if order.knob in {spec.name for spec in one.knobs}]
        return [_holding(one, order.knob, value) for one in having]
    gateways = [one for one in targets if one.kind == TARGET_KIND_GATEWAY and one.attached]
    return [_holding(one, f"{WEIGHT}:{engine.target}", value) for one in gateways for engine in engines]


def _holding(target: TargetStatus, knob: str, value: Value) -> Receiver:
    held = read_known(target.effective).get(knob)
    return Receiver(name=target.target, knob=knob, holds=_same(held, value), effective=held, trouble=target.trouble)


def _same(held: Value | None, value: Value) -> bool:
    numbers = (int, float)
    if isinstance(held, bool) or isinstance(value, bool) or not isinstance(held, numbers):
        return held == value and type(held) is type(value)
    return isinstance(value, numbers) and math.isclose(held, value, rel_tol=1e-6)


def receiver_lines(receivers: Iterable[Receiver]) -> list[str]:
    """Who holds it, and what the others hold so far."""
    lines = []
    for one in receivers:
        if one.holds:
            lines.append(f"acknowledged by {one.name} (effective {one.effective})")
            continue
        so_far = "nothing" if one.effective is None else one.effective
        trouble = f": {one.trouble}" if one.trouble else ", on its way there"
        lines.append(f"not yet held by {one.name}, which holds {so_far}{trouble}")
    return lines or ["no receiver that it concerns is attached now; who attaches is told"]
