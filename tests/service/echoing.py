"""A gRPC service that says who calls, for tests of channels and certificates."""

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

    handlers = {
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "Every": grpc.stream_stream_rpc_method_handler(every),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))


async def ask_who(address: str, tls: Tls | None) -> str:
    """Who the server says we are; raises `grpc.aio.AioRpcError`."""
    connection = channel(address, tls)
    try:
        answer = await connection.unary_unary(WHO)(b"", timeout=5.0)
    finally:
        await connection.close(None)
    return bytes(answer).decode()
