"""What the machine knows by name and keeps, at each limit and one beyond it: a step at a time, in virtual time."""

from collections import Counter
from dataclasses import dataclass, field, replace

from flyball_controller.machine import Seams, answers, standard_seams, step
from flyball_controller.machine.state import PartitionState, PoolState
from flyball_core.frames import EngineSample, Frame, GatewaySample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, LogId, OwnerId, PoolId
from flyball_core.inputs import (
    Ack,
    AckStatus,
    Attach,
    Body,
    Claim,
    Grant,
    Input,
    Mode,
    OverrideSet,
    Proposal,
    Rebase,
    SlowProposal,
    TargetKind,
    Tick,
)
from flyball_core.knobs import BATCH_CAP, KnobClass, KnobKind, KnobSpec
from flyball_core.outputs import Directive, RoutingTable
from harness.scripted_pool import PRINT, WALL_S
from limit_table import Answers, Bench, beyond

CHAT = PoolId("chat")
CAP = KnobSpec(name=BATCH_CAP, knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=64, minimum=1, maximum=256)


@dataclass(slots=True)
class Machine:
    """One partition, claimed; `put` tells what an input was counted as and what was noted of it."""

    seams: Seams = field(default_factory=standard_seams)
    state: PartitionState = field(default_factory=lambda: PartitionState(log_id=LogId("log"), partition=0))
    offset: int = -1

    def __post_init__(self) -> None:
        self.put(Claim(owner=OwnerId("c1"), log_id=LogId("log"), fingerprint=PRINT, wall_s=WALL_S))

    def put(self, body: Body) -> str:
        """One input; the names of what it was counted as, and the notes that it gave rise to."""
        before = self._told()
        self.offset += 1
        step(self.state, Input(self.offset, 0, body), self.seams)
        return "; ".join((self._told() - before).keys())

    def tick(self, interval_s: float = 1.0, wall_s: float = WALL_S) -> str:
        """The owner's beat."""
        return self.put(Tick(epoch=self.state.epoch, interval_s=interval_s, wall_s=wall_s))

    @property
    def chat(self) -> PoolState:
        """The pool that all of this is about."""
        return self.state.pools["chat"]

    def _told(self) -> Counter[str]:
        told = Counter(self.state.counts)
        for pool in self.state.pools.values():
            told.update(pool.counts)
            told.update(note.summary for note in pool.notes)
        return told


def frame(
    seq: int = 0, *, agent: str = "a0", boot: str = "b0", engines: int = 0, lanes: int = 0, of: str = ""
) -> Frame:
    """A frame of so many engines and lanes, named after its agent unless told otherwise."""
    first = EngineSample(EngineId(""), Incarnation("i"), 0, (), "", requests_running=1.0)
    lane = GatewaySample(GatewayId("g"), Incarnation("i"), "", requests_queued=1.0)
    return Frame(
        agent=AgentId(agent),
        boot=BootId(boot),
        pool=CHAT,
        seq=seq,
        wall_s=WALL_S,
        monotonic_s=float(seq),
        backlog=False,
        gpus=(),
        engines=tuple(first._replace(engine=EngineId(f"{of or agent}-{one}")) for one in range(engines)),
        gateways=tuple(lane._replace(gateway=GatewayId(f"{of or agent}-{one}")) for one in range(lanes)),
    )


def attach(target: str = "e0", kind: TargetKind = TargetKind.ENGINE, pool: str = "chat") -> Attach:
    """A receiver that comes."""
    engine = kind is TargetKind.ENGINE
    return Attach(
        pool=PoolId(pool),
        kind=kind,
        target=target,
        incarnation=Incarnation("i"),
        knobs=(CAP,) if engine else (),
        effective={BATCH_CAP: 64} if engine else {},
    )


def pin(number: int, reason: str = "r") -> OverrideSet:
    """An operator's order."""
    return OverrideSet(
        pool=CHAT,
        override_id=f"o{number:06}",
        target="",
        knob=BATCH_CAP,
        value=50,
        expires_wall_s=WALL_S + 1e6,
        reason=reason,
        author="op",
    )


@beyond("pools")
def pools(bench: Bench) -> Answers:
    """Of as many agents as are needed to begin them."""
    machine = Machine()
    told = [
        machine.put(frame(agent=f"a{number // 8}")._replace(pool=PoolId(f"p{number}")))
        for number in range(bench.limit + 1)
    ]
    return "; ".join(told[:-1]), told[-1]


@beyond("pools-of-one")
def pools_of_one(bench: Bench) -> Answers:
    """Of one agent, and of one engine likewise."""
    machine = Machine()
    told = [machine.put(frame()._replace(pool=PoolId(f"p{number}"))) for number in range(bench.limit + 1)]
    more = [machine.put(attach(pool=f"q{number}")) for number in range(bench.limit + 1)]
    return "; ".join(told[:-1] + more[:-1]), f"{told[-1]}" if told[-1] == more[-1] else ""


@beyond("agents")
def agents(bench: Bench) -> Answers:
    """Of one pool."""
    machine = Machine()
    told = [machine.put(frame(agent=f"a{number}", engines=1)) for number in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


@beyond("boots")
def boots(bench: Bench) -> Answers:
    """As many are told apart: their late frames are taken. With one more the oldest has ended."""
    machine = Machine()
    for number in range(bench.limit):
        machine.put(frame(boot=f"b{number}", engines=1))
    at = machine.put(frame(1, boot="b0", engines=1))
    machine.put(frame(boot="more", engines=1))
    return at, machine.put(frame(2, boot="b0", engines=1))


@beyond("ended-boots")
def ended_boots(bench: Bench) -> Answers:
    """As many are known by name; the one before them is taken for new."""
    machine = Machine()
    kept = 8
    for number in range(kept + bench.limit):
        machine.put(frame(boot=f"b{number}", engines=1))
    at = machine.put(frame(1, boot="b0", engines=1))
    machine.put(frame(boot="more", engines=1))
    more = machine.put(frame(2, boot="b0", engines=1))
    assert "rejected_boot" in at
    return "", "forgotten" if "delivered" in more else ""


@beyond("engines")
def engines(bench: Bench) -> Answers:
    """That attach."""
    machine = Machine()
    told = [machine.put(attach(f"{number:x}")) for number in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


def _ticked(machine: Machine, *frames: Frame) -> str:
    """What is counted by the time these frames have been read."""
    before = Counter(machine.chat.counts) if "chat" in machine.state.pools else Counter[str]()
    for one in frames:
        machine.put(one)
    for _ in range(4):
        machine.tick()
    return "; ".join((Counter(machine.chat.counts) - before).keys())


@beyond("engines-of-one")
def engines_of_one(bench: Bench) -> Answers:
    """In frames of one agent."""
    machine = Machine()
    at = _ticked(machine, frame(0, engines=bench.limit))
    return at, _ticked(machine, frame(10, engines=1, of="more"))


@beyond("queues")
def queues(bench: Bench) -> Answers:
    """In frames of as many agents as are needed."""
    machine, of_one = Machine(), 64
    at = _ticked(machine, *(frame(agent=f"a{number}", lanes=of_one) for number in range(bench.limit // of_one)))
    return at, _ticked(machine, frame(agent="more", lanes=1))


@beyond("queues-of-one")
def queues_of_one(bench: Bench) -> Answers:
    """In frames of one agent."""
    machine = Machine()
    at = _ticked(machine, frame(0, lanes=bench.limit))
    return at, _ticked(machine, frame(10, lanes=1, of="more"))


@beyond("frame-samples")
def frame_samples(bench: Bench) -> Answers:
    """Of one engine, rank by rank."""
    machine = Machine()

    def ranks(seq: int, count: int) -> Frame:
        one = frame(seq, engines=1)
        return one._replace(engines=one.engines * count)

    return machine.put(ranks(0, bench.limit)), machine.put(ranks(1, bench.limit + 1))


@beyond("pending")
def pending(bench: Bench) -> Answers:
    """Between two ticks."""
    machine = Machine()
    told = [machine.put(frame(seq, engines=1)) for seq in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


@beyond("sequence-holes")
def sequence_holes(bench: Bench) -> Answers:
    """Every second frame was lost; the first of those comes late."""
    at, more = Machine(), Machine()
    for number in range(bench.limit):
        at.put(frame(2 * number, engines=1))
    for number in range(bench.limit + 1):
        more.put(frame(2 * number, engines=1))
    return at.put(frame(1, engines=1)), more.put(frame(1, engines=1))


@beyond("gateways")
def gateways(bench: Bench) -> Answers:
    """That attach."""
    machine = Machine()
    told = [machine.put(attach(f"g{number}", TargetKind.GATEWAY)) for number in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


@beyond("names-bytes")
def names_bytes(bench: Bench) -> Answers:
    """Engines of long names, until a gateway's answer is full."""
    machine, each = Machine(), 2 * 200 + 40
    fit = bench.limit // each
    told = [machine.put(attach(f"{number:0200}")) for number in range(fit + 1)]
    left = bench.limit - fit * each
    last = (left - 40) // 2
    if last > 0:  # what is left takes a shorter name, and then nothing any more
        told.insert(-1, machine.put(attach("x" * last)))
    return "; ".join(told[:-1]), machine.put(attach("yy"))


@beyond("overrides")
def overrides(bench: Bench) -> Answers:
    """In force at once."""
    machine = Machine()
    machine.put(attach())
    told = [machine.put(pin(number)) for number in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


@beyond("overrides-bytes")
def overrides_bytes(bench: Bench) -> Answers:
    """Of long reasons: the last character fills them up."""
    machine, count = Machine(), 128
    machine.put(attach())
    words = (pin(0).pool, pin(0).override_id, pin(0).target, pin(0).knob, "50", "op")
    bare = sum(map(len, words)) + 64
    for number in range(count - 1):
        assert "refused" not in machine.put(pin(number, "r" * (bench.limit // count - bare)))
    room = bench.limit - (count - 1) * (bench.limit // count) - bare
    return machine.put(pin(count, "r" * room)), machine.put(pin(count, "r" * (room + 1)))


@beyond("grants")
def grants(bench: Bench) -> Answers:
    """Of different names."""
    machine = Machine()

    def kept(count: int) -> str:
        for number in range(count):
            machine.put(Grant(pool=CHAT, name=f"g{number}", amount=1.0, expires_wall_s=WALL_S))
        return "left out" if len(machine.chat.grants) < count else ""

    return kept(bench.limit), kept(bench.limit + 1)


@beyond("rebases")
def rebases(bench: Bench) -> Answers:
    """Between two ticks."""
    machine = Machine()
    machine.put(attach())
    told = [machine.put(Rebase(pool=CHAT, target="", author="op", reason="r")) for _ in range(bench.limit + 1)]
    return "; ".join(told[:-1]), told[-1]


@beyond("table-bytes")
def table_bytes(bench: Bench) -> Answers:
    """A gateway that tells of more lanes in every answer, each time of others."""
    machine = Machine()
    machine.put(attach())
    machine.put(attach("g0", TargetKind.GATEWAY))
    machine.chat.mode = Mode.CONTROL
    machine.tick()
    table = machine.chat.gateways["g0"].published
    assert table is not None
    held = sum(len(f"{name}{value}") + 16 for name, value in machine.chat.gateways["g0"].holding.effective.items())

    def answer(name: str, size: int) -> str:
        return machine.put(_ack(table, {name: "x" * (size - len(name) - 16)}))

    half = (bench.limit - held) // 2
    at = answer("one", half) + answer("two", bench.limit - held - half)
    return at, answer("three", 30)


def _ack(table: RoutingTable | Directive, effective: dict[str, bool | int | float | str]) -> Ack:
    assert isinstance(table, RoutingTable)
    return Ack(
        pool=CHAT,
        kind=TargetKind.GATEWAY,
        target="g0",
        incarnation=Incarnation("i"),
        version=table.version,
        status=AckStatus.APPLIED,
        effective=effective,
    )


def _proposal(number: int) -> Proposal:
    return Proposal(policy="slow", kind=TargetKind.ENGINE, target=f"e{number}", knob=BATCH_CAP, value=1, reason="")


def _answered(proposals: tuple[Proposal, ...], missed: str = "") -> Machine:
    """A machine whose policy outside `step` has answered the last tick."""
    machine = Machine(seams=slow_seams(standard_seams()))
    machine.put(attach())
    machine.chat.mode = Mode.ADVISE
    machine.tick()
    revision = machine.chat.slow_revision
    machine.put(SlowProposal(pool=CHAT, policy="slow", tick_revision=revision, missed=missed, proposals=proposals))
    return machine


def slow_seams(seams: Seams) -> Seams:
    """The same with one policy outside `step`."""
    return replace(seams, slow=("slow",))


@beyond("proposals")
def proposals(bench: Bench) -> Answers:
    """Of a policy outside `step`."""

    def kept(count: int) -> str:
        machine = _answered(tuple(map(_proposal, range(count))))
        return "left out" if len(machine.chat.slow["slow"]) < count else ""

    return kept(bench.limit), kept(bench.limit + 1)


@beyond("failure-words")
def failure_words(bench: Bench) -> Answers:
    """What an exception says, its name included."""
    name = "RuntimeError: "

    def told(words: int) -> str:
        text = "x" * (words - len(name))
        return "" if answers.failure(RuntimeError(text)) == name + text else "cut short"

    return told(bench.limit), told(bench.limit + 1)


@beyond("policy-failures")
def policy_failures(bench: Bench) -> Answers:
    """In a row; with the last it is asked no more."""
    machine = Machine(seams=slow_seams(standard_seams()))
    machine.put(attach())
    machine.chat.mode = Mode.ADVISE
    told = []
    for _ in range(bench.limit):
        machine.tick()
        missed = SlowProposal(pool=CHAT, policy="slow", tick_revision=machine.chat.slow_revision, missed="late")
        told.append(machine.put(missed))
    return "; ".join(told[:-1]), told[-1]


@beyond("tick-seconds")
def tick_seconds(bench: Bench) -> Answers:
    """By how much a tick moves the machine's time."""
    machine = Machine()
    machine.tick(0.0)

    def moved(interval_s: float) -> str:
        before_s = machine.state.time_s
        machine.tick(interval_s)
        return "" if machine.state.time_s - before_s == interval_s else "cut short"

    return moved(bench.limit), moved(bench.limit + 1)


@beyond("takeover-seconds")
def takeover_seconds(bench: Bench) -> Answers:
    """By how much the wall clock may, between two owners."""
    machine = Machine()
    machine.tick(0.0)

    def moved(wall_s: float) -> str:
        machine.put(Claim(owner=OwnerId("c2"), log_id=LogId("log"), fingerprint=PRINT, wall_s=WALL_S))
        before_s, machine.state.wall_s = machine.state.time_s, WALL_S
        machine.tick(0.0, WALL_S + wall_s)
        return "" if machine.state.time_s - before_s == wall_s else "cut short"

    return moved(bench.limit), moved(bench.limit + 1)
