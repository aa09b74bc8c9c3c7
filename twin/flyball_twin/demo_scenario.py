"""The demo's scenario as data: what is asked of a fleet, and what goes wrong on the way.

Chat, then long context, then chat again, with one GPU losing most of its bandwidth in the
first chat. Chat is played faster than it was recorded and long context is thinned, until
both load four engines; nothing else about the traces is changed. The scenario refuses to
know who governs: every fleet built from it gets the same requests and the same faults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import LaneRule
from flyball_twin.engine import Engine
from flyball_twin.fleet import Fleet
from flyball_twin.gateway import Gateway
from flyball_twin.physics import ENGINE_MODEL, GRAPHS, SPLITKV, EngineModel
from flyball_twin.scenario.model import Fault, FaultKind
from flyball_twin.scoring import Slo
from flyball_twin.workload import AZURE_CHAT, DATA, MOONCAKE, Request, Segment, splice

REALTIME = "realtime"
BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthFault:
    """From `at_s` on, an engine's GPU has this share of its HBM bandwidth."""

    at_s: float
    engine: EngineId
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A named stretch of a scenario, for tables and pictures."""

    name: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that makes a run, but for who governs it. Times are seconds of virtual time."""

    pool: PoolId
    engine_model: EngineModel
    variants: Mapping[EngineId, str]
    """The engines, and the variant each starts with."""
    segments: tuple[Segment, ...]
    lane_shares: Mapping[str, float]
    lane_rules: tuple[LaneRule, ...]
    """How every gateway starts."""
    slos: tuple[Slo, ...]
    faults: tuple[BandwidthFault, ...]
    phases: tuple[Phase, ...]
    seed: int
    grace_s: float
    """How long after the last segment requests may still finish; what has not by then is missed."""

    @property
    def duration_s(self) -> float:
        """How long requests arrive."""
        return sum(segment.duration_s for segment in self.segments)

    @property
    def end_s(self) -> float:
        """When a run is over."""
        return self.duration_s + self.grace_s

    def requests(self, folder: Path = DATA) -> tuple[Request, ...]:
        """The requests; the same for every fleet. Raises as `splice` does for a missing or damaged trace."""
        return splice(self.segments, self.lane_shares, self.seed, folder)

    def build_fleet(self, requests: tuple[Request, ...]) -> Fleet:
        """A fleet at its defaults, at time 0, with these requests to come."""
        engines = [Engine(engine, self.engine_model, variant) for engine, variant in self.variants.items()]
        faults = [
            Fault(
                kind=FaultKind.BANDWIDTH,
                target=fault.engine,
                from_s=fault.at_s,
                to_s=float("inf"),
                factor=fault.factor,
            )
            for fault in self.faults
        ]
        return Fleet.single(engines, Gateway(self.variants, self.lane_rules), requests, faults)

    def shortened(self, duration_s: float) -> "Scenario":
        """The same scenario cut off after `duration_s`. Raises `Rejected` unless that is above 0."""
        if not duration_s > 0.0:
            raise Rejected(f"a scenario lasts longer than {duration_s!r} s")
        kept: list[Segment] = []
        left_s = duration_s
        for segment in self.segments:
            if left_s > 0.0:
                kept.append(replace(segment, to_s=min(segment.to_s, segment.from_s + left_s * segment.speed)))
                left_s -= segment.duration_s
        phases = tuple(
            replace(phase, to_s=min(phase.to_s, duration_s)) for phase in self.phases if phase.from_s < duration_s
        )
        return replace(self, segments=tuple(kept), phases=phases)


ENGINES = tuple(EngineId(f"engine-{index}") for index in range(4))

DEMO = Scenario(
    pool=PoolId("chat"),
    engine_model=ENGINE_MODEL,
    variants=dict(zip(ENGINES, (GRAPHS.name, GRAPHS.name, SPLITKV.name, SPLITKV.name), strict=True)),
    segments=(
        Segment(trace=AZURE_CHAT, from_s=0.0, to_s=1200.0, speed=2.5),
        Segment(trace=MOONCAKE, from_s=480.0, to_s=840.0, keep=0.45),
        Segment(trace=AZURE_CHAT, from_s=1200.0, to_s=1740.0, speed=2.5),
    ),
    lane_shares={REALTIME: 0.7, BULK: 0.3},
    lane_rules=(LaneRule(lane=REALTIME, priority=0, max_wait_s=60.0), LaneRule(lane=BULK, priority=0, max_wait_s=60.0)),
    slos=(Slo(lane=REALTIME, ttft_s=3.0, tpot_s=0.040), Slo(lane=BULK, e2e_s=120.0)),
    faults=(BandwidthFault(at_s=280.0, engine=ENGINES[1], factor=0.4),),
    phases=(
        Phase(name="chat", from_s=0.0, to_s=280.0),
        Phase(name="chat, one GPU slow", from_s=280.0, to_s=480.0),
        Phase(name="long context", from_s=480.0, to_s=840.0),
        Phase(name="chat again", from_s=840.0, to_s=1056.0),
    ),
    seed=1,
    grace_s=60.0,
)
"""What `flyball demo` plays: 1056 s in which requests arrive, the GPU of `engine-1` losing 60 % of its
HBM bandwidth at 280 s for good."""
