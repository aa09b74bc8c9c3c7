"""Who is attached here: one stream per target, bounded in number, and which of two may stay.

An engine is one process at a time. A stream of the same incarnation replaces its own old one; another
incarnation is refused while the first is alive, for one of the two is a mistake that an operator must see.
A stream that is dead leaves by itself: the connection's keepalive ends it within 15 s.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from flyball_controller.machine.admission import MAX_NAME, answer_fits, fits
from flyball_controller.machine.answers import MAX_WORDS
from flyball_controller.serving.doorkeeper import FORBIDDEN
from flyball_controller.serving.outbox import Outbox
from flyball_controller.serving.refusals import INVALID, Refusal
from flyball_core.inputs import Ack, Attach
from flyball_proto.codec import Pushed
from flyball_service.rates import Bucket
from flyball_service.tls import Identity

MAX_STREAMS = 4_096
"""Most streams at once, those that end included."""
MAX_STREAMS_OF_ONE = 16
"""Most of them by one certificate; on plaintext nobody can be told from another."""
WORDS_PER_S = 50.0
"""What one receiver says is read so often a second. What it says beyond waits in its own connection: no ack is lost."""
MAX_WORDS_AT_ONCE = 200
"""As above, after a rest."""

FULL = "full"
ALREADY_ATTACHED = "already_attached"
LYING_NAME = "name"


@dataclass(slots=True, eq=False, kw_only=True)
class Stream:
    """One attached receiver: the pusher's link to it."""

    attach: Attach
    """As it said last."""
    outbox: Outbox
    words: Bucket = field(default_factory=lambda: Bucket(per_s=WORDS_PER_S, at_once=MAX_WORDS_AT_ONCE))
    """How fast it is listened to."""
    ending: asyncio.Future[Refusal] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Why it is to end, once it is."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has ended."""
    linked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its attach is on record, or never will be."""
    successor: "Stream | None" = None
    """The stream that took its place."""

    async def send(self, message: Pushed) -> None:
        """Leave a message to be sent; never waits for the receiver."""
        self.outbox.put(message)

    def end(self, refusal: Refusal) -> None:
        """End the stream, with these words to the receiver."""
        if not self.ending.done():
            self.ending.set_result(refusal)


def check_attach(attach: Attach, who: Identity | None) -> None:
    """Raise `Refusal` unless this can be what `who` attaches as."""
    kind = attach.kind.value
    names = (attach.pool, attach.target, attach.incarnation)
    if not all(0 < len(name) <= MAX_NAME for name in names):
        said = f"pool, {kind} and incarnation need a name of 1 to {MAX_NAME} characters"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, said)
    if not fits(attach):
        said = f"{attach.target} says more of its knobs than a directive can say back"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, said)
    if who is None:
        return
    if who.role != kind:
        said = f"the certificate is of a {who.role or 'nobody'}, and this attaches as {kind}"
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, FORBIDDEN, said)
    if who.name != attach.target:
        said = f"the certificate is of {kind} {who.name!r}, and this attaches as {attach.target!r}"
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, LYING_NAME, said)


def check_ack(ack: Ack) -> None:
    """Raise `Refusal` for an answer that is longer than any honest one."""
    if not answer_fits(ack.kind, ack.effective) or len(ack.reason) > MAX_WORDS:
        said = f"{ack.target} answers at greater length than it can have been asked"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, said)


class Streams:
    """All streams of one controller. Calls `enter`, then `admit`; in the end `drop`, then `leave`."""

    def __init__(self, most: int = MAX_STREAMS, most_of_one: int = MAX_STREAMS_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._here: Counter[Identity | None] = Counter()
        self._by_target: dict[tuple[str, str, str], Stream] = {}

    def enter(self, who: Identity | None) -> None:
        """A call came; raises `Refusal` if there are too many."""
        too_many = self._here.total() >= self._most
        if too_many or (who is not None and self._here[who] >= self._most_of_one):
            said = f"{self._most} streams are open" if too_many else f"{self._most_of_one} streams of {who} are open"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, FULL, f"{said}: try another controller, or later")
        self._here[who] += 1

    def leave(self, who: Identity | None) -> None:
        """The call is over."""
        self._here[who] -= 1
        if not self._here[who]:
            del self._here[who]

    def admit(self, stream: Stream) -> None:
        """Let a stream be its target's; ends the old one of its own incarnation, raises `Refusal` for another's."""
        attach = stream.attach
        known = self._by_target.get(_target(attach))
        if known is not None and known.attach.incarnation != attach.incarnation:
            said = (
                f"{attach.kind.value} {attach.target!r} is attached here already as incarnation "
                f"{known.attach.incarnation}; this is incarnation {attach.incarnation}"
            )
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, ALREADY_ATTACHED, said)
        self._by_target[_target(attach)] = stream
        if known is not None:
            said = f"a newer stream of incarnation {attach.incarnation} took its place"
            known.successor = stream
            known.end(Refusal(grpc.StatusCode.ABORTED, "replaced", said))

    def drop(self, stream: Stream) -> None:
        """A stream has ended; another that took its place stays."""
        stream.gone.set()
        if self._by_target.get(_target(stream.attach)) is stream:
            del self._by_target[_target(stream.attach)]

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._by_target.values()))

    def by_kind(self) -> Counter[str]:
        """How many engines and gateways are attached."""
        return Counter(stream.attach.kind.value for stream in self._by_target.values())


def _target(attach: Attach) -> tuple[str, str, str]:
    return attach.kind.value, str(attach.pool), attach.target
