"""What is wrong with each engine, and when: the part of a scenario's faults that a fleet suffers itself.

Faults may overlap: shares of bandwidth and of clock multiply, and an engine is dead or stalled while any fault says
so. What strikes a node's telemetry or clock is for whoever plays its agent, and left alone here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_twin.physics import GpuCondition


class FaultKind(StrEnum):
    """What can go wrong in a scenario."""

    BANDWIDTH = "bandwidth"
    """The GPU of an engine has `factor` of its HBM bandwidth."""
    THROTTLE = "throttle"
    """The GPU of an engine runs at `factor` of its clock."""
    DEAD = "dead"
    """The engine is gone, with all it ran; at the end of the fault it starts cold."""
    STALLED = "stalled"
    """The engine holds what it has and completes nothing."""
    TELEMETRY_LOSS = "telemetry_loss"
    """The agent of a node reaches no log."""
    CLOCK_SKEW = "clock_skew"
    """The wall clock of a node is off by `skew_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and when it is over (infinity: never)."""

    kind: FaultKind
    target: str
    """An engine, or a node for telemetry and clocks."""
    from_s: float
    to_s: float
    factor: float = 1.0
    skew_s: float = 0.0


OF_ENGINES = (FaultKind.BANDWIDTH, FaultKind.THROTTLE, FaultKind.DEAD, FaultKind.STALLED)
"""Faults whose target is an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """How health checks find out: HAProxy's `inter`, `fall` and `rise`, at its defaults."""

    inter_s: float = 2.0
    fall: int = 3
    """Failed checks in a row after which an engine is down."""
    rise: int = 2
    """Passed checks in a row after which it is up again."""

    @property
    def down_after_s(self) -> float:
        """How long an engine fails until it counts as down."""
        return self.inter_s * self.fall

    @property
    def up_after_s(self) -> float:
        """How long it answers again until it counts as up."""
        return self.inter_s * self.rise


@dataclass(frozen=True, slots=True, kw_only=True)
class Ailment:
    """What is wrong with one engine at one time."""

    dead: bool = False
    stalled: bool = False
    condition: GpuCondition = field(default_factory=GpuCondition)


class FaultSchedule:
    """The faults that strike these engines. Raises `Rejected` for one that makes no sense or strikes none of them."""

    def __init__(self, faults: Iterable[Fault], engines: Iterable[EngineId]) -> None:
        self.faults = tuple(faults)
        """All that were given, those of nodes too."""
        known = set(engines)
        self._mine: dict[EngineId, list[Fault]] = {}
        for fault in self.faults:
            if fault.kind not in OF_ENGINES:
                continue
            engine = EngineId(fault.target)
            if engine not in known:
                raise Rejected(f"a fault strikes {fault.target!r}, which is no engine of the fleet")
            if not 0.0 <= fault.from_s < fault.to_s:
                raise Rejected(f"a fault runs forward, not from {fault.from_s!r} s to {fault.to_s!r} s")
            if not 0.0 < fault.factor <= 1.0:
                raise Rejected(f"a fault leaves a share above 0 and at most 1, not {fault.factor!r}")
            self._mine.setdefault(engine, []).append(fault)

    def edges(self) -> list[tuple[float, EngineId]]:
        """When something changes for which engine, in the order of the times; infinity is left out."""
        times = {
            (at_s, engine): None
            for engine, faults in self._mine.items()
            for fault in faults
            for at_s in (fault.from_s, fault.to_s)
            if at_s < float("inf")
        }
        return sorted(times, key=lambda edge: edge[0])

    def ailment(self, engine: EngineId, now_s: float) -> Ailment:
        """What is wrong with an engine at that time."""
        acting = [fault for fault in self._mine.get(engine, ()) if fault.from_s <= now_s < fault.to_s]
        return Ailment(
            dead=any(fault.kind is FaultKind.DEAD for fault in acting),
            stalled=any(fault.kind is FaultKind.STALLED for fault in acting),
            condition=GpuCondition(
                bandwidth=prod(fault.factor for fault in acting if fault.kind is FaultKind.BANDWIDTH),
                clock=prod(fault.factor for fault in acting if fault.kind is FaultKind.THROTTLE),
            ),
        )

    def stalled_until_s(self, engine: EngineId, now_s: float) -> float:
        """When the stall in which an engine is now is over, with all that follow upon it without a gap."""
        until_s = now_s
        stalls = [fault for fault in self._mine.get(engine, ()) if fault.kind is FaultKind.STALLED]
        while (later := max((f.to_s for f in stalls if f.from_s <= until_s < f.to_s), default=until_s)) > until_s:
            until_s = later
        return until_s
