"""Writing to Kafka: one idempotent producer, thrown away and made anew when it is in doubt.

A producer can end in a state that only a new one leaves (out-of-order sequence, fenced, unknown
producer id, a send that never completes). The batch in hand is then sent again by the next one,
in order; so a batch may be there twice, and readers deduplicate by identity. Per partition one
batch is under way at a time.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from flyball_core.errors import Fatal, LogUnavailable, Rejected
from flyball_log.interface import Entry
from flyball_log.kafka.clients import FORBIDDEN, connection
from flyball_log.kafka.settings import KafkaSettings
from flyball_log.limits import MAX_RECORD_BYTES

_BATCH_BYTES = 3 * MAX_RECORD_BYTES
_BACKOFF_S = (0.1, 2.0)
"""First and longest pause between two attempts."""
_ABORT_S = 1.0

_logger = logging.getLogger(__name__)
TopicLane = tuple[str, int]


class _Producer(AIOKafkaProducer):
    """A producer that can be thrown away at once, with what it has not delivered."""

    async def abort(self) -> None:
        """End it without flushing: `stop` would wait for a broker that may never answer."""
        self._closed = True
        sending = self._sender.sender_task
        until = asyncio.get_running_loop().time() + _ABORT_S
        while sending is not None and not sending.done() and asyncio.get_running_loop().time() < until:
            # The first cancellation makes it wait for its requests, the next ones cancel those.
            sending.cancel()
            await asyncio.wait([sending], timeout=0.05)
        with suppress(KafkaError, OSError, TimeoutError):
            await asyncio.wait_for(self.client.close(), _ABORT_S)


@dataclass(slots=True)
class _Live:
    """A started producer and the future that is done when it has been given up."""

    producer: _Producer
    gone: asyncio.Future[None]


class Producing:
    """Appends to topics by name. `rebuilt` counts the producers that were thrown away."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._live: _Live | None = None
        self._making = asyncio.Lock()
        self.rebuilt = 0

    async def commit(self, lane: TopicLane, entries: Sequence[Entry]) -> list[int]:
        """Append `entries` in order to a topic's partition and return their offsets.

        Raises `LogUnavailable` if that was not known to be done in time, `Fatal` if it is forbidden,
        `Rejected` if the topic does not take records of that size.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.append_timeout_s
        offsets: list[int] = []
        while len(offsets) < len(entries):
            first, count = await self._send(lane, entries[len(offsets) :], deadline)
            offsets.extend(range(first, first + count))
        return offsets

    async def _send(self, lane: TopicLane, entries: Sequence[Entry], deadline: float) -> tuple[int, int]:
        """Append as many entries as one batch takes; the first offset and their number."""
        pause_s, longest_s = _BACKOFF_S
        loop = asyncio.get_running_loop()
        while True:
            live: _Live | None = None
            try:
                async with asyncio.timeout_at(deadline):
                    live = await self._producer()
                async with asyncio.timeout_at(min(deadline, loop.time() + self._settings.suspect_after_s)):
                    return await self._attempt(live, lane, entries)
            except FORBIDDEN as error:
                raise Fatal(f"{self._settings.where}: not allowed to write to {lane[0]}: {error}") from error
            except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
                raise Rejected(f"{self._settings.where}: {lane[0]} does not take records so large") from error
            except (KafkaError, OSError, TimeoutError, AssertionError) as error:  # it asserts known partitions
                if live is not None:
                    await self._give_up(live, error)
                if loop.time() + pause_s >= deadline:
                    seconds = self._settings.append_timeout_s
                    raise LogUnavailable(
                        f"{self._settings.where}: not written within {seconds:g} s: {error!r}"
                    ) from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _attempt(self, live: _Live, lane: TopicLane, entries: Sequence[Entry]) -> tuple[int, int]:
        batch = live.producer.create_batch()
        for key, value in entries:
            if batch.append(timestamp=None, key=key, value=value) is None:
                break
        batch.close()
        sent = await live.producer.send_batch(batch, lane[0], partition=lane[1])
        awaited: list[asyncio.Future[Any]] = [sent, live.gone]
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if not sent.done():
                raise KafkaError("the producer was given up")
            offset = sent.result().offset
        finally:
            sent.cancel()
            del sent, awaited  # an error in it holds this frame by its traceback, and so the batch
        if offset < 0:
            raise KafkaError("the broker has the batch already but forgot where")
        return offset, batch.record_count()

    async def _producer(self) -> _Live:
        async with self._making:
            if self._live is None:
                producer = _Producer(
                    **connection(self._settings),
                    acks="all",
                    enable_idempotence=True,
                    compression_type="zstd",
                    max_batch_size=_BATCH_BYTES,
                    max_request_size=2 * _BATCH_BYTES,
                )
                try:
                    await asyncio.wait_for(producer.start(), self._settings.connect_timeout_s)
                except BaseException:
                    await producer.abort()
                    raise
                self._live = _Live(producer, asyncio.get_running_loop().create_future())
            return self._live

    async def _give_up(self, live: _Live, error: Exception) -> None:
        """Throw the producer away, unless another lane has done so."""
        if self._live is not live:
            return
        self._live = None
        self.rebuilt += 1
        _logger.warning("producer of %s given up: %r", self._settings.where, error)
        live.gone.set_result(None)
        # Shielded: what it had under way must not be delivered after its successor's batches.
        await asyncio.shield(live.producer.abort())

    async def close(self) -> None:
        """Release the connections; what is under way is lost."""
        if self._live is not None:
            live, self._live = self._live, None
            live.gone.set_result(None)
            await live.producer.abort()
