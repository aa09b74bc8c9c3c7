"""A run in virtual time through the production code: agents, log, owner, pusher, receivers.

One beat is one second of virtual time: the fleets advance, the agents sample, spool and
ship, the owner ticks, the pusher pushes, the receivers answer. The order within a beat is
fixed and everything that could be random is seeded, so a run is a function of its
scenario, whichever log it goes through. The ungoverned fleet runs beside it in mode
`observe`, watched by the same agents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owner
from flyball_controller.pusher import Pusher
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, OwnerId, PoolId
from flyball_core.inputs import PolicyText
from flyball_core.knobs import Setting
from flyball_core.outputs import DecisionRecord
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import encode_input
from flyball_twin.agents import FleetAgents, Shipped
from flyball_twin.demo_scenario import Scenario
from flyball_twin.fleet import Fleet
from flyball_twin.observing import Observed, Observer
from flyball_twin.seats import EngineSeat, GatewaySeat, VirtualClock
from flyball_twin.workload import Request

STATIC = PoolId("static")
GOVERNED = PoolId("flyball")

BEAT_S = 1.0

WALL_AT_START_S = 1_700_092_800.0
"""2023-11-16, 00:00 UTC: the day of the chat trace. A wall time that does not run makes runs alike."""

LAST_REQUESTS = 200
"""How many of the latest arrivals a scene's `recent` attainment looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Where every frame went: sent = delivered + duplicate + rejected + dropped; late ones are delivered."""

    sent: int
    delivered: int
    duplicate: int
    rejected: int
    dropped: int
    late: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineScene:
    """One engine as it is now."""

    engine: EngineId
    variant: str
    running: int
    waiting: int
    kv_used_ratio: float
    settings: Setting
    weight: int
    in_flight_cap: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetScene:
    """One fleet as it is now; `features` and `regime` are what the log says of it."""

    regime: str
    confidence: float
    features: Mapping[str, float]
    queued: int
    attainment: float
    """Of all requests that have finished or missed their objective by now."""
    recent: float
    engines: tuple[EngineScene, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What there is to see at one beat."""

    now_s: float
    end_s: float
    phase: str
    fleets: Mapping[str, FleetScene]


class Life:
    """Two fleets, one of them governed, over one log. Drive it with `start`, `beat` and `finish`."""

    def __init__(self, log: Log, scenario: Scenario, policy_text: str, folder: Path) -> None:
        """`folder` takes spools and receivers' stores; it must be new to the run."""
        self._log = log
        self._scenario = scenario
        self._policy_text = policy_text
        self._folder = folder
        self.clock = VirtualClock(WALL_AT_START_S)
        self.requests: tuple[Request, ...] = scenario.requests()
        self.fleets: dict[PoolId, Fleet] = {pool: scenario.build_fleet(self.requests) for pool in (STATIC, GOVERNED)}
        self._owner = Owner(log, OwnerId("demo"), standard_seams, own_fingerprint())
        self._pusher = Pusher(log)
        self._observer = Observer(log)
        self._partitions = sorted({log.partition_of(pool) for pool in self.fleets})
        governed = self.fleets[GOVERNED]
        seats = folder / "receivers"
        self._engines = [
            EngineSeat(governed, GOVERNED, engine, seats, self.clock, scenario.seed) for engine in governed.engines
        ]
        self._gateway = GatewaySeat(governed, GOVERNED, "gateway-0", seats, self.clock, scenario.seed)
        self._agents = [
            FleetAgents(log, pool, fleet, folder / "spools" / pool, self.clock, scenario.seed)
            for pool, fleet in self.fleets.items()
        ]
        self._verdicts = {pool: _Verdicts(fleet, scenario) for pool, fleet in self.fleets.items()}
        self._ended = False

    @property
    def observed(self) -> Observed:
        """What the log has told so far."""
        return self._observer.seen

    async def start(self) -> None:
        """Claim, order, attach."""
        for partition in self._partitions:
            await self._owner.take(partition, self.clock.wall_s)
        order = PolicyText(pool=GOVERNED, text=self._policy_text, author="demo")
        await self._log.append(
            Topic.INPUTS, self._log.partition_of(GOVERNED), [Entry(GOVERNED.encode(), encode_input(order))]
        )
        await self._follow()
        for partition in self._partitions:
            await self._owner.tick(partition, 0.0, self.clock.wall_s)

    async def beat(self) -> tuple[Scene, list[DecisionRecord]]:
        """One second of virtual time; what there is to see afterwards, and what was newly decided."""
        self.clock.now_s += BEAT_S
        for fleet in self.fleets.values():
            fleet.run_until(self.clock.now_s)
        for agents in self._agents:
            await agents.beat()
        await self._follow()
        for partition in self._partitions:
            await self._owner.tick(partition, BEAT_S, self.clock.wall_s)
        await self._pusher.poll()
        answers = [ack for seat in (*self._engines, self._gateway) for ack in seat.fetch()]
        if answers:
            await self._pusher.acked(*answers)
        news = await self._observer.poll()
        return self._scene(), news

    async def finish(self) -> Frames:
        """Ship what is still spooled, tick over it, and say where every frame went."""
        if not self._ended:
            self._ended = True
            for agents in self._agents:
                await agents.drain()
            for partition in self._partitions:
                await self._owner.tick(partition, BEAT_S, self.clock.wall_s + BEAT_S)
            await self._observer.poll()
        return self._frames()

    async def _follow(self) -> None:
        for seat in self._engines:
            await seat.follow(self._pusher)
        await self._gateway.follow(self._pusher)
        answers = [ack for seat in (*self._engines, self._gateway) for ack in seat.fetch()]
        if answers:
            await self._pusher.acked(*answers)

    def _frames(self) -> Frames:
        shipped = [agents.shipped() for agents in self._agents]
        counts: dict[str, int] = {}
        for tick in self.observed.ticks.values():
            for name, number in tick.counts.items():
                counts[name] = counts.get(name, 0) + number
        return _accounted(shipped, counts)

    def _scene(self) -> Scene:
        now_s = self.clock.now_s
        phase = next((p.name for p in self._scenario.phases if p.from_s <= now_s < p.to_s), "the last requests finish")
        return Scene(
            now_s=now_s,
            end_s=self._scenario.end_s,
            phase=phase,
            fleets={pool: self._fleet_scene(pool) for pool in self.fleets},
        )

    def _fleet_scene(self, pool: PoolId) -> FleetScene:
        fleet, tick = self.fleets[pool], self.observed.ticks.get(pool)
        attainment, recent = self._verdicts[pool].now()
        return FleetScene(
            regime=tick.regime if tick else "unknown",
            confidence=tick.confidence if tick else 0.0,
            features=tick.features if tick else {},
            queued=fleet.gateway.queued,
            attainment=attainment,
            recent=recent,
            engines=tuple(_engine_scene(fleet, engine) for engine in fleet.engines),
        )


def _engine_scene(fleet: Fleet, name: EngineId) -> EngineScene:
    engine = fleet.engines[name]
    weight = fleet.gateway.weight(name)
    state = "relaunching" if not engine.ready else ("draining" if weight == 0 else "serving")
    if engine.bandwidth_factor < 1.0:
        state += f", HBM at {engine.bandwidth_factor:.0%}"
    return EngineScene(
        engine=name,
        variant=engine.variant,
        running=engine.batch.running,
        waiting=len(engine.batch.waiting),
        kv_used_ratio=engine.batch.kv.used / engine.batch.kv.capacity,
        settings=engine.settings(),
        weight=weight,
        in_flight_cap=fleet.gateway.cap(name),
        state=state,
    )


class _Verdicts:
    """Attainment so far, kept up as requests finish instead of counted anew each beat."""

    def __init__(self, fleet: Fleet, scenario: Scenario) -> None:
        self._fleet = fleet
        self._slos = {slo.lane: slo for slo in scenario.slos}
        self._taken = 0
        self._met: list[bool] = []
        self._attained = 0

    def now(self) -> tuple[float, float]:
        """The share of finished requests that met their objective, of all and of the latest."""
        finished = list(self._fleet.outcomes.values())[self._taken :] if len(self._fleet.outcomes) > self._taken else []
        self._taken = len(self._fleet.outcomes)
        for outcome in finished:
            met = self._slos[outcome.request.lane].met(outcome)
            self._met.append(met)
            self._attained += met
        latest = self._met[-LAST_REQUESTS:]
        return (
            self._attained / len(self._met) if self._met else 1.0,
            sum(latest) / len(latest) if latest else 1.0,
        )


def _accounted(shipped: list["Shipped"], counts: Mapping[str, int]) -> Frames:
    dropped = sum(agent.dropped for agent in shipped)
    sent = sum(agent.sent for agent in shipped) + dropped
    found = Frames(
        sent=sent,
        delivered=counts.get("delivered", 0),
        duplicate=counts.get("duplicate", 0),
        rejected=counts.get("rejected", 0),
        dropped=dropped,
        late=counts.get("late", 0),
    )
    if found.sent != found.delivered + found.duplicate + found.rejected + found.dropped:
        raise Rejected(f"frames do not add up: {found}")  # promise 5; a lost frame must never pass unnoticed
    return found
