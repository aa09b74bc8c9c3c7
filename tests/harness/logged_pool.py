"""The scripted pool over a log: owner and pusher in between, as in life, in virtual time."""

from dataclasses import dataclass, field

from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owner
from flyball_controller.pusher import Message, Pusher
from flyball_core.ids import OwnerId
from flyball_core.inputs import Ack, Attach, Body, PolicyText
from flyball_core.outputs import Directive, RoutingTable
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import encode_input
from harness.scripted_engine import POOL, ScriptedEngine, ScriptedGateway
from harness.scripted_pool import POLICY, PRINT, WALL_S, ScriptedPool, scripted_pool


@dataclass(slots=True)
class Wire:
    """One receiver's link; its answers wait until the pool's second is over."""

    receiver: ScriptedEngine | ScriptedGateway
    pool: "LoggedPool"

    async def send(self, message: Message) -> None:
        """Hand the message to the receiver."""
        self.pool.pushed += 1
        if isinstance(message, Directive) and isinstance(self.receiver, ScriptedEngine):
            self.pool.answers.append(self.receiver.take(message, self.pool.now_s, 20.0))
        elif isinstance(message, RoutingTable) and isinstance(self.receiver, ScriptedGateway):
            self.pool.answers.append(self.receiver.take(message))
        else:
            self.pool.beats += 1


@dataclass(slots=True)
class LoggedPool:
    """Agents, engines and gateways whose inputs stand in a log; owners are driven by hand."""

    log: Log
    pusher: Pusher
    scripted: ScriptedPool = field(default_factory=lambda: scripted_pool(policy=""))
    now_s: float = 0.0
    answers: list[Ack] = field(default_factory=list)
    pushed: int = 0
    beats: int = 0

    @property
    def partition(self) -> int:
        """The partition of the pool."""
        return self.log.partition_of(POOL)

    async def put(self, body: Body) -> None:
        """Append one input."""
        await self.log.append(Topic.INPUTS, self.partition, [Entry(POOL.encode(), encode_input(body))])

    async def begin(self, policy: str = POLICY) -> None:
        """Policy document, and everybody attached through the pusher."""
        await self.put(PolicyText(pool=POOL, text=policy, author="op"))
        for engine in self.scripted.engines.values():
            await self.pusher.attached(Wire(engine, self), engine.attach())
        for gateway in self.scripted.gateways.values():
            await self.pusher.attached(Wire(gateway, self), gateway.attach())

    async def second(self, owner: Owner) -> None:
        """One second of life: frames, the owner's tick, pushes, answers."""
        self.scripted.now_s = self.now_s
        for body in self.scripted.serve():
            if isinstance(body, Attach):
                await self.pusher.attached(Wire(self.scripted.engines[body.target], self), body)
            else:
                await self.put(body)
        self.now_s += 1.0
        first = not owner.owned[self.partition].state.first_tick_done
        await owner.tick(self.partition, 0.0 if first else 1.0, WALL_S + self.now_s)
        await self.pusher.poll()
        answers, self.answers = self.answers, []
        if answers:
            await self.pusher.acked(*answers)

    async def run(self, owner: Owner, seconds: int) -> None:
        """Some seconds of life."""
        for _ in range(seconds):
            await self.second(owner)


def owner_of(log: Log, name: str = "c1") -> Owner:
    """An owner with the standard parts."""
    return Owner(log, OwnerId(name), standard_seams, PRINT)


async def logged_pool(log: Log, policy: str = POLICY) -> tuple[LoggedPool, Owner]:
    """A pool over a log, taken by a first owner, with everybody attached."""
    pool = LoggedPool(log, Pusher(log))
    owner = owner_of(log)
    await owner.take(pool.partition, WALL_S)
    await pool.begin(policy)
    return pool, owner
