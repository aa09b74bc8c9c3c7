"""Engines and gateways in memory, which can be told to fail, and a bench that drives one receiver by hand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyball_agents.easing import Phase, ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import GatewayReading, LanePlace
from flyball_agents.offers import Offer, Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.surface import capability_hash
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting, Value
from flyball_core.outputs import Heartbeat

POOL = PoolId("chat")
LOG = LogId("log-a")

CAP = KnobSpec(
    name="cap", knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=16, minimum=1, maximum=256, unit="requests"
)
MARGIN = KnobSpec(
    name="margin", knob_class=KnobClass.LIVE, kind=KnobKind.REAL, safe=0.1, minimum=0.0, maximum=1.0, unit="ratio"
)
CHUNKED = KnobSpec(name="chunked", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=True)
ORDER = KnobSpec(
    name="order", knob_class=KnobClass.LIVE, kind=KnobKind.CHOICE, safe="fifo", choices=("fifo", "priority")
)
VARIANT = KnobSpec(
    name="variant", knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe="flash", choices=("flash", "infer")
)
SPECS = (CAP, MARGIN, CHUNKED, ORDER, VARIANT)
AT_LAUNCH: dict[str, Value] = {"cap": 64, "margin": 0.5, "chunked": False, "order": "priority", "variant": "flash"}
SAFE: dict[str, Value] = {"cap": 16, "margin": 0.1, "chunked": True, "order": "fifo", "variant": "flash"}


class Broken(Exception):
    """What a stand-in raises when told to."""


class FakeEngine:
    """Settings in a dict. `fails` names knobs whose setting raises; `ignores` ones it takes without effect."""

    def __init__(self, specs: tuple[KnobSpec, ...] = SPECS, values: Mapping[str, Value] = AT_LAUNCH) -> None:
        self.specs = specs
        self.values = dict(values)
        self.fails: set[str] = set()
        self.ignores: set[str] = set()
        self.unreadable = False
        self.knobless = False
        self.no_restart = False
        self.sets: list[tuple[str, Value]] = []
        self.restarts: list[Setting] = []

    def knobs(self) -> tuple[KnobSpec, ...]:
        """The knobs."""
        if self.knobless:
            raise Broken("no knobs")
        return self.specs

    def read(self) -> Mapping[str, Value]:
        """The values, or Broken."""
        if self.unreadable:
            raise Broken("unreadable")
        return dict(self.values)

    def set(self, name: str, value: Value) -> None:
        """Set one value, or fail as told."""
        if name in self.fails:
            raise Broken(f"{name} stuck")
        self.sets.append((name, value))
        if name not in self.ignores:
            self.values[name] = value

    def restart(self, values: Setting) -> None:
        """Remember the relaunch asked for."""
        if self.no_restart:
            raise Broken("no restart")
        self.restarts.append(dict(values))


class FakeGateway:
    """A table in dicts. `fails` names engines or lanes whose setting raises."""

    def __init__(self, engines: tuple[str, ...] = ("a", "b"), lanes: tuple[str, ...] = ("chat", "bulk")) -> None:
        self.weights = dict.fromkeys(engines, 100)
        self.caps = dict.fromkeys(engines, 0)
        self.lanes = {lane: LanePlace(0, 60.0) for lane in lanes}
        self.fails: set[str] = set()
        self.sets: list[tuple[str, str, float]] = []

    def read(self) -> GatewayReading:
        """The table."""
        return GatewayReading(dict(self.weights), dict(self.caps), dict(self.lanes))

    def set_weight(self, engine: str, weight: int) -> None:
        """Set a weight, or fail as told."""
        self._check(engine)
        self.sets.append(("weight", engine, weight))
        self.weights[engine] = weight

    def set_cap(self, engine: str, cap: int) -> None:
        """Set a cap, or fail as told."""
        self._check(engine)
        self.sets.append(("cap", engine, cap))
        self.caps[engine] = cap

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Set a lane, or fail as told."""
        if lane in self.fails:
            raise Broken(f"{lane} stuck")
        self.sets.append(("lane", lane, priority))
        self.lanes[lane] = LanePlace(priority, max_wait_s)

    def join(self, engine: str) -> None:
        """An engine appears, as the gateway's configuration has it."""
        self.weights[engine] = 100
        self.caps[engine] = 0

    def _check(self, engine: str) -> None:
        if engine in self.fails:
            raise Broken(f"{engine} stuck")
        if engine not in self.weights:
            raise Broken(f"{engine} unknown")


def odd(thing: object) -> Any:
    """The same thing, past the type checker: bad input has the wrong type."""
    return thing


def version(revision: int, epoch: int = 10, partition: int = 3, log_id: str = LOG) -> Version:
    """A version of the bench's log."""
    return Version(log_id=LogId(log_id), partition=partition, epoch=epoch, revision=revision)


class Bench:
    """One engine, its receiver and two clocks: monotonic `now_s` from 1,000, wall from 1,700,000,000."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: ReceiverLimits | None = None,
        engine: FakeEngine | None = None,
        incarnation: str = "i1",
        seed: int = 7,
    ) -> None:
        self.engine = engine or FakeEngine()
        self.limits = limits or ReceiverLimits(hold_s=100.0, ease_jitter_s=0.0)
        self.store = ReceiverStore(folder)
        self.incarnation = Incarnation(incarnation)
        self.seed = seed
        self.now_s = 1000.0
        self.wall_s = 1.7e9
        self.receiver = self.receive()

    @property
    def target(self) -> Target:
        """Whom the bench's receiver answers for."""
        return Target(pool=POOL, kind=TargetKind.ENGINE, name="e1", incarnation=self.incarnation)

    def receive(self) -> Receiver:
        """A new receiver over what the store holds."""
        return Receiver(
            self.target,
            SettingsSurface(self.engine),
            self.store,
            self.limits,
            seed=self.seed,
            now_s=self.now_s,
            wall_s=self.wall_s,
        )

    def again(self, *, cold: bool) -> None:
        """The receiver starts again; cold: with an engine that starts again."""
        if cold:
            self.incarnation = Incarnation(self.incarnation + "+")
            self.engine.values = dict(AT_LAUNCH)
            self.now_s = 5.0  # another process, another monotonic clock
        self.store = ReceiverStore(self.store.folder)
        self.receiver = self.receive()

    def make(self, of: int | Version, **values: object) -> Offer:
        """An offer as a right-minded controller would make it."""
        offer = Offer(
            pool=POOL,
            target="e1",
            version=of if isinstance(of, Version) else version(of),
            values={},
            capability_hash=capability_hash(SPECS),
        )
        return replace(offer, values=odd(values))

    def offer(self, of: int | Version, **values: object) -> Ack:
        """Offer these values at that revision."""
        return self.give(self.make(of, **values))

    def give(self, offer: Offer) -> Ack:
        """Offer it now."""
        return self.receiver.offer(offer, now_s=self.now_s, wall_s=self.wall_s)

    def beat(self, of: int | Version, *, hold_s: float = 0.0, pool: str = POOL) -> bool:
        """A heartbeat at that revision."""
        beat = Heartbeat(
            pool=PoolId(pool),
            version=of if isinstance(of, Version) else version(of),
            time_s=0.0,
            wall_s=self.wall_s,
            hold_s=hold_s,
        )
        return self.receiver.renew(beat, now_s=self.now_s, wall_s=self.wall_s)

    def after(self, seconds: float) -> Phase:
        """Let time pass, then poll once."""
        self.now_s += seconds
        self.wall_s += seconds
        return self.receiver.poll(now_s=self.now_s, wall_s=self.wall_s)

    def ease_out(self, step_s: float = 1.0) -> None:
        """Poll until everything is eased."""
        for _ in range(200):
            if self.after(step_s) is Phase.EASED:
                return
        raise AssertionError("never eased")

    def audit(self) -> list[str]:
        """The lines of the audit."""
        path = self.store.folder / "audit.jsonl"
        return path.read_text().splitlines() if path.exists() else []
