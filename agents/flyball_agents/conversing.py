"""What a receiver says to what it hears: an answer to each directive and table, an attach anew when something changed.

Pure: messages and time come from the caller, which also sees to it that calls do not overlap.
It knows no stream and no controller, so the same conversation is held over gRPC, in the twin's
process, and by whoever embeds a receiver. What cannot be read is answered like what is wrong.
"""

from dataclasses import dataclass, field, replace

from flyball_agents.easing import Phase
from flyball_agents.engine_adapter import offer_directive
from flyball_agents.gateway_adapter import offer_table
from flyball_agents.offers import Offer, sound
from flyball_agents.receiver import Receiver
from flyball_core.errors import Rejected
from flyball_core.ids import PoolId
from flyball_core.inputs import Ack, AckStatus, Attach
from flyball_core.outputs import Directive, Heartbeat, RebaseNotice, RoutingTable
from flyball_proto.codec import Pushed, Said, read_pusher_message
from flyball_proto.codec.words import read_version
from flyball_proto.v1 import services_pb2 as pb


@dataclass(slots=True)
class ConversationCounts:
    """What was heard and said, since the process started."""

    acks: dict[AckStatus, int] = field(default_factory=lambda: dict.fromkeys(AckStatus, 0))
    """Answers by what became of the directive or table."""
    heartbeats: int = 0
    renewals: int = 0
    """Heartbeats that renewed the lease; the others were old, or not ours."""
    rebases: int = 0
    unreadable: int = 0
    """Messages that could not be read; a directive among them was refused."""


class Conversation:
    """One receiver's side of a stream, and of every stream after it. Not thread-safe."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.counts = ConversationCounts()
        self.phase = Phase.HOLDING
        """What the last `beat` found."""
        self._said = ""
        self._attempts = 0
        self._beat_wall_s = 0.0

    def opening(self) -> Attach:
        """The attach that opens a stream, or says anew what has changed; raises what the surface raises."""
        self._attempts += 1
        attach = replace(self.receiver.attach(), attempt=self._attempts)
        self._said = attach.capability_hash
        return attach

    def hear(self, message: pb.PusherMessage, *, now_s: float, wall_s: float) -> tuple[Said, ...]:
        """What there is to say to a message as it came from the wire."""
        try:
            return self.answer(read_pusher_message(message), now_s=now_s, wall_s=wall_s)
        except Rejected as error:
            self.counts.unreadable += 1
            offer = _unread(message, str(error))
        return () if offer is None else (self._count(self.receiver.offer(offer, now_s=now_s, wall_s=wall_s)),)

    def answer(self, pushed: Pushed, *, now_s: float, wall_s: float) -> tuple[Said, ...]:
        """What there is to say to a message; raises OSError if a rebase cannot be put on the audit."""
        if isinstance(pushed, Directive):
            return (self._count(offer_directive(self.receiver, pushed, now_s=now_s, wall_s=wall_s)),)
        if isinstance(pushed, RoutingTable):
            return (self._count(offer_table(self.receiver, pushed, now_s=now_s, wall_s=wall_s)),)
        if isinstance(pushed, Heartbeat):
            self.counts.heartbeats += 1
            if pushed.pool == self.receiver.target.pool:
                self._beat_wall_s = max(self._beat_wall_s, pushed.wall_s)
            self.counts.renewals += self.receiver.renew(pushed, now_s=now_s, wall_s=wall_s)
            return ()
        return self._rebase(pushed, wall_s)

    def beat(self, *, now_s: float, wall_s: float) -> bool:
        """Let the receiver ease by what has come due; whether it should attach anew, so that the owner learns.

        To be called about once a second, attached or not. Raises what the surface raises when asked for its knobs.
        """
        before, self.phase = self.phase, self.receiver.poll(now_s=now_s, wall_s=wall_s)
        return before is not self.phase or self.receiver.attach().capability_hash != self._said

    def _rebase(self, notice: RebaseNotice, wall_s: float) -> tuple[Said, ...]:
        target, held = self.receiver.target, self.receiver.held
        meant = notice.pool == target.pool and notice.target in ("", target.name) and sound(notice.version)
        foreign = held.log_id not in ("", notice.version.log_id)
        if not (meant and foreign and notice.author) or self._beat_wall_s > notice.expires_wall_s:
            return ()
        self.receiver.rebase(notice.version.log_id, author=notice.author, wall_s=wall_s)
        self.counts.rebases += 1
        return (self.opening(),)

    def _count(self, ack: Ack) -> Ack:
        self.counts.acks[ack.status] += 1
        return ack


def _unread(message: pb.PusherMessage, why: str) -> Offer | None:
    """A directive that cannot be read in full, as an offer to be refused; None for anything else."""
    if message.WhichOneof("body") != "directive":
        return None
    body = message.directive
    version = read_version(body.version)
    return Offer(pool=PoolId(body.pool), target=body.engine, version=version, values={}, unreadable=why)
