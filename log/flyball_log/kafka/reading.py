"""Reading from Kafka at any offset: consumers kept where their readers are likely to go on.

A consumer here has one partition, assigned by hand, and belongs to one reader at a time; a reader that
goes on where it was finds records fetched ahead. Commits no offsets and joins no group.
"""

import asyncio
import math
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException, OffsetOutOfRangeError

from flyball_core.errors import LogCorrupt, LogUnavailable, OffsetGone
from flyball_log.interface import Bounds, Record
from flyball_log.kafka.clients import Consumer, make_consumer, translated
from flyball_log.kafka.settings import KafkaSettings

_IDLE_PER_PARTITION = 3
"""Consumers of one partition kept for readers at different places."""
_PROOF_S = 10.0
"""An idle reader is told that the log answers at least so often, or that it does not."""


@dataclass(slots=True, eq=False)
class _Cursor:
    """A consumer of one partition, and the offset it goes on at."""

    consumer: Consumer
    partition: TopicPartition
    position: int
    proven_s: float
    """Event loop's time when the broker last showed to be there."""


class Reading:
    """Reads topics by name."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._idle: dict[TopicPartition, list[_Cursor]] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._asker: Consumer | None = None
        self._making = asyncio.Lock()

    def note_end(self, topic: str, partition: int, end: int) -> None:
        """Records before `end` are known to exist, so `read` waits until it has them."""
        place = TopicPartition(topic, partition)
        self._ends[place] = max(end, self._ends.get(place, 0))

    async def bounds(self, topic: str, partition: int) -> Bounds:
        """First offset kept and next offset. Raises `LogUnavailable`."""
        place = TopicPartition(topic, partition)
        with translated(self._settings, f"ask for the offsets of {topic}"):
            async with asyncio.timeout(self._settings.read_timeout_s):
                asker = await self._started_asker()
                begins, ends = await asyncio.gather(asker.beginning_offsets([place]), asker.end_offsets([place]))
        self.note_end(topic, partition, ends[place])
        return Bounds(begins[place], ends[place])

    async def _started_asker(self) -> Consumer:
        async with self._making:
            if self._asker is None:
                self._asker = await self._start(make_consumer(self._settings))
            return self._asker

    async def _start(self, consumer: Consumer) -> Consumer:
        try:
            await asyncio.wait_for(consumer.start(), self._settings.connect_timeout_s)
        except BaseException:
            await consumer.end()
            raise
        return consumer

    async def read(self, topic: str, partition: int, start: int, limit: int, wait_s: float) -> list[Record]:
        """Up to `limit` records with offset >= `start`, as `Log.read`."""
        place = TopicPartition(topic, partition)
        cursor = await self._take(place, start)
        keep = False
        try:
            with translated(self._settings, f"read {topic}"):
                records = await self._fetch(cursor, limit, wait_s)
            keep = True
        except CorruptRecordException:
            return await self._read_up_to_damage(place, start, limit)
        except OffsetOutOfRangeError:
            bounds = await self.bounds(topic, partition)
            if start < bounds.begin:
                raise OffsetGone(start, bounds.begin) from None
            await asyncio.sleep(wait_s)
            return []
        finally:
            await self._give_back(cursor, keep=keep)
        return records

    async def _fetch(self, cursor: _Cursor, limit: int, wait_s: float) -> list[Record]:
        loop = asyncio.get_running_loop()
        place, start = cursor.partition, cursor.position
        if loop.time() - cursor.proven_s > _PROOF_S or cursor.consumer.highwater(place) is None:
            await self.bounds(*place)
            cursor.proven_s = loop.time()
        began = loop.time()
        while True:
            known = max(self._ends.get(place, 0), cursor.consumer.highwater(place) or 0)
            patience_s = self._settings.read_timeout_s if cursor.position < known else wait_s
            left_s = max(0.0, began + patience_s - loop.time())
            fetched = await cursor.consumer.getmany(place, timeout_ms=math.ceil(left_s * 1000), max_records=limit)
            cursor.position = await cursor.consumer.position(place)
            if records := [Record(got.offset, got.key or b"", got.value) for got in fetched.get(place, ())]:
                cursor.proven_s = loop.time()
                return records
            if loop.time() >= began + patience_s:
                if cursor.position < known and start < known:
                    raise LogUnavailable(f"{self._settings.where}: {place.topic} does not deliver offset {start}")
                return []

    async def _read_up_to_damage(self, place: TopicPartition, start: int, limit: int) -> list[Record]:
        """The records before a damaged one; `LogCorrupt` if it is the first."""
        records: list[Record] = []
        cursor = await self._take(place, start)
        try:
            while len(records) < limit:
                with translated(self._settings, f"read {place.topic}"):
                    # One by one: the consumer forgets what it has when it meets damage.
                    records += await self._fetch(cursor, 1, 0.0)
        except CorruptRecordException as error:
            if not records:
                where = f"{self._settings.where}: {place.topic}/{place.partition}"
                raise LogCorrupt(where, start, str(error)) from error
        finally:
            await self._give_back(cursor, keep=False)
        return records

    async def _take(self, place: TopicPartition, start: int) -> _Cursor:
        """A cursor that stands at `start`, for this reader alone until given back."""
        idle = self._idle.setdefault(place, [])
        cursor = next((each for each in idle if each.position == start), None)
        if cursor is None and len(idle) >= _IDLE_PER_PARTITION:
            cursor = idle[0]
        if cursor is not None:
            idle.remove(cursor)
        else:
            with translated(self._settings, f"read {place.topic}"):
                consumer = await self._start(make_consumer(self._settings))
            consumer.assign([place])
            cursor = _Cursor(consumer, place, -1, -math.inf)
        if cursor.position != start:
            cursor.consumer.seek(place, start)
            cursor.position = start
        return cursor

    async def _give_back(self, cursor: _Cursor, *, keep: bool) -> None:
        idle = self._idle.get(cursor.partition)
        if not keep or idle is None:
            await cursor.consumer.end()
            return
        idle.append(cursor)
        if len(idle) > _IDLE_PER_PARTITION:
            await idle.pop(0).consumer.end()

    async def close(self) -> None:
        """Release the connections."""
        consumers = [cursor.consumer for idle in self._idle.values() for cursor in idle]
        self._idle.clear()
        if self._asker is not None:
            consumers.append(self._asker)
            self._asker = None
        await asyncio.gather(*(consumer.end() for consumer in consumers))
