"""Which start of an engine or gateway a page is of.

A page that says when its process started, or names its incarnation, is believed. On one that
does neither, a counter that went down starts a new incarnation, for nothing else makes it go
down. No name is ever used twice: those that are counted here carry the agent's boot.
"""

from collections.abc import Hashable, Mapping

from flyball_core.ids import BootId, Incarnation


class Incarnations:
    """The incarnations of one engine or gateway."""

    def __init__(self, name: str, boot: BootId) -> None:
        self.seen = 0
        """How many incarnations were seen, the present one included."""
        self._name = name
        self._boot = boot
        self._counted = 1
        self._counters: dict[Hashable, float] = {}
        self._last: Incarnation | None = None

    def of(self, told: str, counters: Mapping[Hashable, float]) -> Incarnation:
        """The incarnation of a page with these counters; `told` is what it says itself, empty for nothing."""
        if not told and any(counters[key] < before for key, before in self._counters.items() if key in counters):
            self._counted += 1
            self._counters.clear()
        # One that is missing for a while is remembered: the engine may restart meanwhile.
        self._counters.update(counters)
        incarnation = Incarnation(told or f"{self._name}@{self._boot}.{self._counted}")
        if incarnation != self._last:
            self.seen += 1
            self._last = incarnation
        return incarnation
