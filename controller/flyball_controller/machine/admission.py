"""How much may be known by name, so that whatever is made of it fits into a record of the log.

An owner that decides what the log does not take stops at that input, and so does its
successor. So names and texts are measured where they come in; what is refused is counted.
"""

from collections.abc import Iterable, Mapping

from flyball_core.inputs import Attach, OverrideSet, TargetKind
from flyball_core.knobs import Setting

MAX_NAME = 200
"""Longest name of a pool, engine, gateway, knob or author, in characters."""

MAX_NAMES_BYTES = 224 * 1024
"""Most that the engines of a pool take up in a gateway's answer, which names each with its weight and its cap."""

MAX_SETTING_BYTES = 32 * 1024
"""Most that the knobs of an engine and their values take up in a directive."""

MAX_KNOBS = 256
"""Most knobs of an engine, and most values of which it tells that they hold."""

MAX_OVERRIDES_BYTES = 128 * 1024
"""Most that the overrides of a pool take up in an intent, which repeats them all."""

MAX_TABLE_BYTES = 384 * 1024
"""Most that a gateway's weights, caps and lanes take up in what it answers."""

MAX_POOLS_OF_ONE = 32
"""Most pools of a partition that begin with the same agent, engine or gateway: each is stepped from then on."""

_ROUTE_BYTES = 40
_OVERRIDE_BYTES = 64


class Room:
    """Whether others can be taken in beside those known. For one round: whoever lets one in adds it to `known`."""

    def __init__(self, known: Mapping[str, object], most: int) -> None:
        self._known = known
        self._most = most
        self._bytes: int | None = None

    def take(self, name: str) -> bool:
        """Whether this engine or gateway can be taken in; if so, it counts from now on."""
        if not 0 < len(name) <= MAX_NAME or len(self._known) >= self._most:
            return False
        if self._bytes is None:  # asked of many names in a row, all those known must not be measured each time
            self._bytes = sum([len(other.encode()) for other in self._known])
        names = self._bytes + len(name.encode())
        if 2 * names + _ROUTE_BYTES * (len(self._known) + 1) > MAX_NAMES_BYTES:
            return False
        self._bytes = names
        return True


def room_for(known: Mapping[str, object], name: str, most: int) -> bool:
    """Whether another engine or gateway can be taken in beside those known."""
    return Room(known, most).take(name)


def fits(body: Attach) -> bool:
    """Whether what a receiver says of itself can be said back to it."""
    if max(len(body.incarnation), len(body.capability_hash)) > MAX_NAME:
        return False
    if body.kind is TargetKind.GATEWAY:
        return True
    if max(len(body.knobs), len(body.effective)) > MAX_KNOBS:
        return False
    words = [*body.effective, *[str(value) for value in body.effective.values()]]
    for knob in body.knobs:
        words += [knob.name, knob.unit, str(knob.safe), *knob.choices]
    return sum([len(word.encode()) + 8 for word in words]) <= MAX_SETTING_BYTES


def answer_fits(kind: TargetKind, effective: Setting) -> bool:
    """Whether what a receiver says that it holds is not more than it can have been told, however often it says so."""
    size = sum([len(f"{name}{value}".encode()) + 16 for name, value in effective.items()])
    if kind is TargetKind.GATEWAY:
        return size <= MAX_TABLE_BYTES
    return len(effective) <= MAX_KNOBS and size <= MAX_SETTING_BYTES


def overrides_fit(overrides: Iterable[OverrideSet]) -> bool:
    """Whether an intent can repeat all these."""
    size = 0
    for one in overrides:
        words = (one.pool, one.override_id, one.target, one.knob, str(one.value), one.reason, one.author)
        size += sum([len(word.encode()) for word in words]) + _OVERRIDE_BYTES
    return size <= MAX_OVERRIDES_BYTES
