"""Engines and gateways: each a process with the product's receiver in it, its store on disk, and a stream to keep.

What a receiver takes goes on record before it is on disk as held, and by then it is on disk as being tried. Leases are
put on record as they would be by somebody who looked over the receiver's shoulder, not as it reckons itself.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Literal

from flyball_agents.conversing import Conversation
from flyball_agents.easing import Phase, ReceiverLimits
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import Held
from flyball_agents.surface import Surface
from flyball_controller.pusher import Message
from flyball_core.fencing import Fence, Version
from flyball_core.ids import Incarnation
from flyball_core.inputs import Ack, AckStatus, TargetKind
from flyball_core.knobs import Value
from flyball_core.outputs import Directive, Heartbeat, RoutingTable
from flyball_proto.codec import Said
from flyball_service.channels import Backoff
from harness.scripted_pool import WALL_S
from laboratory.receiving import TellingStore
from laboratory.record import Applied, Eased, Renewed
from laboratory.simulation.controllers import Controller
from laboratory.simulation.faulty_log import Way
from laboratory.simulation.kernel import Crashed, Process, pause, wait_for
from laboratory.simulation.links import Stream
from laboratory.simulation.stage import POOL, Stage, change_byte

BEAT_S = 1.0
SILENT_S = 4.0
"""After so long without a word a receiver tries another controller."""
REFUSED_S = 1.0


class MortalStore(TellingStore):
    """A store of which any writing can be the last thing that a process does, before it or right after."""

    def __init__(self, receiver: "Attached") -> None:
        super().__init__(receiver.folder, receiver.applied, durable=False)
        self._receiver = receiver

    def keep(self, held: Held) -> None:
        """Put it on disk, or die."""
        self._receiver.may_die()
        super().keep(held)
        self._receiver.may_die()


class Attached:
    """One engine or gateway as a process, over its lives."""

    def __init__(
        self,
        stage: Stage,
        kind: TargetKind,
        name: str,
        launch: Callable[[], Surface],
        controllers: Sequence[Controller],
        hold_s: float,
    ) -> None:
        """`launch` starts what is governed, as it would start without Flyball, and gives its surface."""
        self.name = name
        self.folder = stage.folder / name
        self.process = Process(stage.kernel, name)
        self.way = Way()
        self.stream: Stream | None = None
        self.held: Version | None = None
        self.dies_in: int | None = None
        """So many writes to its store from now, it dies."""
        self._kind = kind
        self._stage = stage
        self._launch = launch
        self._controllers = controllers
        self._limits = ReceiverLimits(hold_s=hold_s)
        self._random: Random = stage.random(name)
        self._newest: Version | None = None

    @property
    def _now_s(self) -> float:
        return self.process.kernel.now_s

    @property
    def incarnation(self) -> Incarnation:
        """Of this life."""
        return Incarnation(f"{self.name}-{self.process.life}")

    @property
    def serves(self) -> bool:
        """Whether it would answer a client, or an agent's scrape."""
        return self.process.alive and not self.process.frozen

    def start(self) -> None:
        """Begin a life."""
        self.process.start()
        self.dies_in = None
        self.process.at(self._now_s, self._begin)

    def kill(self) -> None:
        """End it: its sockets are reset."""
        self.process.kill()
        self.died()

    def died(self) -> None:
        """It ended."""
        if self.stream is not None:
            self.stream.hang_up()
            self.stream = None

    def corrupt(self, place: float) -> None:
        """Change one byte of its record on disk."""
        change_byte(sorted(self.folder.glob("held-*.json")), place, self._random)

    def may_die(self) -> None:
        """Die if it is time."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise Crashed

    def applied(self, version: Version, values: Mapping[str, Value]) -> None:
        """Put on record what it took."""
        kind: Literal["engine", "gateway"] = "engine" if self._kind is TargetKind.ENGINE else "gateway"
        self._stage.record.add(
            Applied(
                at_s=self._now_s,
                target=self.name,
                kind=kind,
                incarnation=self.incarnation,
                version=version,
                values=dict(values),
            )
        )

    def _begin(self) -> None:
        surface = self._launch()
        receiver = Receiver(
            Target(pool=POOL, kind=self._kind, name=self.name, incarnation=self.incarnation),
            surface,
            MortalStore(self),
            self._limits,
            seed=0,
            now_s=self._now_s,
            wall_s=WALL_S + self._now_s,
        )
        self.held = receiver.held.version
        conversation = Conversation(receiver)
        self.process.spawn(self._beat(conversation, surface))
        self.process.spawn(self._seek(conversation))

    async def _beat(self, conversation: Conversation, surface: Surface) -> None:
        await pause(self._random.random() * BEAT_S)
        while True:
            before = dict(surface.read())
            changed = conversation.beat(now_s=self._now_s, wall_s=WALL_S + self._now_s)
            if conversation.phase is Phase.EASING:
                self._eased(before, dict(surface.read()))
            if changed and self.stream is not None:
                self.stream.say(conversation.opening())
            await pause(BEAT_S)

    async def _seek(self, conversation: Conversation) -> None:
        backoff = Backoff(self._random, 0.25, 3.0)
        while True:
            controller = self._random.choice(self._controllers)
            if self.way.cut_until_s > self._now_s or not controller.process.alive:
                await pause(backoff.next_s())
                continue
            stream = self.stream = Stream(controller.process, self.process, self.way, self._random)
            attach = conversation.opening()
            stream.controller.deliver(self.way.reach_s(self._now_s), partial(controller.accept, stream, attach))
            if await self._converse(conversation, stream):
                backoff.reset()
            refused = stream.receiver.refused
            stream.hang_up()
            self.stream = None
            await pause(REFUSED_S if refused else backoff.next_s())

    async def _converse(self, conversation: Conversation, stream: Stream) -> bool:
        """Answer what comes until the stream ends or nothing comes for too long; whether anything came."""
        heard_s, heard = self._now_s, False
        while stream.receiver.open:
            if not stream.receiver.came:
                left_s = heard_s + SILENT_S - self._now_s
                if left_s <= 0:
                    break
                await wait_for(stream.receiver.news, left_s)
                continue
            message = stream.receiver.came.popleft()
            heard_s, heard = self._now_s, True
            for said in self._answer(conversation, message):
                stream.say(said)
        return heard

    def _answer(self, conversation: Conversation, message: Message) -> tuple[Said, ...]:
        before = self.held
        answers = conversation.answer(message, now_s=self._now_s, wall_s=WALL_S + self._now_s)
        self.held = conversation.receiver.held.version
        if isinstance(message, Heartbeat):
            self._renewed(message.version, message.hold_s)
        elif isinstance(message, (Directive, RoutingTable)) and self.held != before:
            taken = [one for one in answers if isinstance(one, Ack) and one.status is not AckStatus.NACK]
            if taken:
                self._renewed(message.version, None)
        return answers

    def _renewed(self, version: Version, asked_s: float | None) -> None:
        """Put on record until when what it heard has it hold: what an owner wrote counts once, over all lives."""
        if version.against(self._newest) is not Fence.NEWER:
            return
        self._newest = version
        most_s = self._limits.hold_s or 0.0
        until_s = self._now_s + (most_s if asked_s is None else min(asked_s, most_s))
        self._stage.record.add(
            Renewed(at_s=self._now_s, target=self.name, incarnation=self.incarnation, until_s=until_s)
        )

    def _eased(self, before: dict[str, Value], after: dict[str, Value]) -> None:
        moved = {name: value for name, value in after.items() if value != before.get(name)}
        if moved:
            was = {name: before[name] for name in moved if name in before}
            self._stage.record.add(
                Eased(at_s=self._now_s, target=self.name, incarnation=self.incarnation, before=was, values=moved)
            )
