"""The messages of the attach stream, both ways: what receivers say, and what pushers say."""

from flyball_core.errors import Rejected
from flyball_core.inputs import Ack, Attach
from flyball_proto.codec.inputs import fill_ack, fill_attach, read_ack, read_attach
from flyball_proto.codec.outputs import Pushed, fill_pushed, read_pushed
from flyball_proto.v1 import services_pb2 as pb

Said = Attach | Ack
"""What a receiver says."""


def receiver_message(said: Said) -> pb.ReceiverMessage:
    """A receiver's message. Raises `Rejected` for what the contract cannot carry."""
    message = pb.ReceiverMessage()
    try:
        if isinstance(said, Attach):
            fill_attach(message.attach, said)
        else:
            fill_ack(message.ack, said)
    except (TypeError, ValueError) as error:
        raise Rejected(f"this {type(said).__name__} does not fit the contract: {error}") from error
    return message


def read_receiver_message(message: pb.ReceiverMessage) -> Said:
    """What a receiver said; `Rejected` if it is nothing that this contract knows."""
    kind = message.WhichOneof("body")
    if kind == "attach":
        return read_attach(message.attach)
    if kind == "ack":
        return read_ack(message.ack)
    raise Rejected("a receiver's message of a kind not known here")


def pusher_message(pushed: Pushed) -> pb.PusherMessage:
    """A pusher's message."""
    message = pb.PusherMessage()
    fill_pushed(message, pushed)
    return message


def read_pusher_message(message: pb.PusherMessage) -> Pushed:
    """What a pusher said; `Rejected` if it is nothing that this contract knows."""
    return read_pushed(message)
