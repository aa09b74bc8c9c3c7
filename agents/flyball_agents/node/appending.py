"""The ways of frames into the log: through controllers over gRPC, or straight into Kafka.

Every wait is bounded. What one controller cannot do now another may, so all are tried before an
append fails. A controller that refuses this agent refuses no frame: nothing is dropped for that,
the spool keeps it and the reason is shown until somebody mends it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import grpc
import structlog

from flyball_agents.agent_loop import wait_for
from flyball_agents.log_appender import LogAppender
from flyball_agents.shipper import Appender, Shed, Shipment
from flyball_core.errors import Fatal, FlyballError, LogUnavailable, Rejected
from flyball_log.interface import Log
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceStub
from flyball_service.channels import channel
from flyball_service.health import Health
from flyball_service.kafka import LOG
from flyball_service.tls import Tls

DEADLINE_S = 5.0
"""Longest wait for one controller's answer, and for Kafka's."""

_REFUSES_US = frozenset(
    {
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_REFUSES_FRAMES = grpc.StatusCode.INVALID_ARGUMENT
_MOST_WORDS = 300

_Append = Callable[..., Coroutine[Any, Any, pb.AppendResponse]]

log = structlog.get_logger()


class GrpcAppender:
    """Appends through the first controller that takes it, and stays with it while it does."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None, *, deadline_s: float = DEADLINE_S) -> None:
        """`addresses` are HOST:PORT of controllers. Raises `Rejected` if there are none."""
        if not addresses:
            raise Rejected("the agent knows no controllers: give `agent.controllers`, or a log in Kafka")
        self._addresses = tuple(addresses)
        self._tls = tls
        self._deadline_s = deadline_s
        self._at = 0
        self._channel: grpc.aio.Channel | None = None
        self._shown = 0
        """Which renewal of our certificate the channel shows."""

    @property
    def address(self) -> str:
        """HOST:PORT of the controller that is asked first."""
        return self._addresses[self._at]

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Return once all are durable.

        Raises `Rejected` for a frame that no controller will take, `Fatal` where this agent itself is
        refused, `Shed` where telemetry is kept out, `LogUnavailable` for everything else that may pass.
        """
        request = pb.AppendRequest(
            entries=[pb.AppendEntry(pool=shipment.pool, record=shipment.payload) for shipment in shipments]
        )
        failure: FlyballError = LogUnavailable("no controller was asked")
        for _ in self._addresses:
            try:
                await self._append_here(request, len(shipments))
            except (LogUnavailable, Fatal) as error:
                # That an agent is refused is told before what may pass: it has to be mended.
                failure = failure if isinstance(failure, Fatal) else error
                if isinstance(error, Shed) and len(self._addresses) == 1:
                    break  # a new connection would only be one more thing to do for a controller that has enough to do
                await self.close()
                self._at = (self._at + 1) % len(self._addresses)
            else:
                return
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame, and this frame the frames that were not sent

    async def close(self) -> None:
        """Close the connection; the next append makes another one."""
        own, self._channel = self._channel, None
        if own is not None:
            await own.close(None)

    async def _renew(self) -> None:
        """Let go of a channel that shows an earlier certificate than the present one; appends come one at a time."""
        shown = self._tls.renewals() if self._tls is not None else 0
        if shown != self._shown:
            await self.close()
            self._shown = shown

    async def _append_here(self, request: pb.AppendRequest, entries: int) -> None:
        address = self.address
        try:
            await self._renew()
            if self._channel is None:
                self._channel = channel(address, self._tls)
            # The stub's type is the blocking one; on an aio channel it gives aio calls.
            append = cast("_Append", AppendServiceStub(self._channel).Append)
            answer = await append(request, timeout=self._deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _error_of(address, error.code(), error.details() or "", self._deadline_s) from error
        if len(answer.offsets) != entries:
            raise LogUnavailable(f"{address} confirmed {len(answer.offsets)} of {entries} frames")


def _error_of(address: str, code: grpc.StatusCode, details: str, deadline_s: float) -> FlyballError:
    said = f"{address}: {code.name}: {details[:_MOST_WORDS]}".removesuffix(": ")
    if code is _REFUSES_FRAMES:
        return Rejected(said)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Fatal(f"{said} (it takes no appends: is its log in Kafka? then `log` has to say so here too)")
    if code in _REFUSES_US:
        return Fatal(said)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Shed(said)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return LogUnavailable(f"{address}: no answer within {deadline_s:g} s")
    return LogUnavailable(said)


class NotOpen(LogUnavailable):
    """The log was not opened yet; who opens it says why."""


class LaterAppender:
    """Appends to a log that may not be open yet: until it is, nothing was done and it is tried again."""

    def __init__(self) -> None:
        self._log: Log | None = None
        self._appender: LogAppender | None = None

    def opened(self, opened: Log) -> None:
        """The log is there."""
        self._log, self._appender = opened, LogAppender(opened)

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Append as `LogAppender`; raises `NotOpen` while the log is not open."""
        if self._appender is None:
            raise NotOpen("the log is not open yet")
        await self._appender.append(shipments)

    async def close(self) -> None:
        """Close the log, if it was opened."""
        if self._log is not None:
            await self._log.close()


class WatchedAppender:
    """An appender whose outcomes are counted and told to health: ready is an agent whose frames the log takes."""

    def __init__(self, inner: Appender, health: Health) -> None:
        self.outcomes: Counter[str] = Counter()
        """Appends by outcome: "done", "failed", "shed" (both tried again), "refused" (we are), "rejected" (a frame)."""
        self._inner = inner
        self._health = health
        self._said = ""

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Append, and pass on what is raised."""
        try:
            await self._inner.append(shipments)
        except Rejected as error:
            self.outcomes["rejected"] += 1
            if self._said != str(error):
                self._said = str(error)
                log.warning("frames_rejected", why=self._said)
            raise
        except NotOpen:
            self.outcomes["failed"] += 1
            raise
        except Shed as error:
            self.outcomes["shed"] += 1
            if not any(shipment.backlog for shipment in shipments):  # else the live frames may go alone
                self._health.waits_for(LOG, str(error))
            raise
        except Exception as error:
            self.outcomes["refused" if isinstance(error, Fatal) else "failed"] += 1
            self._health.waits_for(LOG, str(error) if isinstance(error, FlyballError) else repr(error))
            raise
        self.outcomes["done"] += 1
        self._said = ""
        self._health.has(LOG)


async def reach(appender: Appender, stop: asyncio.Event, pauses: Callable[[], float]) -> None:
    """Append nothing until that works: so an agent that has nothing to send knows as well whether it could."""
    while not stop.is_set():
        try:
            await appender.append(())
        except (LogUnavailable, Fatal):
            await wait_for(stop, pauses())
        else:
            return
