"""One simulated world: it is built from a seed, plays a schedule, and is judged.

What may be concluded from a run is in its `Outcome`; a world that raised, or whose parts are not themselves again when
all faults are long over, is a finding like any that the checker makes.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from flyball_controller.machine.state import Holding
from flyball_core.errors import Retryable
from flyball_core.ids import LogId
from flyball_core.inputs import Body, Mode, Order, OverrideClear, OverrideSet, PolicyText
from flyball_core.knobs import BATCH_CAP
from flyball_log.interface import Entry, Topic
from flyball_proto.codec import encode_input
from harness.memory_log import MemoryLog, MemoryShelf
from harness.scripted_pool import PRINT, WALL_S
from laboratory.checker import judge
from laboratory.leases import BEGINS, ENDS
from laboratory.record import Record
from laboratory.schedule import LOG, Cast, Fault, FaultKind, Schedule, draw
from laboratory.simulation.agents import Agent
from laboratory.simulation.controllers import Controller, Group
from laboratory.simulation.faulty_log import Brokers, FaultyLog, Odds, Way
from laboratory.simulation.fleet import Fleet
from laboratory.simulation.kernel import Kernel, Machine, Process, pause, run_now
from laboratory.simulation.links import KEEPALIVE_S
from laboratory.simulation.receivers import Attached
from laboratory.simulation.shortcuts import shortcuts
from laboratory.simulation.stage import POOL, Stage
from laboratory.verdict import Verdict

LENGTH_S = 22.0
"""Of a schedule; its last fifth is without faults."""
SETTLE_S = 7.0
"""How long a run goes on after its schedule."""
REST_S = 2.0
"""How long before the end agents sample no more."""
EVERY_S = 1.7
"""One fault on average each so many seconds."""
ON_ITS_WAY_S = 3.0
"""What was told so shortly before the end need not have arrived."""
RIVALRY = 0.2
"""In how many worlds both controllers are told for a while that the partition is theirs."""
NODES = {"agent-0": ("engine-0", "engine-1"), "agent-1": ("engine-2",)}
CONTROLLERS = ("controller-0", "controller-1")
GATEWAY = "gateway-0"
CAST = Cast(
    controllers=CONTROLLERS,
    agents=tuple(NODES),
    engines=tuple(name for engines in NODES.values() for name in engines),
    gateways=(GATEWAY,),
    log=True,
)
POLICY = """\
version: 1
mode: control
hold: {hold:g}s
lanes:
  realtime: {{priority: 0, ttft: 2s, tpot: 50ms, longest_wait: 20s}}
  bulk: {{priority: 10, end_to_end: 2min, longest_wait: 60s}}
knobs:
  max_active_requests: {{min: 4, max: 128}}
guard: {{raise_dwell: 10s}}
"""


@dataclass(slots=True)
class Outcome:
    """What a run was and what was found."""

    schedule: Schedule
    record: Record
    log: MemoryLog
    verdict: Verdict
    failures: list[str] = field(default_factory=list)
    """What raised, and what was not itself again at the end."""
    figures: dict[str, int] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """Every finding."""
        return [*self.failures, *self.verdict.broken]

    def digest(self) -> int:
        """Of every bit of record and log: the same for the same seed, anywhere."""
        lines = (self.record.sampled, self.record.applied, self.record.leases, self.record.happened)
        text = json.dumps([asdict(line) for kind in lines for line in kind])
        found = zlib.crc32(text.encode())
        for topic, partition, record in self.log.shelf:
            found = zlib.crc32(f"{topic.value}/{partition}/{record.offset}".encode(), found)
            found = zlib.crc32(record.key, zlib.crc32(record.value or b"-", found))
        return found


def schedule_of(seed: int) -> Schedule:
    """The schedule that is played for a seed."""
    return draw(seed, CAST, LENGTH_S, every_s=EVERY_S)


def simulate(seed: int, schedule: Schedule | None = None, *, replays: bool = True) -> Outcome:
    """Play the seed's schedule, or another, and judge what came of it. The same arguments give the same bits.

    `replays=False` leaves out the promise that costs as much as all others: that a replay decides the same.
    """
    with built(seed, schedule) as world:
        world.play()
        return world.judged(replays=replays)


@contextmanager
def built(seed: int, schedule: Schedule | None = None, hold_s: float | None = None) -> "Iterator[World]":
    """A world to be played and judged within the `with`. `hold_s` is how long receivers hold; the seed's, if None."""
    with shortcuts(), TemporaryDirectory(prefix="flyball-sim-", dir=_quick_folder()) as folder:
        yield World(seed, schedule or schedule_of(seed), Path(folder), hold_s)


class World:
    """One run."""

    def __init__(self, seed: int, schedule: Schedule, folder: Path, hold_s: float | None = None) -> None:
        self.schedule = schedule
        self.kernel = Kernel()
        self.machine = Machine(self.kernel)
        self.record = Record()
        self.shelf = MemoryShelf(LogId(f"00000000-0000-4000-8000-{seed % 16**12:012x}"), 1, f"simulation:{seed}")
        self.brokers = Brokers(MemoryLog(self.shelf), self.machine, Random(f"{seed} log"))
        self.stage = Stage(kernel=self.kernel, brokers=self.brokers, record=self.record, folder=folder, seed=f"{seed}")
        random = self.stage.random("world")
        self._random = random
        drawn_s = random.choice((4.0, 10.0, 1800.0, 1800.0))
        self.hold_s = drawn_s if hold_s is None else hold_s
        self.rivalry = RIVALRY
        self.group = Group(self.machine)
        self.controllers = {name: Controller(self.stage, name, self.group) for name in CONTROLLERS}
        self.fleet = Fleet(self.stage, NODES, GATEWAY, list(self.controllers.values()), self.hold_s)
        self.agents = {name: Agent(self.stage, name, self.fleet.sampler(name)) for name in NODES}
        self.parts: dict[str, Controller | Agent | Attached] = {
            **self.controllers,
            **self.fleet.receivers,
            **self.agents,
        }
        self.operator = Process(self.kernel, "operator")
        for receiver in self.fleet.receivers.values():
            receiver.process.on_crash = receiver.died

    def play(self) -> None:
        """Let everything happen."""
        for part in self.parts.values():
            part.start()
        self.operator.start()
        self.group.look()
        self._second()
        self.operator.spawn(self._operate())
        if self._random.random() < self.rivalry:
            both_s = self._random.uniform(0.1, 0.4) * self.schedule.length_s
            for_s = self._random.uniform(0.1, 0.3) * self.schedule.length_s
            self.machine.at(both_s, partial(self._rivalry, for_s))
        for fault in self.schedule.faults:
            self.machine.at(fault.at_s, partial(self._begin, fault))
            self.machine.at(fault.at_s + fault.for_s, partial(self._end, fault))
        self.kernel.run_until(self.schedule.length_s)
        self.brokers.odds = Odds(unknown=0.0, twice=0.0)
        self.kernel.run_until(self.schedule.length_s + SETTLE_S - REST_S)
        for agent in self.agents.values():
            agent.resting = True
        self.kernel.run_until(self.schedule.length_s + SETTLE_S)

    def judged(self, *, replays: bool) -> Outcome:
        """The checker's verdict, and what a look around finds."""
        log = MemoryLog(self.shelf)
        verdict = run_now(judge(self.record, log, replays=replays, fingerprint=PRINT))
        failures = [*self.kernel.failures, *self._not_themselves()]
        figures = {
            "faults": len(self.schedule.faults),
            "claims": sum(controller.claims for controller in self.controllers.values()),
            "appends": self.brokers.appends,
            "unknown appends": self.brokers.unknown,
            "repeated appends": self.brokers.repeated,
        }
        return Outcome(self.schedule, self.record, log, verdict, failures, figures)

    def _not_themselves(self) -> Iterator[str]:
        """What should be so again when all faults are over for so long."""
        held = [owned for one in self.controllers.values() if (owned := one.owned) is not None]
        owned = max(held, key=lambda one: one.epoch, default=None)
        pool = owned.state.pools[POOL] if owned is not None else None
        if owned is None or pool is None:
            yield "nobody owns the partition at the end"
            return
        for name, receiver in self.fleet.receivers.items():
            known = pool.gateways.get(name) or pool.engines.get(name)
            if receiver.stream is None:
                yield f"{name} is attached to nobody at the end"
            elif known is None or not known.attached or known.incarnation != receiver.incarnation:
                said = "nothing of it" if known is None else f"{known.incarnation}, attached: {known.attached}"
                yield f"{name} is attached as {receiver.incarnation} at the end, and the owner knows {said}"
            elif receiver.held != known.holding.version and _is_old(known.holding, owned.state.time_s):
                yield f"{name} holds {receiver.held} at the end, and was told {known.holding.version}"
        for name, agent in self.agents.items():
            if agent.waiting:
                yield f"{name} has {agent.waiting} frames in its spool at the end"

    def _second(self) -> None:
        """What passes by itself: load, and compaction now and then."""
        self.fleet.serve()
        if self._random.random() < 0.1:
            self.shelf.compact(Topic.DIRECTIVES, 0)
            self.shelf.compact(Topic.STATE, 0)
        self.machine.at(self.kernel.now_s + 1.0, self._second)

    def _rivalry(self, for_s: float) -> None:
        self.group.both_until_s = self.kernel.now_s + for_s
        self.stage.happened("both are told to own", "group", f"for {for_s:.1f} s")

    async def _operate(self) -> None:
        """The operator: a policy first, and then an order now and then."""
        log, random = FaultyLog(self.brokers, Way()), self.stage.random("operator")
        await self._say(log, PolicyText(pool=POOL, text=POLICY.format(hold=self.hold_s), author="op"))
        number = 0
        while True:
            await pause(random.expovariate(1 / 12.0))
            number += 1
            engine = random.choice(CAST.engines)
            said: Body = random.choice(
                (
                    OverrideSet(
                        pool=POOL,
                        override_id=f"o{number}",
                        target=engine,
                        knob=BATCH_CAP,
                        value=random.randint(4, 128),
                        expires_wall_s=WALL_S + self.kernel.now_s + random.uniform(2.0, 20.0),
                        reason="trying",
                        author="op",
                    ),
                    OverrideClear(pool=POOL, override_id=f"o{number - 1}", author="op"),
                    Order(pool=POOL, author="op", paused=random.random() < 0.3),
                    Order(pool=POOL, author="op", mode=Mode.CONTROL, paused=False),
                )
            )
            await self._say(log, said)

    async def _say(self, log: FaultyLog, body: Body) -> None:
        while True:
            try:
                await log.append(Topic.INPUTS, 0, [Entry(POOL.encode(), encode_input(body))])
            except Retryable:
                await pause(0.5)
            else:
                return

    def _begin(self, fault: Fault) -> None:
        self.stage.happened(BEGINS, fault.target, str(fault))
        if fault.target == LOG:
            self._strike_log(fault)
        elif fault.target in self.controllers:
            self._strike_controller(self.controllers[fault.target], fault)
        elif fault.target in self.agents:
            self._strike_agent(self.agents[fault.target], fault)
        else:
            self._strike_receiver(fault)

    def _strike_log(self, fault: Fault) -> None:
        if fault.kind is FaultKind.KILL:
            self.brokers.down = True
        else:
            self.brokers.frozen_until_s = self.kernel.now_s + fault.for_s

    def _strike_controller(self, controller: Controller, fault: Fault) -> None:
        if fault.kind is FaultKind.KILL:
            controller.kill()
        else:
            controller.process.freeze()

    def _strike_agent(self, agent: Agent, fault: Fault) -> None:
        act: dict[FaultKind, Callable[[], None]] = {
            FaultKind.KILL: agent.kill,
            FaultKind.FREEZE: agent.process.freeze,
            FaultKind.DISK_FULL: lambda: agent.fill_disk(full=True),
        }
        if fault.kind in act:
            act[fault.kind]()
        elif fault.kind is FaultKind.CUT:
            agent.way.cut_until_s = self.kernel.now_s + fault.for_s
        elif fault.kind is FaultKind.DELAY:
            agent.way.delay_s = fault.by
        elif fault.kind is FaultKind.CLOCK:
            agent.clock_s = fault.by
        else:
            agent.kill()
            agent.corrupt(fault.by)

    def _strike_receiver(self, fault: Fault) -> None:
        receiver = self.fleet.receivers[fault.target]
        now_s, stream = self.kernel.now_s, receiver.stream
        if fault.kind is FaultKind.KILL and receiver.dies_in is None and self._random.random() < 0.5:
            # It dies while it writes down the next version, if one comes in time; in any case by the fault's end.
            receiver.dies_in = self._random.randrange(4)
            self.machine.at(now_s + fault.for_s / 2, receiver.kill)
        elif fault.kind is FaultKind.KILL:
            receiver.kill()
        elif fault.kind is FaultKind.CORRUPT:
            receiver.kill()
            receiver.corrupt(fault.by)
        elif fault.kind is FaultKind.DELAY:
            receiver.way.delay_s = fault.by
        else:
            if fault.kind is FaultKind.FREEZE:
                receiver.process.freeze()
            else:
                receiver.way.cut_until_s = now_s + fault.for_s
            if stream is not None:
                stream.controller.process.at(now_s + KEEPALIVE_S, stream.check_alive)

    def _end(self, fault: Fault) -> None:
        self.stage.happened(ENDS, fault.target, str(fault))
        if fault.target == LOG:
            self.brokers.down = False
            return
        part = self.parts[fault.target]
        if fault.kind in (FaultKind.KILL, FaultKind.CORRUPT):
            part.start()
        elif fault.kind is FaultKind.FREEZE:
            part.process.thaw()
        elif fault.kind is FaultKind.DISK_FULL and isinstance(part, Agent):
            part.fill_disk(full=False)
        elif fault.kind is FaultKind.CLOCK and isinstance(part, Agent):
            part.clock_s = 0.0
        elif fault.kind is FaultKind.DELAY and not isinstance(part, Controller):
            part.way.delay_s = 0.0


def _is_old(holding: Holding, now_s: float) -> bool:
    """Whether what was told last is no longer on its way."""
    return holding.version is not None and not holding.nack and now_s - holding.published_s > ON_ITS_WAY_S


def _quick_folder() -> str | None:
    """Where files cost least, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
