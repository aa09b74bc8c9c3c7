"""A gRPC service that says who calls, for tests of channels and certificates."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from flyball_service.channels import channel
from flyball_service.tls import Call, Tls, peer_identity

WHO = "/test.Echo/Who"
EVERY = "/test.Echo/Every"


def add_echo(server: grpc.aio.Server) -> None:
    """Let `server` answer `WHO` with the caller's identity, and `EVERY` with each message it gets."""

    async def who(request: bytes, context: Call) -> bytes:
        del request
        return repr(peer_identity(context)).encode()

    async def every(requests: AsyncIterator[bytes], context: Call) -> AsyncIterator[bytes]:
        del context
        async for request in requests:
            yield request

    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Every": grpc.stream_stream_rpc_method_handler(every),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))


async def ask_who(address: str, tls: Tls | None) -> str:
    """Who the server says we are; raises `grpc.aio.AioRpcError`."""
    connection = channel(address, tls)
    try:
        return await who_am_i(connection)
    finally:
        await connection.close(None)


async def who_am_i(connection: grpc.aio.Channel, *, within_s: float = 5.0, patiently: bool = False) -> str:
    """Who the other end of this connection says we are; `patiently`: waits for it to be there."""
    answer = await connection.unary_unary(WHO, bytes, bytes)(b"", timeout=within_s, wait_for_ready=patiently)
    return bytes(answer).decode()


class Conversation:
    """A stream on which everything that is said comes back."""

    def __init__(self, connection: grpc.aio.Channel) -> None:
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._stream = connection.stream_stream(EVERY, bytes, bytes)(self._requests())

    async def _requests(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._said.get()

    def say(self, text: bytes) -> None:
        """Send a message."""
        self._said.put_nowait(text)

    async def hear(self, within_s: float = 5.0) -> bytes:
        """The next message. Raises `TimeoutError` and ends the stream if none comes."""
        message = await asyncio.wait_for(self._stream.read(), within_s)
        assert isinstance(message, bytes), "the stream ended"
        return message

    def end(self) -> None:
        """Hang up."""
        self._stream.cancel()
