"""How much may be known by name, so that whatever is made of it fits into a record of the log.

An owner that decides what the log does not take stops at that input, and so does its
successor. So names and texts are measured where they come in; what is refused is counted.
"""

from collections.abc import Iterable, Mapping

from flyball_core.inputs import Attach, OverrideSet, TargetKind

MAX_NAME = 200
"""Longest name of a pool, engine, gateway, knob or author, in characters."""

MAX_NAMES_BYTES = 224 * 1024
"""Most that the engines of a pool take up in a gateway's answer, which names each with its weight and its cap."""

MAX_SETTING_BYTES = 32 * 1024
"""Most that the knobs of an engine and their values take up in a directive."""

MAX_OVERRIDES_BYTES = 128 * 1024
"""Most that the overrides of a pool take up in an intent, which repeats them all."""

_ROUTE_BYTES = 40
_OVERRIDE_BYTES = 64


def room_for(known: Mapping[str, object], name: str, most: int) -> bool:
    """Whether another engine or gateway can be taken in beside those known."""
    if not 0 < len(name) <= MAX_NAME or len(known) >= most:
        return False
    names = sum([len(other.encode()) for other in known]) + len(name.encode())
    return 2 * names + _ROUTE_BYTES * (len(known) + 1) <= MAX_NAMES_BYTES


def fits(body: Attach) -> bool:
    """Whether what a receiver says of itself can be said back to it."""
    if max(len(body.incarnation), len(body.capability_hash)) > MAX_NAME:
        return False
    if body.kind is TargetKind.GATEWAY:
        return True
    words = [*body.effective, *[str(value) for value in body.effective.values()]]
    for knob in body.knobs:
        words += [knob.name, knob.unit, str(knob.safe), *knob.choices]
    return sum([len(word.encode()) + 8 for word in words]) <= MAX_SETTING_BYTES


def overrides_fit(overrides: Iterable[OverrideSet]) -> bool:
    """Whether an intent can repeat all these."""
    size = 0
    for one in overrides:
        words = (one.pool, one.override_id, one.target, one.knob, str(one.value), one.reason, one.author)
        size += sum([len(word.encode()) for word in words]) + _OVERRIDE_BYTES
    return size <= MAX_OVERRIDES_BYTES
