"""Targets: protobuf records as they stand in the log, and messages as they come over streams.

The promises: an input that cannot be read is `Malformed` and never raises; any other record or message
raises `Rejected` at most; what was read can be written, and reads back the same; whatever came in, `step`
answers only what can be published, moves knobs only as promised, and its state stays finite.
"""

from google.protobuf.message import DecodeError

from flyball_controller.machine import Seams, standard_seams
from flyball_controller.serving.append_door import check_entry
from flyball_controller.serving.checked_orders import check_order
from flyball_controller.serving.refusals import Refusal
from flyball_core.errors import Rejected
from flyball_core.inputs import Body, Malformed, Order, OverrideClear, OverrideSet, PolicyText, Rebase
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
from flyball_proto.v1 import services_pb2
from flyball_service.tls import Identity
from fuzz_bytes import Draw
from harness.finite import infinities
from harness.invariants import check
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

MOST_PIECES = 32
_SAID = (OverrideSet, OverrideClear, PolicyText, Order, Rebase)


def small_pool() -> ScriptedPool:
    """Two engines and a gateway, attached and governed, with a slow policy that may be answered for."""
    seams: Seams = standard_seams()
    seams.slow = ("slow",)
    pool = scripted_pool(agents=1, seams=seams)
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
    """Records of the inputs through the codec and `step`: pieces of the data, an empty one standing for a second."""
    draw, pool = Draw(data), small_pool()
    for _ in range(MOST_PIECES):
        if not draw.left:
            break
        piece = draw.piece()
        if not piece:
            publishable(pool.second())
            continue
        body = decode_input(1, piece).body
        if not isinstance(body, Malformed):
            round_trip(body)
        if isinstance(body, _SAID):
            try:
                check_order(body, WALL_S)
            except Rejected as error:
                assert str(error)
        publishable(pool.put_raw(piece))
    live_on(pool)


def outputs(data: bytes) -> None:
    """Records of the directives, the audit and the checkpoints."""
    kind, raw = data[:1], data[1:]
    try:
        if kind < b"\x55":
            pushed = decode_directive(raw)
            written = encode_directive(pushed)
            assert written == encode_directive(decode_directive(written))
        elif kind < b"\xaa":
            record = decode_audit(raw)
            written = encode_audit(record)
            assert written == encode_audit(decode_audit(written))
        else:
            part = decode_checkpoint(raw)
            assert part == decode_checkpoint(encode_checkpoint(part))
    except Rejected as error:
        assert str(error)


def streams(data: bytes) -> None:
    """What receivers and pushers say on the attach stream, and what agents append."""
    kind, raw = data[:1], data[1:]
    try:
        if kind < b"\x55":
            said = read_receiver_message(services_pb2.ReceiverMessage.FromString(raw))
            written = receiver_message(said).SerializeToString(deterministic=True)
            again = read_receiver_message(services_pb2.ReceiverMessage.FromString(written))
            assert written == receiver_message(again).SerializeToString(deterministic=True)
        elif kind < b"\xaa":
            pushed = read_pusher_message(services_pb2.PusherMessage.FromString(raw))
            written = pusher_message(pushed).SerializeToString(deterministic=True)
            other = read_pusher_message(services_pb2.PusherMessage.FromString(written))
            assert written == pusher_message(other).SerializeToString(deterministic=True)
        else:
            for number, entry in enumerate(services_pb2.AppendRequest.FromString(raw).entries):
                check_entry(number, entry, Identity("agent", "a0"))
    except (DecodeError, Rejected, Refusal) as error:
        assert str(error)
