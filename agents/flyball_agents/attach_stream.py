"""An attach stream over gRPC, for `Attacher`.

Thin: it opens, reads, writes and closes, and says by which of two errors a call ended. Every stream
has a channel of its own, so that nothing of a broken connection is left to the next, and renewed
certificates are taken.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import grpc

from flyball_agents.attaching import AttachRefused, Open, Place
from flyball_core.errors import Retryable
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AttachServiceStub
from flyball_service.channels import ATTACH_BYTES, channel
from flyball_service.tls import Tls, check_address

if TYPE_CHECKING:
    _Call = grpc.aio.StreamStreamCall[pb.ReceiverMessage, pb.PusherMessage]

_REFUSALS = frozenset(
    {
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_MOST_WORDS = 300


class GrpcStream:
    """One call of `AttachService.Attach` on a channel of its own; raises `FlyballError` if there can be none."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self._tls = tls
        self._shown = tls.renewals() if tls is not None else 0
        own = channel(address, tls, receive_bytes=ATTACH_BYTES)
        # The stub's type is the blocking one; on an aio channel it gives aio calls.
        attach = cast("Callable[[], _Call]", AttachServiceStub(own).Attach)
        self._channel = own
        self._call = attach()

    async def read(self) -> pb.PusherMessage | None:
        """The next message; None if the controller ended the stream."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise _said_by(error) from None
        return message if isinstance(message, pb.PusherMessage) else None

    async def write(self, message: pb.ReceiverMessage) -> None:
        """Send a message; where the call is over already, raises what it ended with."""
        try:
            await self._call.write(message)
        except grpc.aio.AioRpcError as error:
            raise _said_by(error) from None
        except asyncio.InvalidStateError:  # the call had ended before
            raise _said(await self._call.code(), await self._call.details()) from None

    async def close(self) -> None:
        """Cancel the call and close its channel."""
        self._call.cancel()
        await self._channel.close(None)

    def outdated(self) -> bool:
        """Whether the certificates were renewed since; also warns of those that are about to expire."""
        return self._tls is not None and self._tls.renewals() != self._shown


class _GrpcStreams:
    """Streams with one set of certificates, or in plaintext."""

    def __init__(self, tls: Tls | None) -> None:
        self._tls = tls

    def __call__(self, place: Place) -> GrpcStream:
        """A stream; raises `FlyballError` if there can be none."""
        return GrpcStream(place.address, self._tls)

    def check(self, address: str) -> None:
        """Raise `Rejected` if HOST:PORT is malformed, or plaintext would leave this machine."""
        check_address(address, self._tls)


def grpc_streams(tls: Tls | None) -> Open:
    """Opens streams over TLS, or in plaintext where `tls` is None and the controller is on this machine."""
    return _GrpcStreams(tls)


def _said_by(error: grpc.aio.AioRpcError) -> AttachRefused | Retryable:
    return _said(error.code(), error.details())


def _said(code: grpc.StatusCode, details: str | None) -> AttachRefused | Retryable:
    said = f"{code.name}: {(details or 'no details')[:_MOST_WORDS]}"
    return AttachRefused(said) if code in _REFUSALS else Retryable(said)
