"""Change detection: one river detector per pool on the detrended mix of its traffic.

Default univariate detectors on raw telemetry raise hundreds of false alarms a day;
Page-Hinkley on a series that is first standardised against its own slow mean and then
averaged over 10 ticks raises a few. The alarm decides nothing: it lets the regime namer
commit sooner and goes on record.

A detector's insides are the library's own, so they are not exported. The state keeps the
samples it was fed since its last alarm, and at every checkpoint tick everybody alike makes
a new detector and feeds it those: restore-then-continue is bit-equal.
"""

import math
from typing import Any, Protocol, cast

from river.drift import PageHinkley

KEPT_SAMPLES = 360
"""Samples kept for the rebuild: an hour at one mean per 10 ticks."""

AVERAGED_TICKS = 10
HALF_LIFE_TICKS = 1800.0
_DECAY = 1.0 - 0.5 ** (1.0 / HALF_LIFE_TICKS)
_WARM_UP = 60


class ChangeDetector(Protocol):
    """What the machine asks of a detector. `state` is the pool's, plain JSON-like data."""

    def update(self, state: dict[str, Any], value: float | None) -> bool:
        """Feed one tick's value (None: nothing measured); True if it raises an alarm."""
        ...

    def rebuild(self, state: dict[str, Any]) -> None:
        """Make the unexported part again from `state`, the same wherever it is called."""
        ...


class _PageHinkley(Protocol):
    """What we use of river's detector, which carries no types of its own."""

    drift_detected: bool

    def update(self, x: float) -> object: ...


class MixDetector:
    """Page-Hinkley (Page 1954; river's implementation) on the standardised mix feature."""

    def __init__(self, *, delta: float = 0.5, threshold: float = 50.0) -> None:
        self._delta = delta
        self._threshold = threshold
        self._inner = self._new()

    def _new(self) -> _PageHinkley:
        inner = PageHinkley(min_instances=6, delta=self._delta, threshold=self._threshold, alpha=1.0)
        return cast("_PageHinkley", inner)

    def update(self, state: dict[str, Any], value: float | None) -> bool:
        """Standardise, average, test; an alarm forgets what came before it."""
        if value is None or not math.isfinite(value):
            return False
        seen = state.get("seen", 0) + 1
        mean, variance = state.get("mean", value), state.get("variance", 0.0)
        weight = max(_DECAY, 1.0 / seen)
        gap = value - mean
        state["seen"], state["mean"] = seen, mean + weight * gap
        state["variance"] = (1.0 - weight) * (variance + weight * gap * gap)
        if seen < _WARM_UP:
            return False
        spread = math.sqrt(variance) + 1e-3
        window: list[float] = state.setdefault("window", [])
        window.append(max(-8.0, min(8.0, gap / spread)))
        if len(window) < AVERAGED_TICKS:
            return False
        sample = sum(window) / len(window)
        window.clear()
        samples: list[float] = state.setdefault("samples", [])
        samples.append(sample)
        del samples[:-KEPT_SAMPLES]
        self._inner.update(sample)
        if not self._inner.drift_detected:
            return False
        state.clear()
        self._inner = self._new()
        return True

    def rebuild(self, state: dict[str, Any]) -> None:
        """A new Page-Hinkley, fed the kept samples."""
        self._inner = self._new()
        for sample in state.get("samples", ()):
            self._inner.update(sample)
