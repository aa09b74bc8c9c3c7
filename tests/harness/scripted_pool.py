"""A scripted pool around the machine: load in, encoded inputs through `step`, answers applied.

Everything happens in virtual time and is recorded as an event log, which the invariant
monitor reads. Hooks stand where a network or a receiver could go wrong.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flyball_controller.machine import PartitionState, Seams, standard_seams, step
from flyball_core.fencing import Version
from flyball_core.frames import BandwidthSource, Frame, GatewaySample, GpuSample
from flyball_core.ids import AgentId, BootId, GatewayId, Incarnation, LogId, OwnerId
from flyball_core.inputs import Ack, AckStatus, Attach, Body, Claim, Fingerprint, Input, PolicyText, Tick
from flyball_core.knobs import Value
from flyball_core.outputs import DecisionRecord, Directive, Output, RecordKind, RoutingTable, TickRecord
from flyball_proto.codec import decode_input, encode_input
from harness.scripted_engine import POOL, Load, ScriptedEngine, ScriptedGateway

LOG_ID = LogId("11111111-1111-4111-8111-111111111111")
WALL_S = 1_700_000_000.0

POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 50ms, longest_wait: 20s}
  bulk: {priority: 10, end_to_end: 2min, longest_wait: 60s}
knobs:
  max_active_requests: {min: 4, max: 128}
"""

PRINT = Fingerprint(flyball="0", numpy="0", river="0", cpu=())

Message = Directive | RoutingTable
FrameHook = Callable[[Frame], Iterable[Frame | bytes]]
AnswerHook = Callable[[Message, Ack], Ack | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A receiver took a version over."""

    time_s: float
    target: str
    version: Version
    values: dict[str, Value]


@dataclass(slots=True)
class EventLog:
    """What went in, what came out, and what receivers made of it."""

    inputs: list[Input] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """The bytes of each input, by offset."""
    outputs: list[Output] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    sent: list[tuple[str, str, str, int]] = field(default_factory=list)
    """Identity of every frame that agents made, once each."""

    def decisions(self, kind: RecordKind | None = None) -> list[DecisionRecord]:
        """The decision records, of one kind if asked."""
        return [o for o in self.outputs if isinstance(o, DecisionRecord) and kind in (None, o.kind)]

    def told(self, target: str = "") -> list[Message]:
        """Directives and tables, of one target if asked."""
        return [
            o
            for o in self.outputs
            if isinstance(o, (Directive, RoutingTable))
            and target in ("", o.engine if isinstance(o, Directive) else o.gateway)
        ]

    def ticks(self) -> list[TickRecord]:
        """The tick records."""
        return [o for o in self.outputs if isinstance(o, TickRecord)]


@dataclass(slots=True, kw_only=True)
class ScriptedPool:
    """Agents, engines, gateways and the machine that governs them."""

    engines: dict[str, ScriptedEngine]
    gateways: dict[str, ScriptedGateway]
    load: Callable[[float], Load] = lambda _now_s: Load()
    seams: Seams = field(default_factory=standard_seams)
    state: PartitionState = field(default_factory=lambda: PartitionState(log_id=LOG_ID, partition=0))
    log: EventLog = field(default_factory=EventLog)
    now_s: float = 0.0
    seqs: dict[str, int] = field(default_factory=dict)
    boot: str = "b0"
    relaunch_s: float = 40.0
    queued: float = 0.0
    """Requests that found no place, at the last second."""
    arrived: float = 0.0
    on_frame: FrameHook = lambda frame: (frame,)
    on_answer: AnswerHook = lambda _message, ack: ack
    delayed: list[Frame | bytes] = field(default_factory=list)
    """Frames that a hook kept back; they come before those of the next second."""
    new_epoch: bool = True

    def put(self, body: Body) -> list[Output]:
        """Append one input and step through it."""
        return self.put_raw(encode_input(body))

    def put_raw(self, value: bytes) -> list[Output]:
        """Append bytes as they are and step through what they are read as."""
        item = decode_input(len(self.log.inputs), value)
        self.log.inputs.append(item)
        self.log.raw.append(value)
        outputs = step(self.state, item, self.seams)
        self.log.outputs.extend(outputs)
        return outputs

    def claim(self, owner: str = "c1") -> None:
        """An owner takes over."""
        self.put(Claim(owner=OwnerId(owner), log_id=LOG_ID, fingerprint=PRINT, wall_s=WALL_S + self.now_s))
        self.new_epoch = True

    def begin(self, policy: str = POLICY) -> "ScriptedPool":
        """Claim, policy document, and everybody attached."""
        self.claim()
        if policy:
            self.put(PolicyText(pool=POOL, text=policy, author="op"))
        for engine in self.engines.values():
            self.put(engine.attach())
        for gateway in self.gateways.values():
            self.put(gateway.attach())
        return self

    def second(self) -> list[Output]:
        """One second of the pool's life, a tick at its end; the tick's outputs."""
        waiting, self.delayed = self.delayed, []
        for body in self.serve():
            if isinstance(body, Frame):
                waiting.extend(self.on_frame(body))
            else:
                self.put(body)
        for item in waiting:
            self.put_raw(item if isinstance(item, bytes) else encode_input(item))
        return self.tick()

    def serve(self) -> list[Frame | Attach]:
        """Serve one second of load; who came back from a relaunch, and what the agents saw."""
        load = self.load(self.now_s)
        back = self._come_back()
        self._share_out(load)
        return [*back, *self._frames(load)]

    def run(self, seconds: int) -> list[Output]:
        """Some seconds; the outputs of all of them."""
        made: list[Output] = []
        for _ in range(seconds):
            made.extend(self.second())
        return made

    def tick(self, interval_s: float = 1.0) -> list[Output]:
        """A tick of the owner in force, and what receivers make of its outputs."""
        self.now_s += interval_s
        moved = 0.0 if self.new_epoch else interval_s
        self.new_epoch = False
        outputs = self.put(Tick(epoch=self.state.epoch, interval_s=moved, wall_s=WALL_S + self.now_s))
        for output in outputs:
            if isinstance(output, (Directive, RoutingTable)):
                self.deliver(output)
        return outputs

    def deliver(self, message: Message) -> None:
        """Hand a directive or table to its receiver, if it is there, and append the answer."""
        answer: Ack | None
        values: dict[str, Value]
        if isinstance(message, Directive):
            if message.engine not in self.engines:
                return
            answer = self.engines[message.engine].take(message, self.now_s, self.relaunch_s)
            values = dict(message.values)
        else:
            if message.gateway not in self.gateways:
                return
            answer = self.gateways[message.gateway].take(message)
            values = {f"weight:{route.engine}": route.weight for route in message.routes}
        if answer.status is not AckStatus.NACK:
            self.log.applied.append(
                Applied(time_s=self.now_s, target=answer.target, version=message.version, values=values)
            )
        answer = self.on_answer(message, answer)
        if answer is not None:
            self.put(answer)

    def _come_back(self) -> list[Attach]:
        back = [e for e in self.engines.values() if e.back_at_s is not None and self.now_s >= e.back_at_s]
        for engine in back:
            engine.restart(f"i{self.now_s:.0f}")
        return [engine.attach() for engine in back]

    def _share_out(self, load: Load) -> None:
        """Requests go by weight as far as there are places; what is over goes where there still are, or waits."""
        up = [engine for engine in self.engines.values() if engine.back_at_s is None]
        weights = {engine.name: self._weight(engine.name) for engine in up}
        places = {engine.name: engine.places(self._limit(engine.name)) for engine in up}
        running = dict.fromkeys(weights, 0.0)
        left = load.concurrency
        open_ = {name for name, weight in weights.items() if weight > 0}
        while left > 1e-6 and open_:
            total = sum(weights[name] for name in open_)
            taken = {name: min(left * weights[name] / total, places[name] - running[name]) for name in open_}
            for name, number in taken.items():
                running[name] += number
            left -= sum(taken.values())
            open_ = {name for name in open_ if places[name] - running[name] > 1e-6}
        self.queued = left
        for engine in up:
            engine.live(running[engine.name], load)

    def _weight(self, engine: str) -> float:
        told = [gateway.table.get(f"weight:{engine}") for gateway in self.gateways.values()]
        return sum(128.0 if weight is None else float(weight) for weight in told) if told else 1.0

    def _limit(self, engine: str) -> float | None:
        shares = [gateway.table.get(f"cap:{engine}") for gateway in self.gateways.values()]
        known = [float(share) for share in shares if isinstance(share, int) and share > 0]
        return sum(known) if known and len(known) == len(shares) else None

    def _gateway_samples(self, load: Load) -> tuple[GatewaySample, ...]:
        self.arrived += load.concurrency / 4.0
        shares = len(self.gateways) or 1
        return tuple(
            GatewaySample(
                GatewayId(gateway.name),
                Incarnation(gateway.incarnation),
                "",
                requests_queued=self.queued / shares,
                requests_total=self.arrived / shares,
            )
            for gateway in self.gateways.values()
        )

    def _frames(self, load: Load) -> list[Frame]:
        frames = []
        gateways = self._gateway_samples(load)
        for agent in sorted({engine.agent for engine in self.engines.values()}):
            mine = [engine for engine in self.engines.values() if engine.agent == agent]
            seq = self.seqs.get(agent, 0)
            self.seqs[agent] = seq + 1
            frame = Frame(
                agent=AgentId(agent),
                boot=BootId(self.boot),
                pool=POOL,
                seq=seq,
                wall_s=WALL_S + self.now_s,
                monotonic_s=1000.0 + self.now_s,
                backlog=False,
                gpus=tuple(
                    GpuSample(engine.gpu, "uuid", BandwidthSource.GPM, 0, sm_busy_ratio=0.6, hbm_bandwidth_ratio=0.5)
                    for engine in mine
                ),
                engines=tuple(engine.sample(load) for engine in mine if engine.back_at_s is None),
                gateways=gateways if agent == "a0" else (),
            )
            self.log.sent.append((frame.agent, frame.boot, frame.pool, frame.seq))
            frames.append(frame)
        return frames


def scripted_pool(
    *,
    agents: int = 2,
    per_agent: int = 2,
    gateways: int = 1,
    policy: str = POLICY,
    load: Callable[[float], Load] | None = None,
    seams: Seams | None = None,
) -> ScriptedPool:
    """A pool of `agents` x `per_agent` engines, claimed and attached, under a policy document."""
    engines = {
        name: ScriptedEngine(name=name, agent=f"a{a}", gpu=i)
        for a in range(agents)
        for i in range(per_agent)
        for name in [f"e{a}-{i}"]
    }
    pool = ScriptedPool(
        engines=engines,
        gateways={name: ScriptedGateway(name=name) for name in (f"gw{i}" for i in range(gateways))},
        seams=seams or standard_seams(),
    )
    if load is not None:
        pool.load = load
    return pool.begin(policy)
