"""Controllers in memory, for an attacher in virtual time: each stream is a pair of queues that a test holds."""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from flyball_agents.attaching import Attacher, AttachLimits, AttachRefused, Place, Surroundings
from flyball_core.addresses import split_address
from flyball_core.errors import FlyballError, Retryable
from flyball_core.inputs import Ack, Attach
from flyball_core.outputs import Directive, Heartbeat, RebaseNotice, RoutingTable
from flyball_proto.codec import Said, pusher_message, read_receiver_message
from flyball_proto.v1 import services_pb2 as pb
from receiver_bench import Bench

Pushed = Directive | RoutingTable | Heartbeat | RebaseNotice | pb.PusherMessage | FlyballError | None


class ScriptedStream:
    """One stream as a controller sees it: `said` by the receiver, `push` to it. `stuck` takes nothing."""

    def __init__(self, place: Place, opened_s: float) -> None:
        self.place = place
        self.opened_s = opened_s
        self.closed = False
        self.stuck = False
        self.renewed = False
        """Whether the certificates were renewed since it was opened."""
        self.said: list[Said] = []
        self._pushed: asyncio.Queue[Pushed] = asyncio.Queue()

    def push(self, pushed: Pushed) -> None:
        """Send a message; an error, or None, ends the stream."""
        self._pushed.put_nowait(pushed)

    @property
    def attaches(self) -> list[Attach]:
        """The attaches among what was said."""
        return [said for said in self.said if isinstance(said, Attach)]

    @property
    def acks(self) -> list[Ack]:
        """The answers among what was said."""
        return [said for said in self.said if isinstance(said, Ack)]

    async def read(self) -> pb.PusherMessage | None:
        """The next message."""
        pushed = await self._pushed.get()
        if isinstance(pushed, FlyballError):
            raise pushed
        return pushed if pushed is None or isinstance(pushed, pb.PusherMessage) else pusher_message(pushed)

    async def write(self, message: pb.ReceiverMessage) -> None:
        """Take what the receiver says."""
        if self.stuck:
            await asyncio.Event().wait()
        self.said.append(read_receiver_message(message))

    async def close(self) -> None:
        """End."""
        self.closed = True

    def outdated(self) -> bool:
        """What the test says."""
        return self.renewed


class World:
    """Controllers by name, a receiver on a bench, and its attacher, all on the loop's clock."""

    def __init__(
        self, folder: Path, clock: Callable[[], float], names: Sequence[str] = ("one:1",), seed: int = 1
    ) -> None:
        self.bench = Bench(folder)
        self.clock = clock
        self.streams: list[ScriptedStream] = []
        self.told: list[tuple[str, dict[str, object]]] = []
        self.on_open: Callable[[ScriptedStream], None] = lambda _: None
        self.resolved: dict[str, list[str]] = {}
        self.asides = 0
        self.stop = asyncio.Event()
        around = Surroundings(
            rng=random.Random(seed),
            clock=lambda: clock() + self.bench.now_s,
            wall_clock=lambda: clock() + self.bench.wall_s,
            look_up=self._look_up,
            tell=self._tell,
        )
        self.attacher = Attacher(self.bench.receiver, names, self, around, AttachLimits())
        self._running: asyncio.Task[None] | None = None

    @property
    def last(self) -> ScriptedStream:
        """The stream opened last."""
        return self.streams[-1]

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self.attacher.run(self.stop))
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        assert self._running is not None
        await self._running

    async def beats(self, seconds: int, *, first: int = 1000) -> None:
        """A heartbeat a second on the last stream, each newer than the one before."""
        for revision in range(first, first + seconds):
            self.last.push(self.heartbeat(revision))
            await asyncio.sleep(1.0)

    def heartbeat(self, revision: int, hold_s: float = 0.0) -> Heartbeat:
        """The pool's heartbeat at that revision."""
        made = self.bench.make(revision)
        return Heartbeat(pool=made.pool, version=made.version, time_s=0.0, wall_s=self.bench.wall_s, hold_s=hold_s)

    async def _look_up(self, address: str) -> list[Place]:
        if address in self.resolved and not self.resolved[address]:
            raise OSError("no such name")
        return [Place(ip, address.partition(":")[0]) for ip in self.resolved.get(address, [address])]

    def check(self, address: str) -> None:
        """Take every address that is one."""
        split_address(address)

    def __call__(self, place: Place) -> ScriptedStream:
        """Open a stream that the test speaks on."""
        stream = ScriptedStream(place, self.clock())
        self.streams.append(stream)
        self.on_open(stream)
        return stream

    def _tell(self, event: str, **fields: object) -> None:
        self.told.append((event, fields))


def refusing(stream: ScriptedStream) -> None:
    """A controller that has another engine of that name."""
    stream.push(AttachRefused("ALREADY_EXISTS: incarnation i0 is attached"))


def unreachable(stream: ScriptedStream) -> None:
    """A controller that is away."""
    stream.push(Retryable("UNAVAILABLE: connection refused"))
