"""Controllers: the product's owner and pusher, and around them the loops that a service gives them.

The loops do as `serving.tenure`, `serving.pushing` and `serving.attach_door` do, in the kernel's time. Who owns the
partition is a group's word, which may be an old one, or a wrong one: what counts is the claim in the log.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owned, Owner
from flyball_controller.pusher import Pusher
from flyball_controller.serving.tenure import Beat
from flyball_core.errors import FlyballError, Retryable
from flyball_core.ids import OwnerId
from flyball_core.inputs import Ack, Attach
from flyball_service.channels import Backoff
from harness.scripted_pool import PRINT, WALL_S
from laboratory.simulation.faulty_log import FaultyLog, Way
from laboratory.simulation.kernel import Machine, Process, pause, wait_for
from laboratory.simulation.links import Stream
from laboratory.simulation.stage import Stage

TICK_S = 1.0
LATE_S = 3.0
"""After so long without a tick, what came in is read before the next."""
RECLAIM_S = (1.0, 3.0)
"""How long after another's claim this one claims again, if it still believes that it should."""
SESSION_S = 3.0
"""After so long without a sign of a member the group gives its share away."""
LOOK_S = 0.25
_PARTITION = 0


class Group:
    """Shares the one partition out. A member learns of it when it next asks, which a frozen one cannot."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._members: list[Controller] = []
        self._seen_s: dict[str, float] = {}
        self._owner = ""
        self.both_until_s = 0.0
        """Until then everybody is told that the partition is theirs."""

    def join(self, member: "Controller") -> None:
        """A controller that may own; they are preferred in this order."""
        self._members.append(member)

    def ours(self, name: str) -> bool:
        """What a member is told that asks now."""
        return name == self._owner or self._machine.kernel.now_s < self.both_until_s

    def look(self) -> None:
        """See who is there, share out, and look again."""
        now_s = self._machine.kernel.now_s
        for member in self._members:
            if member.process.alive and not member.process.frozen:
                self._seen_s[member.name] = now_s
        alive = [one.name for one in self._members if now_s - self._seen_s.get(one.name, -SESSION_S) < SESSION_S]
        if self._owner not in alive and alive:
            self._owner = alive[0]
        self._machine.at(now_s + LOOK_S, self.look)


class Controller:
    """One controller, over its lives."""

    def __init__(self, stage: Stage, name: str, group: Group) -> None:
        self.name = name
        self.process = Process(stage.kernel, name)
        self.streams: list[Stream] = []
        self.claims = 0
        self._stage = stage
        self._log = FaultyLog(stage.brokers, Way())
        self._group = group
        self._random = stage.random(name)
        self._beat = Beat(TICK_S)
        self._owner = self._new_owner()
        self._pusher = Pusher(self._log)
        group.join(self)

    def start(self) -> None:
        """Begin a life."""
        self.process.start()
        self._owner, self._pusher = self._new_owner(), Pusher(self._log)
        self.process.spawn(self._own())
        self.process.spawn(self._push())

    def kill(self) -> None:
        """End it; the receivers' ends of its streams are reset."""
        self.process.kill()
        for stream in self.streams:
            stream.end()
        self.streams.clear()

    @property
    def owned(self) -> Owned | None:
        """What it knows of the partition that it owns; None if it owns none."""
        return self._owner.owned.get(_PARTITION) if self.process.alive else None

    def accept(self, stream: Stream, attach: Attach) -> None:
        """A receiver opened a stream and said who it is."""
        for known in self.streams:
            if known.attach is None or known.attach.target != attach.target or not known.controller.open:
                continue
            if known.attach.incarnation != attach.incarnation:
                stream.end(f"{attach.target} is attached already as {known.attach.incarnation}")
                return
            known.end()
        stream.attach = attach
        self.streams.append(stream)
        self.process.spawn(self._serve(stream, attach))

    def _new_owner(self) -> Owner:
        return Owner(self._log, OwnerId(self.name), standard_seams, PRINT)

    @property
    def _now_s(self) -> float:
        return self.process.kernel.now_s

    async def _own(self) -> None:
        backoff = Backoff(self._random, 0.25, 4.0)
        while True:
            if not self._group.ours(self.name):
                self._owner.drop(_PARTITION)
                await pause(LOOK_S)
                continue
            try:
                await self._turn(backoff)
            except FlyballError:
                if _PARTITION in self._owner.owned:
                    await pause(backoff.next_s())
                else:
                    await pause(self._random.uniform(*RECLAIM_S))

    async def _turn(self, backoff: Backoff) -> None:
        owner = self._owner
        owned = owner.owned.get(_PARTITION)
        if owned is None:
            try:
                owned = await owner.take(_PARTITION, WALL_S + self._now_s)
            except BaseException:
                owner.drop(_PARTITION)
                raise
            self.claims += 1
            self._stage.happened("claimed", self.name, str(owned.epoch))
            self._beat.start(self._now_s)
        left_s = self._beat.wait_s(self._now_s)
        if left_s > 0:
            await pause(min(left_s, TICK_S / 4))
            if not self._group.ours(self.name):
                return
        if left_s > 0 or self._beat.late_s(self._now_s) >= LATE_S:
            await owner.poll(_PARTITION)
        if not owned.lost and self._beat.wait_s(self._now_s) == 0:
            await owner.tick(_PARTITION, self._beat.strike(self._now_s), WALL_S + self._now_s)
            backoff.reset()
        if owned.lost:
            self._stage.happened("lost", self.name, str(owned.epoch))
            owner.drop(_PARTITION)
            await pause(self._random.uniform(*RECLAIM_S))

    async def _push(self) -> None:
        backoff = Backoff(self._random, 0.25, 4.0)
        while True:
            try:
                await self._pusher.poll()
            except FlyballError:
                await pause(backoff.next_s())
            else:
                backoff.reset()
                await wait_for(self._stage.brokers.news, 2.0)

    async def _serve(self, stream: Stream, attach: Attach) -> None:
        """One receiver's stream, from its attach to its farewell."""
        pusher = self._pusher
        try:
            await pusher.attached(stream, attach)
        except FlyballError:
            stream.end()
        else:
            while stream.controller.open:
                if not stream.controller.came:
                    await wait_for(stream.controller.news, 60.0)
                    continue
                said = stream.controller.came.popleft()
                if isinstance(said, Ack):
                    stream.answered(said)
                    await self._patiently(partial(pusher.acked, said), stream)
                elif isinstance(said, Attach):
                    stream.attach = said
                    await self._patiently(partial(pusher.attached, stream, said), stream)
        if stream in self.streams:
            self.streams.remove(stream)
        farewell = pusher.unlink(stream, stream.attach or attach)
        if farewell is not None:
            await self._patiently(partial(pusher.parted, farewell))

    async def _patiently(self, call: Callable[[], Awaitable[None]], stream: Stream | None = None) -> None:
        """Try until the log takes it, or for as long as the stream is open."""
        backoff = Backoff(self._random, 0.25, 4.0)
        while stream is None or stream.controller.open:
            try:
                await call()
            except Retryable:
                await pause(backoff.next_s())
            else:
                return
