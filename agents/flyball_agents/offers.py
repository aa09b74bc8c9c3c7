"""What arrives at a receiver, and whether it is well formed at all.

Nothing here knows what is held; it only keeps what is no version and no value from
getting as far as a comparison.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import KnobSpec, Setting

MOST_TEXT = 256
"""Characters of the longest text a knob takes."""

MOST_NUMBER = 1e15
"""Beyond this a double no longer holds every whole number, and no knob has a use for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom a receiver answers for."""

    pool: PoolId
    kind: TargetKind
    name: str
    incarnation: Incarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A directive or table as the receiver judges it."""

    pool: PoolId
    target: str
    version: Version
    values: Setting
    incarnation: Incarnation = Incarnation("")
    """The incarnation that a restart ends; may be empty for live knobs."""
    capability_hash: str | None = None
    """What the target could do when this was decided; None where the message has no such field."""
    unreadable: str = ""
    """Why its values could not be read off the wire; empty if they could."""


def unfit(spec: KnobSpec, value: object) -> str | None:
    """Why a knob cannot take what arrived for it, whatever that is; None if it can.

    Stricter than `KnobSpec.refuse`: also what is no value at all, not finite or absurdly large.
    """
    if not isinstance(value, (bool, int, float, str)):
        return f"{spec.name} takes a single value, not {type(value).__name__}"
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return f"{spec.name} takes no text of {len(value)} characters"
    # Also false for NaN; and no integer so large that it could not be written out.
    if not isinstance(value, str) and not -MOST_NUMBER <= value <= MOST_NUMBER:
        return f"{spec.name} takes no number beyond {MOST_NUMBER:g}"
    return spec.refuse(value)


def unmapped(values: object) -> str | None:
    """Why what arrived is no setting at all; None if it is one."""
    return None if isinstance(values, Mapping) else "the values are no mapping"


def sound(version: object) -> bool:
    """Whether a version is one: positions are whole and not negative, the log has a name."""
    if not isinstance(version, Version) or not isinstance(version.log_id, str) or not version.log_id:
        return False
    return all(type(p) is int and 0 <= p < 1 << 63 for p in (version.partition, version.epoch, version.revision))
