"""Between wire and domain: every message of the contract, both ways.

Decoding an input never raises: what cannot be read becomes `Malformed` with the
reason, because bad input is data. Decoding an output raises `Rejected`, because
outputs are our own and a wrong one is a fault.
"""

from flyball_proto.codec.inputs import FrameHead, decode_input, encode_frame, encode_input, frame_head, is_attach
from flyball_proto.codec.outputs import (
    CheckpointPart,
    Pushed,
    decode_audit,
    decode_checkpoint,
    decode_directive,
    encode_audit,
    encode_checkpoint,
    encode_directive,
    is_tick,
)
from flyball_proto.codec.streams import (
    Said,
    pusher_message,
    read_pusher_message,
    read_receiver_message,
    receiver_message,
)

__all__ = [
    "CheckpointPart",
    "FrameHead",
    "Pushed",
    "Said",
    "decode_audit",
    "decode_checkpoint",
    "decode_directive",
    "decode_input",
    "encode_audit",
    "encode_checkpoint",
    "encode_directive",
    "encode_frame",
    "encode_input",
    "frame_head",
    "is_attach",
    "is_tick",
    "pusher_message",
    "read_pusher_message",
    "read_receiver_message",
    "receiver_message",
]
