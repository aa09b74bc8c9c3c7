"""Spans of time and moments as an operator writes them, and values of knobs as they are typed.

Refuses a moment without a zone and a number without a unit instead of guessing.
"""

import re
from datetime import datetime

from flyball_cli.wording import calendar
from flyball_core.errors import Rejected
from flyball_core.knobs import KnobKind, KnobSpec, Value

LONGEST_S = 366 * 86_400.0
"""Longest span taken: an override that outlives its author's memory belongs in the policy document."""

_LONGEST_TEXT = 100

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|h|min|m|s)")
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "min": 60.0, "m": 60.0, "s": 1.0}
_FLAGS = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


def read_span(text: str) -> float:
    """Seconds of a span such as `90s`, `30m`, `1h30m`, `2d`; `Rejected` if it is none, or not longer than nothing."""
    bare = text.replace(" ", "")
    # Digits without a unit are looked at once from each of them on: so no more than anybody would type.
    parts = _PART.findall(bare) if len(bare) <= _LONGEST_TEXT else []
    if not parts or "".join(number + unit for number, unit in parts) != bare:
        hint = f"write {bare}s or {bare}m" if re.fullmatch(r"[0-9.]+", bare) else "as in 90s, 30m, 1h30m, 2d"
        raise Rejected(f"{text!r} is no span of time ({hint})")
    span_s = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0.0 < span_s <= LONGEST_S:
        raise Rejected(f"{text!r} is not longer than nothing and at most a year")
    return span_s


def read_moment(text: str) -> float:
    """Unix time of an ISO moment with its zone, such as `2026-11-21T18:00:00Z`; `Rejected` if it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Rejected(f"{text!r} is no moment (as in 2026-11-21T18:00:00Z)") from None
    if moment.tzinfo is None:
        raise Rejected(f"{text!r} does not say its zone: add Z for UTC, or the offset, as in +01:00")
    return moment.timestamp()


def moment(wall_s: float) -> str:
    """A moment of Unix time, in UTC; as plain seconds where no calendar has it."""
    return calendar(wall_s)


def typed_value(text: str, spec: KnobSpec) -> Value:
    """What was typed, as this knob takes it; `Rejected` if it is of another type.

    Only the type is judged here: what lies out of bounds is the owner's to refuse, which knows the policy document.
    """
    if spec.kind is KnobKind.CHOICE:
        return text
    if spec.kind is KnobKind.FLAG:
        if text.lower() not in _FLAGS:
            raise Rejected(f"{spec.name} takes true or false, not {text!r}")
        return _FLAGS[text.lower()]
    whole = spec.kind is KnobKind.INTEGER
    try:
        return int(text) if whole else float(text)
    except ValueError:
        unit = f" of {spec.unit}" if spec.unit else ""
        raise Rejected(f"{spec.name} takes {'a whole number' if whole else 'a number'}{unit}, not {text!r}") from None
