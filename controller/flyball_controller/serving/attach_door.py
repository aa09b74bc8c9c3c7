"""The door of receivers: one stream each, with the attach and acks up, and directives, tables and leases down.

Each stream has its own reader and writer, so a receiver that is slow, frozen or mad holds up nobody else.
What a receiver says goes into the log before its next word is read; the log bundles what comes from many at
once. While the log does not answer, streams stay and acks wait. Decides nothing about what is pushed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError

from flyball_controller.machine.admission import MAX_NAME
from flyball_controller.pusher import Pusher
from flyball_controller.serving.doorway import Doorway
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.outbox import Outbox, Unanswered, kind_of
from flyball_controller.serving.refusals import INVALID, Refusal
from flyball_controller.serving.streams import Stream, Streams, check_ack, check_attach
from flyball_core import inputs
from flyball_core.errors import Rejected, Retryable
from flyball_proto.codec import Said, pusher_message, read_receiver_message
from flyball_proto.v1 import services_pb2 as pb
from flyball_service.channels import ATTACH_BYTES, Backoff
from flyball_service.tls import Identity

log = structlog.get_logger()

NO_ATTACH = "no_attach"
SILENT = "silent"
STOPPING = "stopping"

T = TypeVar("T")
_Context = grpc.aio.ServicerContext[pb.ReceiverMessage, pb.PusherMessage]
_FAREWELLS_S = 2.0
_RETRY_S = (0.25, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachTimes:
    """How long a receiver may take, in seconds."""

    first_word_s: float = 10.0
    """From opening the stream to its attach."""
    answer_s: float = 30.0
    """To take a message off the stream, and to answer a directive or table."""


class AttachDoor:
    """Implements `AttachService`. Close it before its server, so that receivers hear why."""

    def __init__(self, doorway: Doorway, measures: Measures, times: AttachTimes) -> None:
        self.streams = Streams()
        self._doorway = doorway
        self._measures = measures
        self._times = times
        self._farewells: set[asyncio.Task[None]] = set()

    async def Attach(self, request_iterator: object, context: _Context) -> None:  # noqa: N802 - the contract's name
        """Serve one receiver until it leaves, or must."""
        del request_iterator  # read by `context.read`, which can be waited for beside other things
        with ExitStack() as left:
            async with self._doorway.refusing(context, lambda refusal: self._measures.ended(refusal.reason)):
                who = self._doorway.caller(context)
                pusher = self._doorway.plane().pusher
                self.streams.enter(who)
                left.callback(self.streams.leave, who)  # outermost: a call that is hard to end still counts
                await self._receiver(context, who, pusher)

    async def close(self) -> None:
        """End all streams with a reason and put on record that their receivers left, for two seconds at most."""
        streams = list(self.streams)
        for stream in streams:
            stream.end(Refusal(grpc.StatusCode.UNAVAILABLE, STOPPING, self._doorway.farewell))
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELLS_S):
                for stream in streams:
                    await stream.gone.wait()
                await asyncio.gather(*self._farewells)
        if self._farewells:
            log.warning("farewells_lost", count=len(self._farewells))
            for task in self._farewells:
                task.cancel()
            await asyncio.wait(self._farewells)

    async def _receiver(self, context: _Context, who: Identity | None, pusher: Pusher) -> None:
        attach = await self._first_word(context)
        stream = Stream(attach=attach, outbox=Outbox(asyncio.get_running_loop().time, self._measures.superseded))
        try:
            check_attach(attach, who)
            self.streams.admit(stream)
        except Refusal as refusal:
            target, pool = attach.target[:MAX_NAME], attach.pool[:MAX_NAME]
            log.warning("attach_refused", target=target, pool=pool, why=str(refusal), peer=context.peer())
            raise
        # A task of its own: what was appended for a caller who has left meanwhile must be taken back.
        attaching = asyncio.create_task(pusher.attached(stream, attach))
        attaching.add_done_callback(lambda _: stream.linked.set())
        try:
            await asyncio.shield(attaching)
            log.info("attached", kind=attach.kind.value, target=attach.target, pool=attach.pool)
            await self._converse(stream, context, pusher)
        finally:
            self.streams.drop(stream)
            leaving = asyncio.create_task(self._leave(stream, attaching, pusher))
            self._farewells.add(leaving)
            leaving.add_done_callback(self._farewells.discard)

    async def _first_word(self, context: _Context) -> inputs.Attach:
        said = None
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.first_word_s):
                said = await _said(context)
        if not isinstance(said, inputs.Attach) or not said.attached:
            wanted = f"a stream opens with an attach, within {self._times.first_word_s:g} s"
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, NO_ATTACH, wanted)
        return said

    async def _converse(self, stream: Stream, context: _Context, pusher: Pusher) -> None:
        """Listen and speak until either ends, or the stream is to end for another reason."""
        listening = asyncio.create_task(self._listen(stream, context, pusher))
        speaking = asyncio.create_task(self._speak(stream, context))
        tasks: tuple[asyncio.Task[None], ...] = (listening, speaking)
        awaited: list[asyncio.Future[Any]] = [*tasks, stream.ending]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()
        if stream.ending.done():
            log.info("stream_ended", target=stream.attach.target, why=str(stream.ending.result()))
            raise stream.ending.result()

    async def _listen(self, stream: Stream, context: _Context, pusher: Pusher) -> None:
        """Put what the receiver says on record, word by word, until it says farewell."""
        while (said := await _said(context)) is not None:
            if pause_s := stream.words.wait_s(asyncio.get_running_loop().time()):
                await asyncio.sleep(pause_s)
            if _whose(said) != _whose(stream.attach):
                wrong = f"this stream is of {stream.attach.target}, incarnation {stream.attach.incarnation}"
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, wrong)
            if isinstance(said, inputs.Ack):
                check_ack(said)
                stream.outbox.answered(said.version)
                self._measures.acked(said)
                await _patiently(partial(pusher.acked, said))
            elif said.attached:
                check_attach(said, None)
                stream.attach = said
                await _patiently(partial(pusher.attached, stream, said))
            else:
                return

    async def _speak(self, stream: Stream, context: _Context) -> None:
        patience_s, target = self._times.answer_s, stream.attach.target
        try:
            while True:
                message = await stream.outbox.next(patience_s)
                async with asyncio.timeout(patience_s):
                    await context.write(pusher_message(message))
                self._measures.pushed(kind_of(message))
        except (Unanswered, TimeoutError):
            log.warning("receiver_silent", target=target, pool=stream.attach.pool, after_s=patience_s)
            said = f"{target} has not taken or answered a message for {patience_s:g} s"
            raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, SILENT, said) from None

    async def _leave(self, stream: Stream, attaching: "asyncio.Task[None]", pusher: Pusher) -> None:
        await asyncio.gather(attaching, return_exceptions=True)  # whoever left meanwhile cares for no failure of it
        if stream.successor is not None:  # the target is not gone: a farewell before its next attach would say so
            await stream.successor.linked.wait()
        farewell = pusher.unlink(stream, stream.attach)
        if farewell is not None:
            log.info("detached", kind=farewell.kind.value, target=farewell.target, pool=farewell.pool)
            await _patiently(partial(pusher.parted, farewell))


def _whose(said: Said) -> tuple[str, str, str, str]:
    return said.kind.value, said.pool, said.target, said.incarnation


async def _said(context: _Context) -> Said | None:
    """What is said next; None at the end of the stream. Raises `Rejected` for what cannot be read."""
    try:
        message: object = await context.read()
    except DecodeError as error:
        raise Rejected("a message that cannot be read") from error
    if not isinstance(message, pb.ReceiverMessage):
        return None
    if message.ByteSize() > ATTACH_BYTES:
        raise Rejected(f"a message of {message.ByteSize()} bytes; the most is {ATTACH_BYTES}")
    return read_receiver_message(message)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Try until the log takes it; whoever has no patience cancels."""
    backoff = Backoff(Random(), *_RETRY_S)
    while True:
        try:
            return await call()
        except Retryable:
            await asyncio.sleep(backoff.next_s())
