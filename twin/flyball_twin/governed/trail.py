"""What a fleet looked like over a run: a bounded number of bins, however long the run.

Each bin holds means over the times at which somebody looked, so a longer run has longer bins and
costs no more memory. It refuses to keep requests or ticks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.knobs import Setting
from flyball_twin.engine.engine import Engine
from flyball_twin.fleet.fleet import Fleet, Pool

BINS = 400
"""About so many bins a run is cut into."""

LENGTHS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
"""Lengths that a bin may have."""


def bin_length_s(end_s: float) -> float:
    """The shortest of `LENGTHS_S` that cuts `end_s` into about `BINS` bins, or the longest."""
    return next((length for length in LENGTHS_S if end_s / length <= BINS), LENGTHS_S[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKnobs:
    """What was in force at one engine when a bin began."""

    settings: Setting
    weight: int
    in_flight_cap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One pool over one bin: means over the looks, but for the knobs, which are as at its first."""

    from_s: float
    running: float
    waiting: float
    """In engines."""
    queued: float
    """At the gateway."""
    kv_mean: float
    kv_max: float
    """Shares of the KV cache in use: the mean over the engines that are up, and the fullest."""
    serving: float
    """Engines that take requests."""
    knobs: Mapping[EngineId, EngineKnobs]


@dataclass(slots=True)
class _Sums:
    knobs: Mapping[EngineId, EngineKnobs]
    looks: int = 0
    running: int = 0
    waiting: int = 0
    queued: int = 0
    serving: int = 0
    kv_mean: float = 0.0
    kv_max: float = 0.0

    def take(self, pool: Pool) -> None:
        """One more look."""
        shares: list[float] = []
        for engine in pool.engines:
            if engine.ready:
                running, waiting, share = load_of(engine)
                self.running += running
                self.waiting += waiting
                shares.append(share)
        self.looks += 1
        self.queued += pool.gateway.queued
        self.serving += len(shares)
        if shares:
            self.kv_mean += sum(shares) / len(shares)
            self.kv_max += max(shares)

    def moment(self, from_s: float) -> Moment:
        """The means."""
        return Moment(
            from_s=from_s,
            running=self.running / self.looks,
            waiting=self.waiting / self.looks,
            queued=self.queued / self.looks,
            kv_mean=self.kv_mean / self.looks,
            kv_max=self.kv_max / self.looks,
            serving=self.serving / self.looks,
            knobs=self.knobs,
        )


class Trail:
    """Takes looks at one fleet, in the order of time."""

    def __init__(self, end_s: float) -> None:
        """`end_s` is when the run ends. Raises `Rejected` unless that is after 0."""
        if not 0.0 < end_s < float("inf"):
            raise Rejected(f"a run ends after 0 s, not at {end_s!r} s")
        self.bin_s = bin_length_s(end_s)
        self._sums: dict[PoolId, dict[int, _Sums]] = {}

    def look(self, fleet: Fleet) -> None:
        """Take the fleet as it is now into the bin that ends at or after its time."""
        index = max(ceil(fleet.now_s / self.bin_s) - 1, 0)
        for name, pool in fleet.pools.items():
            bins = self._sums.setdefault(name, {})
            if index not in bins:
                bins[index] = _Sums(_knobs(pool))
            bins[index].take(pool)

    def moments(self, pool: PoolId) -> tuple[Moment, ...]:
        """The bins of one pool that were looked at, in order."""
        return tuple(sums.moment(index * self.bin_s) for index, sums in sorted(self._sums.get(pool, {}).items()))


def load_of(engine: Engine) -> tuple[int, int, float]:
    """Requests running, requests waiting, and the share of the KV cache in use."""
    batch = engine.batch
    return batch.running, len(batch.waiting), batch.kv.used / batch.kv.capacity


def _knobs(pool: Pool) -> dict[EngineId, EngineKnobs]:
    gateway = pool.gateway
    return {
        engine.id: EngineKnobs(
            settings=engine.settings(), weight=gateway.weight(engine.id), in_flight_cap=gateway.cap(engine.id)
        )
        for engine in pool.engines
    }
