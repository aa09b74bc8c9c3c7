"""Targets: protobuf records as they stand in the log, and messages as they come over streams.

The promises: an input that cannot be read is `Malformed` and never raises; any other record or message
raises `Rejected` at most; what was read can be written, and reads back the same; whatever came in, `step`
answers only what can be published, moves knobs only as promised, and its state stays finite.
"""

from functools import cache
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from flyball_controller.machine import Seams, standard_seams
from flyball_controller.serving.append_door import check_entry
from flyball_controller.serving.checked_orders import check_order
from flyball_controller.serving.refusals import Refusal
from flyball_core.errors import Rejected
from flyball_core.frames import Frame
from flyball_core.inputs import Ack, Attach, Body, Malformed, Order, OverrideClear, OverrideSet, PolicyText, Rebase
from flyball_core.outputs import DecisionRecord, Directive, Heartbeat, Output, RebaseNotice, RoutingTable, TickRecord
from flyball_proto.codec import (
    decode_audit,
    decode_checkpoint,
    decode_directive,
    decode_input,
    encode_audit,
    encode_checkpoint,
    encode_directive,
    encode_input,
    pusher_message,
    read_pusher_message,
    read_receiver_message,
    receiver_message,
)
from flyball_proto.v1 import inputs_pb2, outputs_pb2, services_pb2
from flyball_service.tls import Identity
from fuzz_bytes import Draw, says
from fuzz_protobuf import change, recorded
from harness.finite import infinities
from harness.invariants import check
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

MOST_PIECES = 32
POLICY = """\
version: 1
mode: control
knobs: {max_active_requests: {min: 4, max: 128}}
"""
M = TypeVar("M", bound=Message)
_SAID = (OverrideSet, OverrideClear, PolicyText, Order, Rebase)


def small_pool() -> ScriptedPool:
    """Two engines and a gateway, attached and governed, with a slow policy that may be answered for."""
    seams: Seams = standard_seams()
    seams.slow = ("slow",)
    pool = scripted_pool(agents=1, seams=seams, policy=POLICY)
    pool.run(2)
    return pool


def publishable(outputs: list[Output]) -> None:
    """What is answered can be published, and reads back as it was."""
    for output in outputs:
        if isinstance(output, (Directive, RoutingTable, Heartbeat, RebaseNotice)):
            raw = encode_directive(output)
            assert raw == encode_directive(decode_directive(raw))
        elif isinstance(output, (DecisionRecord, TickRecord)):
            raw = encode_audit(output)
            assert raw == encode_audit(decode_audit(raw))


def live_on(pool: ScriptedPool, seconds: int = 2) -> None:
    """The pool goes on after what came, within its promises."""
    publishable(pool.run(seconds))
    assert infinities(pool.state) == []
    assert check(pool.log.inputs, pool.log.outputs).motion == []


def round_trip(body: Body) -> None:
    """What was read can be written, and reads back as the same bytes."""
    raw = encode_input(body)
    again = decode_input(1, raw).body
    assert raw == encode_input(again)


def inputs(data: bytes) -> None:
    """Records of the inputs through the codec and `step`: recorded ones with odd fields, plain bytes, and seconds."""
    draw, pool = Draw(data), small_pool()
    for _ in range(MOST_PIECES):
        if not draw.left:
            break
        act = draw.byte() % 8
        if act == 0:
            publishable(pool.second())
            continue
        piece = draw.piece() if act == 1 else _odd_input(pool, draw)
        body = decode_input(1, piece).body
        if not isinstance(body, Malformed):
            round_trip(body)
        if isinstance(body, _SAID):
            try:
                check_order(body, WALL_S)
            except Rejected as error:
                says(error)
        publishable(pool.put_raw(piece))
    live_on(pool)


def _odd_input(pool: ScriptedPool, draw: Draw) -> bytes:
    """A record of this pool's own past, or a recorded example of the contract, with up to three fields changed."""
    known = (*pool.log.raw, *recorded("inputs"))
    record = inputs_pb2.InputRecord.FromString(known[draw.whole() % len(known)])
    for _ in range(draw.byte() % 4):
        change(record, draw)
    return record.SerializeToString()


def _odd(message: M, base: bytes, draw: Draw) -> bytes:
    """Plain bytes, or a sound message with up to three fields changed."""
    if draw.byte() % 4 == 0:
        return draw.rest()
    message.ParseFromString(base)
    for _ in range(draw.byte() % 4):
        change(message, draw)
    return message.SerializeToString()


def outputs(data: bytes) -> None:
    """Records of the directives, the audit and the checkpoints."""
    draw = Draw(data)
    kind, pick = draw.take(1), draw.pick
    try:
        if kind < b"\x55":
            pushed = decode_directive(_odd(outputs_pb2.DirectiveRecord(), pick(recorded("directives")), draw))
            written = encode_directive(pushed)
            assert written == encode_directive(decode_directive(written))
        elif kind < b"\xaa":
            record = decode_audit(_odd(outputs_pb2.AuditRecord(), pick(recorded("decisions")), draw))
            written = encode_audit(record)
            assert written == encode_audit(decode_audit(written))
        else:
            part = decode_checkpoint(_odd(outputs_pb2.Checkpoint(), pick(recorded("state")), draw))
            assert part == decode_checkpoint(encode_checkpoint(part))
    except Rejected as error:
        says(error)


@cache
def _said() -> tuple[bytes, ...]:
    """What a receiver says of itself, and an answer."""
    read = [decode_input(0, raw).body for raw in recorded("inputs")]
    return tuple(receiver_message(body).SerializeToString() for body in read if isinstance(body, (Attach, Ack)))


@cache
def _appended() -> bytes:
    """An append of two frames."""
    frames = [raw for raw in recorded("inputs") if isinstance(decode_input(0, raw).body, Frame)][:2]
    return services_pb2.AppendRequest(
        entries=[services_pb2.AppendEntry(pool="chat", record=raw) for raw in frames]
    ).SerializeToString()


def streams(data: bytes) -> None:
    """What receivers and pushers say on the attach stream, and what agents append."""
    draw = Draw(data)
    kind = draw.take(1)
    try:
        if kind < b"\x55":
            raw = _odd(services_pb2.ReceiverMessage(), draw.pick(_said()), draw)
            said = read_receiver_message(services_pb2.ReceiverMessage.FromString(raw))
            written = receiver_message(said).SerializeToString(deterministic=True)
            again = read_receiver_message(services_pb2.ReceiverMessage.FromString(written))
            assert written == receiver_message(again).SerializeToString(deterministic=True)
        elif kind < b"\xaa":
            # Both carry the same messages under the same numbers.
            raw = _odd(services_pb2.PusherMessage(), draw.pick(recorded("directives")), draw)
            pushed = read_pusher_message(services_pb2.PusherMessage.FromString(raw))
            written = pusher_message(pushed).SerializeToString(deterministic=True)
            other = read_pusher_message(services_pb2.PusherMessage.FromString(written))
            assert written == pusher_message(other).SerializeToString(deterministic=True)
        else:
            raw = _odd(services_pb2.AppendRequest(), _appended(), draw)
            for number, entry in enumerate(services_pb2.AppendRequest.FromString(raw).entries):
                check_entry(number, entry, Identity("agent", "a0"))
    except (DecodeError, Rejected, Refusal) as error:
        says(error)
