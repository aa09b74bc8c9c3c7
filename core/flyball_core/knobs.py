"""Knobs: what an engine or gateway can change, and within which bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

Value = bool | int | float | str
"""What a knob can be set to."""

Setting = Mapping[str, Value]
"""One value per knob."""

BATCH_CAP = "max_active_requests"
"""The standard name of the batch cap: most requests an engine runs at once."""

TOKEN_BUDGET = "max_batched_tokens"  # noqa: S105 - a knob's name, not a secret
"""The standard name of the token budget: most tokens an engine schedules in a step."""

VARIANT = "variant"
"""The standard name of the restart-class kernel choice."""

WEIGHT = "weight"
"""The routing knob every engine has: its weight in the routing tables (0 to 256)."""


class KnobClass(Enum):
    """When a change of this knob takes effect."""

    LIVE = "live"
    """Between two steps of a running engine."""
    RESTART = "restart"
    """Through drain and relaunch of the engine."""
    ROUTING = "routing"
    """Only by sending the engine different work."""


class KnobKind(Enum):
    """The type of a knob's value."""

    INTEGER = "integer"
    REAL = "real"
    CHOICE = "choice"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobSpec:
    """One knob as its holder advertises it at attach.

    `minimum` and `maximum` bound INTEGER and REAL knobs (both inclusive);
    `choices` lists what a CHOICE knob accepts. `safe` is the value to ease to when
    nobody governs; `unit` is the field's term ("requests", "tokens", "ratio", "").
    """

    name: str
    knob_class: KnobClass
    kind: KnobKind
    safe: Value
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""

    def refuse(self, value: Value) -> str | None:
        """Why `value` cannot be held by this knob, in words; None if it can."""
        if self.kind is KnobKind.FLAG:
            return None if isinstance(value, bool) else f"{self.name} takes true or false, not {value!r}"
        if self.kind is KnobKind.CHOICE:
            if isinstance(value, str) and value in self.choices:
                return None
            return f"{self.name} takes one of {', '.join(self.choices)}, not {value!r}"
        if isinstance(value, (bool, str)) or (self.kind is KnobKind.INTEGER and not isinstance(value, int)):
            wanted = "a whole number" if self.kind is KnobKind.INTEGER else "a number"
            return f"{self.name} takes {wanted}, not {value!r}"
        # `not (low <= value <= high)` also refuses NaN, which compares false with everything.
        low = self.minimum if self.minimum is not None else float("-inf")
        high = self.maximum if self.maximum is not None else float("inf")
        if not (low <= value <= high):
            return f"{self.name} takes {low:g} to {high:g}, not {value!r}"
        return None
