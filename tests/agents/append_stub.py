"""A controller's append door that does as it is told: takes frames, refuses them, or says nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn, cast

import grpc

from flyball_core.frames import Frame
from flyball_proto.codec import decode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceServicer, add_AppendServiceServicer_to_server
from flyball_service.channels import grpc_server

_Abort = Callable[[grpc.StatusCode, str], Awaitable[NoReturn]]


class AppendStub(AppendServiceServicer):
    """Keeps what it takes; `refuses` with a status, `silent` for ever, or `forgets` to confirm."""

    def __init__(self) -> None:
        self.entries: list[pb.AppendEntry] = []
        self.calls = 0
        self.refuses: grpc.StatusCode | None = None
        self.silent = False
        self.forgets = False

    @property
    def frames(self) -> list[Frame]:
        """The frames in order of arrival."""
        bodies = [decode_input(0, entry.record).body for entry in self.entries]
        return [body for body in bodies if isinstance(body, Frame)]

    async def Append(self, request: pb.AppendRequest, context: Any) -> pb.AppendResponse:  # noqa: N802 - the contract's name
        """Do as told."""
        self.calls += 1
        if self.silent:
            await asyncio.sleep(3600)
        if self.refuses is not None:
            await cast("_Abort", context.abort)(self.refuses, "as told")
        self.entries += request.entries
        return pb.AppendResponse(offsets=() if self.forgets else range(len(request.entries)))


@asynccontextmanager
async def append_door(stub: AppendStub, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """HOST:PORT of a door that this stub stands in."""
    server, port = await grpc_server(address, None, lambda server: add_AppendServiceServicer_to_server(stub, server))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
