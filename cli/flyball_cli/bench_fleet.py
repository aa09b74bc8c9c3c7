"""A scripted pool to measure with: moving counters, and receivers that do as they are told.

It has no physics worth the name and no clock; it only makes the controller's work real:
caps that bind, engines that differ, one in fifty that is slow, settings that move. Which
settings are good cannot be learned from it: that is what the twin is for.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from flyball_core.frames import BandwidthSource, EngineSample, Frame, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach, PolicyText, TargetKind
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, KnobClass, KnobKind, KnobSpec, Value
from flyball_core.outputs import Directive, RoutingTable

GATEWAY = "gateway-0"
SLOW_ONE_IN = 50
START_WALL_S = 1_760_000_000.0

POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 30ms, longest_wait: 20s}
  bulk: {priority: 10, end_to_end: 2min, longest_wait: 60s}
knobs:
  max_active_requests: {min: 4, max: 256}
weights: {min: 8, max: 256, nominal: 128, period: 5s}
"""

KNOBS = (
    KnobSpec(
        name=BATCH_CAP,
        knob_class=KnobClass.LIVE,
        kind=KnobKind.INTEGER,
        safe=64,
        minimum=1,
        maximum=256,
        unit="requests",
    ),
    KnobSpec(
        name=TOKEN_BUDGET,
        knob_class=KnobClass.LIVE,
        kind=KnobKind.INTEGER,
        safe=2048,
        minimum=256,
        maximum=16384,
        unit="tokens",
    ),
    KnobSpec(
        name=VARIANT, knob_class=KnobClass.RESTART, kind=KnobKind.CHOICE, safe="graphs", choices=("graphs", "splitkv")
    ),
)

_KV_CAPACITY_TOKENS = 400_000.0
_CONTEXT_TOKENS = 2_200.0
_OUTPUT_TOKENS = 250.0


@dataclass(slots=True)
class _Engine:
    name: str
    phase: float
    slow: float
    values: dict[str, Value] = field(default_factory=lambda: {BATCH_CAP: 64, TOKEN_BUDGET: 2048, VARIANT: "graphs"})
    weight: int = 128
    counters: list[float] = field(default_factory=lambda: [0.0] * 20)


class ScriptedPool:
    """One pool of `nodes` nodes with `per_node` engines and as many GPUs each, behind one gateway.

    Nodes are called `node` and a number. `names` are the engines', if they are to have others than their places;
    where there are fewer names than places, the last node has fewer engines.
    """

    def __init__(
        self,
        pool: str = "bench",
        *,
        nodes: int = 25,
        per_node: int = 8,
        seed: int = 1,
        node: str = "node",
        names: Sequence[str] = (),
        incarnation: str = "start-1",
    ) -> None:
        self.pool = PoolId(pool)
        self._node = node
        self._incarnation = Incarnation(incarnation)
        self._random = random.Random(seed)
        count = len(names) or nodes * per_node
        made = [
            _Engine(
                name=names[i] if names else f"{node}-{i // per_node:02d}/engine-{i % per_node}",
                phase=2 * math.pi * i / count,
                slow=2.5 if i % SLOW_ONE_IN == 1 else 1.0 + 0.05 * self._random.random(),
            )
            for i in range(count)
        ]
        self._nodes = [made[at : at + per_node] for at in range(0, nodes * per_node, per_node)]
        self.engines = {engine.name: engine for engine in made}

    def opening(self) -> Iterator[PolicyText | Attach]:
        """What comes before the first frame: the policy document and everybody's attach."""
        yield PolicyText(pool=self.pool, text=POLICY, author="bench")
        for engine in self.engines.values():
            yield Attach(
                pool=self.pool,
                kind=TargetKind.ENGINE,
                target=engine.name,
                incarnation=self._incarnation,
                capability_hash="bench",
                knobs=KNOBS,
                effective=dict(engine.values),
            )
        yield Attach(pool=self.pool, kind=TargetKind.GATEWAY, target=GATEWAY, incarnation=self._incarnation)

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    @property
    def node_of(self) -> dict[str, int]:
        """The number of each engine's node."""
        return {engine.name: number for number, engines in enumerate(self._nodes) for engine in engines}

    def node_name(self, number: int) -> str:
        """The name of a node, which is its agent's."""
        return f"{self._node}-{number:02d}"

    def frames(self, second: int) -> list[Frame]:
        """One frame per node: what its agent sees `second` seconds after the start."""
        return [self.frame(number, second) for number in range(len(self._nodes))]

    def frame(self, number: int, second: int) -> Frame:
        """The frame of one node; its counters grow by a second's work at every call."""
        engines = self._nodes[number]
        return Frame(
            agent=AgentId(self.node_name(number)),
            boot=BootId("boot-1"),
            pool=self.pool,
            seq=second,
            wall_s=START_WALL_S + second,
            monotonic_s=1_000.0 + second,
            backlog=False,
            gpus=tuple([self._gpu(number, index, second) for index in range(len(engines))]),
            engines=tuple([self._sample(engine, index, second) for index, engine in enumerate(engines)]),
        )

    def answers(self, messages: Iterable[object]) -> list[Ack]:
        """The acks of directives and tables; their values hold from the next frame on."""
        acks = []
        for message in messages:
            if isinstance(message, Directive):
                engine = self.engines[message.engine]
                live = {name: value for name, value in message.values.items() if name != VARIANT}
                engine.values.update(live)
                acks.append(self._ack(TargetKind.ENGINE, message, message.engine, live))
            elif isinstance(message, RoutingTable):
                effective: dict[str, Value] = {}
                for route in message.routes:
                    self.engines[route.engine].weight = route.weight
                    effective[f"weight:{route.engine}"] = route.weight
                    effective[f"cap:{route.engine}"] = route.in_flight_cap
                acks.append(self._ack(TargetKind.GATEWAY, message, message.gateway, effective))
        return acks

    def _ack(
        self, kind: TargetKind, message: Directive | RoutingTable, target: str, effective: dict[str, Value]
    ) -> Ack:
        return Ack(
            pool=self.pool,
            kind=kind,
            target=target,
            incarnation=self._incarnation,
            version=message.version,
            status=AckStatus.APPLIED,
            effective=effective,
        )

    def _gpu(self, node: int, index: int, second: int) -> GpuSample:
        noise = self._random.random()
        return GpuSample(
            index,
            f"GPU-{node:08x}-{index:04x}",
            BandwidthSource.GPM,
            0,
            sm_busy_ratio=0.6 + 0.3 * noise,
            memory_time_ratio=0.5 + 0.3 * noise,
            hbm_bandwidth_ratio=0.4 + 0.3 * noise,
            hbm_peak_bytes_per_s=3.35e12,
            hbm_used_bytes=7.0e10 + 1e8 * noise,
            hbm_total_bytes=8.6e10,
            power_w=500.0 + 150.0 * noise,
            energy_j_total=550.0 * second + 10.0 * noise + 1.0,
            temperature_c=55.0 + 10.0 * noise,
            memory_temperature_c=65.0 + 10.0 * noise,
            sm_clock_hz=1.7e9 + 1e8 * noise,
        )

    def _sample(self, engine: _Engine, index: int, second: int) -> EngineSample:
        demand = max(0.0, 60.0 + 45.0 * math.sin(second / 40.0 + engine.phase) + self._random.gauss(0.0, 4.0))
        cap = engine.values[BATCH_CAP]
        running = float(int(min(demand, float(cap)) * min(1.0, engine.weight / 128)))
        waiting = float(int(max(0.0, demand - float(cap))))
        tpot = (0.012 + 0.0003 * running) * engine.slow
        tokens, finished = running / tpot, running / tpot / _OUTPUT_TOKENS
        prompt = finished * (_CONTEXT_TOKENS - _OUTPUT_TOKENS)
        step = tpot if running else 0.001
        growth = (
            prompt, tokens, finished, 0.0,  # tokens in and out, requests, preemptions
            finished * (0.3 + 0.05 * waiting), finished,  # TTFT
            running, tokens,  # inter-token latency
            finished * 0.02 * waiting, finished,  # queue
            prompt, 0.4 * prompt, 0.2 * tokens, 0.1 * tokens,  # prefix cache, speculation
            finished * _OUTPUT_TOKENS * tpot, finished,  # end to end
            1.0 / step, 1.0, 1.6e10 / step, 1e12 * tokens,  # steps, reads, operations
        )  # fmt: skip
        counters = engine.counters = [kept + more for kept, more in zip(engine.counters, growth, strict=True)]
        return EngineSample(
            EngineId(engine.name),
            self._incarnation,
            0,
            (index,),
            "graphs",
            running,
            waiting,
            min(1.0, running * _CONTEXT_TOKENS / _KV_CAPACITY_TOKENS),
            _KV_CAPACITY_TOKENS,
            *counters,
        )
