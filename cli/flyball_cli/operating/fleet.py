"""The controllers of a fleet, asked all at once. The one module of the operator's commands that opens a connection.

Every call has a bound. A controller that cannot be reached is named with the reason and
keeps nobody from the others' answers; when none answers, that is an error which says what to do.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc

from flyball_cli.operating.connection import Connection
from flyball_cli.operating.merging import Answer, FleetStatus, Silence, merge
from flyball_cli.operating.refusals import NoAnswer, Unsure, plain_reason, worded
from flyball_core.addresses import is_loopback, split_address
from flyball_proto.v1.services_pb2 import (
    DecisionsPage,
    DecisionsRequest,
    GetPolicyRequest,
    GetPolicyResponse,
    StatusRequest,
    WriteResponse,
)
from flyball_proto.v1.services_pb2_grpc import OperatorReadServiceStub, OperatorWriteServiceStub
from flyball_service.channels import channel
from flyball_service.tls import Tls

if TYPE_CHECKING:
    from flyball_proto.v1.services_pb2_grpc import OperatorReadServiceAsyncStub, OperatorWriteServiceAsyncStub

RECEIVE_BYTES = 64 * 1024 * 1024
"""Largest answer taken: the status of some ten thousand engines."""

T = TypeVar("T")


class Fleet:
    """Connections to the controllers that a `Connection` names; use it with `async with`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._tls = None if connection.tls is None else Tls(connection.tls)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._shown = 0
        """Which renewal of our certificate these show."""
        self._retired: list[grpc.aio.Channel] = []
        """Those that show an earlier one: what is open on them goes on, nothing new begins."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (*self._channels.values(), *self._retired):
            await one.close(None)

    async def status(self, pool: str = "") -> FleetStatus:
        """What all controllers say of a pool, or of all pools. Raises `NoAnswer` if none says anything."""
        addresses, silences = await self._addresses()
        asked = await asyncio.gather(*(self._ask(address, pool) for address in addresses))
        silences += [one for one in asked if isinstance(one, Silence)]
        answers = [one for one in asked if isinstance(one, Answer)]
        if not answers:
            raise NoAnswer(silences)
        return merge(answers, silences)

    async def _ask(self, address: str, pool: str) -> Answer | Silence:
        request = StatusRequest(pool=pool)
        try:
            status = await self._read(address).Status(request, timeout=self.connection.timeout_s)
        except grpc.aio.AioRpcError as error:
            if pool and error.code() is grpc.StatusCode.NOT_FOUND:
                return await self._ask(address, "")  # it answers all the same: which pools there are
            await self._drop(address)
            return Silence(address=address, why=plain_reason(error, self.connection))
        return Answer(address=address, status=status)

    async def policy(self, address: str, pool: str) -> GetPolicyResponse:
        """The policy document in force, of the pool's owner. Raises `FlyballError`."""
        request = GetPolicyRequest(pool=pool)
        try:
            return await self._read(address).GetPolicy(request, timeout=self.connection.timeout_s)
        except grpc.aio.AioRpcError as error:
            raise worded(error, address, self.connection) from error

    async def decisions(self, address: str, request: DecisionsRequest) -> AsyncIterator[DecisionsPage]:
        """Pages of the audit. Without `follow`, each must come within the timeout. Raises `FlyballError`."""
        call = self._read(address).Decisions(request)
        try:
            while True:
                page = await self._next(call, bounded=not request.follow)
                if page is None:
                    return
                yield page
        except grpc.aio.AioRpcError as error:
            await self._drop(address)
            raise worded(error, address, self.connection) from error
        except TimeoutError as error:
            raise NoAnswer([Silence(address=address, why=f"no page within {self.connection.timeout_s:g} s")]) from error
        finally:
            call.cancel()

    async def _drop(self, address: str) -> None:
        """Close the channel to a controller that failed: the next call makes a new one, with renewed certificates."""
        failed = self._channels.pop(address, None)
        if failed is not None:
            await failed.close(None)

    async def _next(
        self, call: grpc.aio.UnaryStreamCall[DecisionsRequest, DecisionsPage], *, bounded: bool
    ) -> DecisionsPage | None:
        async with asyncio.timeout(self.connection.timeout_s if bounded else None):
            page = await call.read()
        return page if isinstance(page, DecisionsPage) else None  # else gRPC's end of the stream

    async def write(
        self, address: str, send: "Callable[[OperatorWriteServiceAsyncStub, float], Awaitable[WriteResponse]]"
    ) -> WriteResponse:
        """Give an order at the pool's owner. Raises `FlyballError`; `Unsure` if it may be on record all the same."""
        stub = cast("OperatorWriteServiceAsyncStub", OperatorWriteServiceStub(self._channel(address)))
        try:
            return await send(stub, self.connection.timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise Unsure(address, plain_reason(error, self.connection)) from error
            raise worded(error, address, self.connection) from error

    def _read(self, address: str) -> "OperatorReadServiceAsyncStub":
        return cast("OperatorReadServiceAsyncStub", OperatorReadServiceStub(self._channel(address)))

    def _channel(self, address: str) -> grpc.aio.Channel:
        shown = self._tls.renewals() if self._tls is not None else 0
        if shown != self._shown:
            self._retired += self._channels.values()
            self._channels, self._shown = {}, shown
        found = self._channels.get(address)
        if found is None:
            found = self._channels[address] = channel(address, self._tls, receive_bytes=RECEIVE_BYTES)
        return found

    async def _addresses(self) -> tuple[list[str], list[Silence]]:
        """Every address to ask, names resolved anew: a name may stand for all controllers of a fleet."""
        found: dict[str, None] = {}
        silences: list[Silence] = []
        for address in self.connection.addresses:
            try:
                for one in await self._resolved(address):
                    found.setdefault(one)
            except (OSError, TimeoutError) as error:
                silences.append(Silence(address=address, why=f"the name does not resolve: {_said(error)}"))
        return list(found), silences

    async def _resolved(self, address: str) -> list[str]:
        if is_loopback(address):
            return [address]
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.connection.timeout_s):
            known = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # A host of both families is one host: its controllers are counted by the first family that it has.
        families = [family for family, *_ in known]
        family = socket.AF_INET if socket.AF_INET in families else families[0]
        hosts = sorted({str(place[0]) for kind, _, _, _, place in known if kind is family})
        if hosts == [host] or not hosts:
            return [address]
        return [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in hosts]


def _said(error: OSError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error)


def with_fleet(connection: Connection, use: Callable[[Fleet], Coroutine[Any, Any, T]]) -> T:
    """Run `use` with connections that are closed at its end. Raises `FlyballError` as it does."""

    async def run() -> T:
        async with Fleet(connection) as fleet:
            return await use(fleet)

    return asyncio.run(run())
