"""Keeps one receiver attached to one of several controllers, and polled whether attached or not.

A controller that breaks off, refuses or only falls silent (a frozen one raises no error for half a
minute) is left for the next one, after a jittered pause. One that refuses this very receiver,
because another engine has its name or its certificate says another, is asked again slowly and
never gone around: that is an operator's to put right. Serving never waits for any of it.

Everything is bounded: one message is read, answered and written at a time, and every wait on a
peer ends. It speaks no gRPC itself: streams come from `attach_stream`, or from a test. It imports
nothing that an inference engine's own environment would not bear.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from flyball_agents.conversing import Conversation
from flyball_agents.easing import Phase
from flyball_agents.receiver import Receiver
from flyball_core.addresses import split_address
from flyball_core.errors import FlyballError, Rejected, Retryable
from flyball_proto.codec import receiver_message
from flyball_proto.v1 import services_pb2 as pb
from flyball_service.channels import Backoff

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_ATTACHED = "attached"
_LEAST_REST_S = 0.01  # a timer may go off a little early
_MOST_PLACES = 64  # of one round; a name that resolves to more is tried in part


class Place(NamedTuple):
    """Where one controller listens."""

    address: str
    """IP:PORT."""
    host: str
    """The name it was looked up by."""


class AttachRefused(Rejected):
    """A controller will not have this receiver: another has its name, or its certificate says another."""


class Stream(Protocol):
    """One attach stream. Any call raises `AttachRefused` or, for any other end, `Retryable`."""

    async def read(self) -> pb.PusherMessage | None:
        """The next message; None if the controller ended the stream."""
        ...

    async def write(self, message: pb.ReceiverMessage) -> None:
        """Send a message."""
        ...

    async def close(self) -> None:
        """Break off, at once."""
        ...

    def outdated(self) -> bool:
        """Whether our certificates were renewed since it was opened."""
        ...


class Open(Protocol):
    """Opens streams, without waiting."""

    def __call__(self, place: Place) -> Stream:
        """A stream; raises `FlyballError` if there can be none (certificates that cannot be read)."""
        ...

    def check(self, address: str) -> None:
        """Raise `Rejected` if HOST:PORT is malformed, or may not be spoken to in plaintext."""
        ...


class Tell(Protocol):
    """Says what has changed: a constant event name and its fields."""

    def __call__(self, event: str, **fields: object) -> None:
        """Say it."""
        ...


class Aside(Protocol):
    """Runs a call on the receiver where its surface may be touched, one at a time, and gives its result."""

    def __call__(self, act: Callable[[], T]) -> Awaitable[T]:
        """Run it."""
        ...


class AttachState(Enum):
    """How a receiver stands to the controllers."""

    SEEKING = "seeking"
    ATTACHED = "attached"
    """A controller has spoken on the stream that is open."""
    REFUSED = "refused"


@dataclass(slots=True)
class AttachStatus:
    """What became of the attaching so far."""

    state: AttachState = AttachState.SEEKING
    controller: str = ""
    """The controller last tried or attached to."""
    why: str = "not tried yet"
    """Why it is not attached; empty if it is."""
    streams: int = 0
    """Streams opened; all but the first are reconnects."""
    refusals: int = 0
    silences: int = 0
    """Streams left because nothing came for too long."""
    renewals: int = 0
    """Streams exchanged for one that shows renewed certificates."""
    failures: int = 0
    """Streams that ended in whatever way but by refusal, and places that could not be reached."""
    troubles: int = 0
    """Calls on the receiver's surface, or looks at its knobs, that raised."""
    trouble: str = ""
    """What the last of them raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachLimits:
    """How patient, in seconds."""

    poll_s: float = 1.0
    """Between two polls of the receiver; the one at the end of its lease comes when it is due."""
    easing_poll_s: float = 0.25
    """The same while values move to their safe ones."""
    silent_s: float = 10.0
    """A stream without a message for so long is left. Owners beat once a second."""
    write_s: float = 5.0
    """Longest wait for one message of ours to be taken."""
    close_s: float = 2.0
    resolve_s: float = 5.0
    """Longest wait for a name to be looked up."""
    first_pause_s: float = 0.25
    most_pause_s: float = 5.0
    """Pauses before another controller is tried: full jitter, doubling from the first to this."""
    renew_within_s: float = 60.0
    """A stream is exchanged so long after our certificates were renewed at most, each at a moment of its own."""
    first_refused_s: float = 5.0
    most_refused_s: float = 60.0
    """The same before a controller that refused is asked again."""


async def in_place(act: Callable[[], T]) -> T:
    """Run it here, on the loop's thread."""
    return act()


def to_log(event: str, **fields: object) -> None:
    """Say it through `logging`, for processes that have nothing better."""
    logging.getLogger("flyball.receiver").info("%s %s", event, fields)


async def look_up(address: str) -> list[Place]:
    """Where HOST:PORT listens; raises OSError if the name means nothing."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=1)  # SOCK_STREAM
    ips = dict.fromkeys(str(row[4][0]) for row in found)
    return [Place(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", host) for ip in ips]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an attacher takes from its process, so that a test can give it something else."""

    rng: random.Random
    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds; must pass as the event loop's clock does."""
    wall_clock: Callable[[], float] = time.time
    aside: Aside = in_place
    look_up: Callable[[str], Awaitable[Sequence[Place]]] = look_up
    tell: Tell = to_log


class Attacher:
    """Keeps `receiver` attached to one of the controllers at `addresses` (HOST:PORT); drive it with `run`.

    From its making on, nobody else calls the receiver. Raises `Rejected` for an address that is malformed, or
    beyond this machine where streams are in plaintext.
    """

    def __init__(
        self,
        receiver: Receiver,
        addresses: Sequence[str],
        open_stream: Open,
        around: Surroundings,
        limits: AttachLimits | None = None,
    ) -> None:
        for address in addresses:
            open_stream.check(address)
        self.conversation = Conversation(receiver)
        self.status = AttachStatus()
        self._addresses = tuple(addresses)
        self._open = open_stream
        self._around = around
        self._limits = limits or AttachLimits()
        self._told = ""
        self._lock = asyncio.Lock()
        self._anew = asyncio.Event()
        self._said_s: float | None = None  # when the last attach was said, until something is heard
        self._pauses = Backoff(around.rng, self._limits.first_pause_s, self._limits.most_pause_s)
        self._exchange_due_s: float | None = None
        self._slow_pauses = Backoff(around.rng, self._limits.first_refused_s, self._limits.most_refused_s)

    def lease_s(self) -> float:
        """Seconds until easing begins unless the lease is renewed; inf if it never does."""
        return self.conversation.receiver.lease_s(self._around.clock())

    async def run(self, stop: asyncio.Event) -> None:
        """Poll and attach until `stop` is set; then the stream is closed."""
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._beat())
            seeking = tasks.create_task(self._seek())
            await stop.wait()
            beating.cancel()
            seeking.cancel()

    async def _beat(self) -> None:
        while True:
            try:
                if await self._with_receiver(self.conversation.beat) or self._overtaken():
                    self._anew.set()
            except Exception as error:  # noqa: BLE001 - a surface is not ours; the next beat tries again
                self._trouble(error)
            await asyncio.sleep(self._rest_s())

    def _overtaken(self) -> bool:
        """Whether values have moved on since an attach after which nothing was heard.

        Behind a line that is cut it waits for the controller, which would lead the knobs from where they were.
        """
        said_s = self._said_s
        moving = self.conversation.phase is Phase.EASING
        return moving and said_s is not None and self._around.clock() - said_s >= self._limits.poll_s

    def _rest_s(self) -> float:
        """Until the next poll."""
        limits = self._limits
        if self.conversation.phase is Phase.EASING:
            return min(limits.poll_s, limits.easing_poll_s)
        if self.conversation.phase is Phase.HOLDING:
            return min(limits.poll_s, max(self.lease_s(), _LEAST_REST_S))
        return limits.poll_s

    async def _seek(self) -> None:
        places: list[Place] = []
        while True:
            if not places:
                places = await self._look_up()
            if not places:
                pause_s = self._pauses.next_s()
            else:
                refused = await self._attend(places[0])
                pause_s = self._slow_pauses.next_s() if refused else self._pauses.next_s()
                places = places if refused else places[1:]
            await asyncio.sleep(pause_s)

    async def _look_up(self) -> list[Place]:
        """All places of all addresses, in an order of this receiver's own, so that receivers spread."""
        places: dict[Place, None] = {}
        for address in self._addresses:
            try:
                async with asyncio.timeout(self._limits.resolve_s):
                    places |= dict.fromkeys(await self._around.look_up(address))
            except OSError as error:  # TimeoutError is one
                self._lost(address, f"cannot be looked up: {error or 'no answer in time'}")
        return self._around.rng.sample(list(places), min(len(places), _MOST_PLACES))

    async def _attend(self, place: Place) -> bool:
        """Be attached to that controller for as long as it lasts; whether it refused us."""
        self.status.controller = place.address
        try:
            stream = self._open(place)
        except FlyballError as error:
            self._lost(place.address, str(error))
            return False
        self.status.streams += 1
        try:
            await self._open_with(stream)
            why, first = await self._converse(stream), None
            while why is None:
                stream, first = await self._exchanged(stream, place)
                why = await self._converse(stream, first)
        except AttachRefused as error:
            self._refused(place.address, str(error))
            return True
        except Retryable as error:
            why = str(error)
        except TimeoutError:
            why = "takes nothing from us"
        except Exception as error:  # noqa: BLE001 - the task's boundary: a surface that cannot say what it has
            self._trouble(error)
            why = f"there is nothing to attach: {error}"
        finally:
            await self._close(stream)
        self._lost(place.address, why)
        return False

    async def _converse(self, stream: Stream, first: pb.PusherMessage | None = None) -> str | None:
        """Hear and answer, `first` before anything else, until the controller falls silent or ends the stream; which.

        None: the stream is open, but another that shows our renewed certificates is to take its place.
        """
        if first is not None:
            await self._hear(stream, first)
        heard_s = self._around.clock()
        reading = asyncio.ensure_future(stream.read())
        anew = asyncio.ensure_future(self._anew.wait())
        try:
            while True:
                left_s = max(heard_s + self._limits.silent_s - self._around.clock(), 0.0)
                done, _ = await asyncio.wait({reading, anew}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self.status.silences += 1
                    return f"said nothing for {self._limits.silent_s:g} s"
                if anew in done:
                    await self._open_with(stream)
                    anew = asyncio.ensure_future(self._anew.wait())
                if reading in done:
                    message = reading.result()
                    if message is None:
                        return "ended the stream"
                    heard_s = self._around.clock()
                    await self._hear(stream, message)
                    if self._exchange_due(stream):  # now, while nothing is being read: that would end the stream
                        return None
                    reading = asyncio.ensure_future(stream.read())
        finally:
            anew.cancel()
            reading.cancel()
            await asyncio.gather(anew, reading, return_exceptions=True)

    def _exchange_due(self, stream: Stream) -> bool:
        if not stream.outdated():
            self._exchange_due_s = None
            return False
        now_s = self._around.clock()
        if self._exchange_due_s is None:
            self._exchange_due_s = now_s + self._around.rng.uniform(0.0, self._limits.renew_within_s)
        return now_s >= self._exchange_due_s

    async def _exchanged(self, old: Stream, place: Place) -> tuple[Stream, pb.PusherMessage | None]:
        """A stream that shows our renewed certificates, and the controller's first words; `old` if there are none."""
        self._exchange_due_s = None
        try:
            new = self._open(place)
        except FlyballError as error:
            return self._kept(old, error)
        first = None
        try:
            async with asyncio.timeout(self._limits.silent_s):
                await self._open_with(new)
                first = await new.read()
        except (FlyballError, TimeoutError) as error:
            return self._kept(old, error)
        finally:
            await self._close(new if first is None else old)
        if first is None:
            return self._kept(old, Retryable("it ended the stream"))
        self.status.streams += 1
        self.status.renewals += 1
        return new, first

    def _kept(self, old: Stream, error: Exception) -> tuple[Stream, None]:
        """Go on with a stream that shows what was before; the exchange is tried again."""
        self._around.tell("renewed_certificates_not_taken", controller=self.status.controller, why=str(error))
        return old, None

    async def _hear(self, stream: Stream, message: pb.PusherMessage) -> None:
        self._heard()
        await self._answer(stream, message)

    async def _open_with(self, stream: Stream) -> None:
        self._anew.clear()
        attach = await self._aside(self.conversation.opening)
        self._said_s = self._around.clock()
        await self._write(stream, receiver_message(attach))

    async def _answer(self, stream: Stream, message: pb.PusherMessage) -> None:
        try:
            answers = await self._with_receiver(partial(self.conversation.hear, message))
        except OSError as error:  # a rebase that could not be put on the audit; its pusher offers it again
            self._trouble(error)
            return
        for said in answers:
            await self._write(stream, receiver_message(said))

    async def _write(self, stream: Stream, message: pb.ReceiverMessage) -> None:
        async with asyncio.timeout(self._limits.write_s):
            await stream.write(message)

    async def _with_receiver(self, act: "_Timed[T]") -> T:
        return await self._aside(lambda: act(now_s=self._around.clock(), wall_s=self._around.wall_clock()))

    async def _aside(self, act: Callable[[], T]) -> T:
        async with self._lock:
            return await self._around.aside(act)

    async def _close(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(self._limits.close_s):
                await stream.close()
        except (TimeoutError, FlyballError):
            self.status.failures += 1

    def _heard(self) -> None:
        self._said_s = None
        if self._told != _ATTACHED:
            self._told = _ATTACHED
            self._around.tell(_ATTACHED, controller=self.status.controller)
        self.status.state, self.status.why = AttachState.ATTACHED, ""
        self._pauses.reset()
        self._slow_pauses.reset()

    def _lost(self, address: str, why: str) -> None:
        self.status.failures += 1
        self._turn(AttachState.SEEKING, address, why, "seeking_controller")

    def _refused(self, address: str, why: str) -> None:
        self.status.refusals += 1
        self._turn(AttachState.REFUSED, address, why, f"attach_refused {why}")

    def _turn(self, state: AttachState, address: str, why: str, said: str) -> None:
        """Say a change once, however many attempts in a row end like this."""
        if said != self._told:
            self._around.tell(said.partition(" ")[0], controller=address, why=why)
        self._told, self.status.state, self.status.why = said, state, why

    def _trouble(self, error: Exception) -> None:
        self.status.troubles += 1
        if self.status.trouble != (said := f"{type(error).__name__}: {error}"):
            self.status.trouble = said
            self._around.tell("surface_failed", why=said)


class _Timed(Protocol[T_co]):
    def __call__(self, *, now_s: float, wall_s: float) -> T_co: ...
