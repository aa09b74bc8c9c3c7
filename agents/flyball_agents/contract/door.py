"""Where a receiver under examination attaches: one gRPC port, one sitting per stream.

It answers nothing by itself and bounds everything: sittings that wait, messages that wait, and
the time that anything is waited for.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from flyball_core.errors import Retryable
from flyball_proto.codec import Said, read_receiver_message
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AttachServiceServicer, add_AttachServiceServicer_to_server
from flyball_service.channels import ATTACH_BYTES, grpc_server

_MOST_SITTINGS = 8
_MOST_MESSAGES = 256
_END_S = 0.5


class NothingCame(Retryable):
    """Nothing was said in time."""


class Ended(Retryable):
    """The receiver ended the stream."""


class Sitting:
    """One stream, as the examiner holds it."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[pb.ReceiverMessage | None] = asyncio.Queue(_MOST_MESSAGES)
        self._told: asyncio.Queue[pb.PusherMessage | None] = asyncio.Queue(_MOST_MESSAGES)
        self._over = False

    async def say(self, message: pb.PusherMessage) -> None:
        """Send a message. Raises `Ended` if the stream is over, `NothingCame` if messages are not taken."""
        if self._over:
            raise Ended("the receiver ended the stream")
        try:
            self._told.put_nowait(message)
        except asyncio.QueueFull:
            raise NothingCame("the receiver takes no message") from None

    async def hear(self, within_s: float) -> Said:
        """The next message. Raises `NothingCame`, `Ended`, or `Rejected` for what cannot be read."""
        try:
            async with asyncio.timeout(within_s):
                message = await self._said.get()
        except TimeoutError:
            raise NothingCame(f"nothing came within {within_s:g} s") from None
        if message is None:
            raise Ended("the receiver ended the stream")
        return read_receiver_message(message)

    def end(self) -> None:
        """End the stream, whoever began to."""
        self._over = True
        for queue in (self._said, self._told):
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(None)

    async def serve(self, requests: AsyncIterator[pb.ReceiverMessage]) -> AsyncIterator[pb.PusherMessage]:
        """What there is to send, until either side ends the stream."""
        taking = asyncio.ensure_future(self._take(requests))
        try:
            while (message := await self._told.get()) is not None:
                yield message
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            self.end()

    async def _take(self, requests: AsyncIterator[pb.ReceiverMessage]) -> None:
        try:
            async for message in requests:
                await self._said.put(message)
        finally:
            self.end()


class Door(AttachServiceServicer):
    """Takes streams; open it with `open_door`."""

    def __init__(self) -> None:
        self._sittings: asyncio.Queue[Sitting] = asyncio.Queue(_MOST_SITTINGS)
        self.server: grpc.aio.Server | None = None
        self.port = 0

    async def Attach(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.ReceiverMessage], context: grpc.ServicerContext
    ) -> AsyncIterator[pb.PusherMessage]:
        """Serve one stream."""
        del context
        sitting = Sitting()
        self._sittings.put_nowait(sitting)  # one too many ends that stream by the error it raises
        async for message in sitting.serve(request_iterator):
            yield message

    async def sitting(self, within_s: float) -> Sitting:
        """The next stream. Raises `NothingCame` if none is opened in time."""
        try:
            async with asyncio.timeout(within_s):
                return await self._sittings.get()
        except TimeoutError:
            raise NothingCame(f"no receiver opened a stream within {within_s:g} s") from None

    async def close(self) -> None:
        """End all streams and stop listening."""
        if self.server is not None:
            await self.server.stop(_END_S)


async def open_door(address: str) -> Door:
    """Listen on HOST:PORT of this machine. Raises `Rejected` beyond loopback, `Fatal` if it cannot listen."""
    door = Door()
    door.server, door.port = await grpc_server(
        address, None, lambda server: add_AttachServiceServicer_to_server(door, server), receive_bytes=ATTACH_BYTES
    )
    return door
