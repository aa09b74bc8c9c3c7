"""What is governed: scripted engines and a gateway's table, load that comes and goes, and what agents see of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import TableDefaults, TableSurface
from flyball_agents.sampling import PooledEngine, PooledGateway, Reading
from flyball_agents.surface import Surface
from flyball_core.errors import Rejected
from flyball_core.frames import BandwidthSource, GatewaySample, GpuSample
from flyball_core.ids import GatewayId, Incarnation
from flyball_core.inputs import TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobSpec, Setting, Value
from harness.scripted_engine import Load, ScriptedEngine
from laboratory.receiving import Table
from laboratory.simulation.controllers import Controller
from laboratory.simulation.receivers import Attached
from laboratory.simulation.stage import POOL, Stage

LAUNCHED: Mapping[str, Value] = {BATCH_CAP: 64, VARIANT: "graphs"}


class _Controls:
    """An engine's knobs."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self._engine = engine

    def knobs(self) -> tuple[KnobSpec, ...]:
        return self._engine.specs

    def read(self) -> Mapping[str, Value]:
        return self._engine.setting

    def set(self, name: str, value: Value) -> None:
        self._engine.setting[name] = value

    def restart(self, values: Setting) -> None:
        raise Rejected(f"nobody here is relaunched for {', '.join(sorted(values))}")


def _table(engines: Sequence[str]) -> Table:
    return Table(dict.fromkeys(engines, 100), dict.fromkeys(engines, 0))


class Fleet:
    """Engines and one gateway, by name; `nodes` says which engines each agent sees. The first sees the gateway too."""

    def __init__(
        self,
        stage: Stage,
        nodes: Mapping[str, Sequence[str]],
        gateway: str,
        controllers: Sequence[Controller],
        hold_s: float,
    ) -> None:
        self._stage = stage
        self._nodes = nodes
        self._gateway = gateway
        names = [name for engines in nodes.values() for name in engines]
        self._engines = {
            name: ScriptedEngine(name=name, agent=agent, gpu=gpu)
            for agent, engines in nodes.items()
            for gpu, name in enumerate(engines)
        }
        self._table = _table(names)
        random = stage.random("load")
        self._load = _load(random)
        self._engines[random.choice(names)].slowness = random.uniform(1.5, 3.0)
        self._arrived = 0.0
        self.receivers = {
            name: Attached(stage, TargetKind.ENGINE, name, self._launcher(name), controllers, hold_s) for name in names
        }
        self.receivers[gateway] = Attached(stage, TargetKind.GATEWAY, gateway, self._open_gateway, controllers, hold_s)

    def serve(self) -> None:
        """One second of load, over the engines that serve."""
        load = self._load(self._stage.now_s)
        up = [engine for name, engine in self._engines.items() if self.receivers[name].serves]
        total = sum(self._table.weights[engine.name] for engine in up)
        for engine in up:
            wanted = load.concurrency * self._table.weights[engine.name] / total if total else 0.0
            cap = self._table.caps[engine.name]
            engine.live(min(wanted, engine.places(float(cap) if cap else None)), load)
        self._arrived += load.concurrency / 4.0

    def sampler(self, agent: str) -> Callable[[float], Reading]:
        """What reads this agent's node."""

        def sample(now_s: float) -> Reading:
            load = self._load(now_s)
            here = [self._engines[name] for name in self._nodes[agent]]
            seen = [engine for engine in here if self.receivers[engine.name].serves]
            gpus = [
                GpuSample(engine.gpu, "uuid", BandwidthSource.GPM, 0, sm_busy_ratio=0.6, hbm_bandwidth_ratio=0.5)
                for engine in seen
            ]
            gateway = self.receivers[self._gateway]
            queue = GatewaySample(
                GatewayId(self._gateway), gateway.incarnation, "", requests_queued=0.0, requests_total=self._arrived
            )
            first = agent == next(iter(self._nodes))
            return Reading(
                now_s,
                gpus=tuple(gpus),
                engines=tuple(PooledEngine(POOL, engine.sample(load)) for engine in seen),
                gateways=(PooledGateway(POOL, queue),) if first and gateway.serves else (),
            )

        return sample

    def _launcher(self, name: str) -> Callable[[], Surface]:
        def launch() -> Surface:
            engine = self._engines[name]
            engine.restart(Incarnation(self.receivers[name].incarnation))
            engine.setting = dict(LAUNCHED)
            return SettingsSurface(_Controls(engine))

        return launch

    def _open_gateway(self) -> Surface:
        self._table = _table(list(self._engines))
        return TableSurface(self._table, TableDefaults())


def _load(random: Random) -> Callable[[float], Load]:
    """Load that swings, with a jump or two, so that there is something to decide."""
    base, swing, period_s = random.uniform(60, 200), random.uniform(0, 150), random.uniform(10, 40)
    jump_s, jump = random.uniform(5, 40), random.uniform(-50, 300)
    context = random.choice((800.0, 2000.0, 8000.0))

    def load(now_s: float) -> Load:
        wave = swing * math.sin(2 * math.pi * now_s / period_s)
        concurrency = max(base + wave + (jump if now_s > jump_s else 0.0), 4.0)
        return Load(concurrency=concurrency, context_tokens=context)

    return load
