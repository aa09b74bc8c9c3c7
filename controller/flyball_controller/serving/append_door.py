"""The door of agents, where the log is embedded: frames go in, and nothing else.

Every entry is read before any is appended, so that a batch is taken whole or not at all. How much is under
way is bounded, and so is how much waits for its owner and how fast an agent sends (`shedding`); beyond it callers
are told to come again, as early as it can be known. With Kafka agents append there themselves.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from flyball_controller.machine.admission import MAX_NAME
from flyball_controller.serving.doorway import Doorway
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.refusals import INVALID, Refusal
from flyball_controller.serving.shedding import (
    FRAME_SAMPLES,
    RATE,
    Level,
    Shedding,
    Unread,
    level_of,
)
from flyball_core.inputs import Malformed
from flyball_log.interface import Entry, Log, Topic
from flyball_log.opening import is_kafka
from flyball_proto.codec import FrameHead, decode_input, frame_head
from flyball_proto.v1 import services_pb2 as pb
from flyball_service.tls import Identity

MAX_ENTRIES = 1_000
"""Most entries of one append."""
MAX_BYTES = 2 * 1024 * 1024
"""Most bytes of their records together."""
MAX_UNDER_WAY_BYTES = 32 * 1024 * 1024
"""Most bytes under way to the disk at once, from all callers."""
MAX_CALLS_OF_ONE = 8
"""Most appends at once by one certificate."""
MAX_SAMPLES_AT_ONCE = 8_192
"""Most samples of one append."""
CHECKED_AT_ONCE = 50
"""Entries read before others have a turn."""

BUSY = "busy"
NOT_A_FRAME = "not_a_frame"
ANOTHERS = "another_agents"

_Context = grpc.aio.ServicerContext[Any, Any]


class AppendDoor:
    """Implements `AppendService`. `late_s` tells how late the tick of a partition is, in seconds."""

    def __init__(self, doorway: Doorway, measures: Measures, late_s: Callable[[int], float]) -> None:
        self._doorway = doorway
        self._measures = measures
        self._late_s = late_s
        self._shedding = Shedding()
        self._unread: defaultdict[int, Unread] = defaultdict(Unread)
        self._under_way_bytes = 0
        self._calls: Counter[Identity] = Counter()

    async def Append(self, request: pb.AppendRequest, context: _Context) -> pb.AppendResponse:  # noqa: N802 - the contract's name
        """Append frames; answers once they are durable."""
        async with self._doorway.refusing(context, lambda refusal: self._refused(refusal, len(request.entries))):
            who = self._doorway.caller(context)
            log = self._doorway.plane().log
            if is_kafka(log.where):
                said = f"this log is {log.where}: agents append there, not through a controller"
                raise Refusal(grpc.StatusCode.UNIMPLEMENTED, INVALID, said)
            entries = list(request.entries)
            size = sum(len(entry.record) for entry in entries)
            check_size(len(entries), size)
            with self._under_way(who, size):
                offsets = await self._append(log, entries, who)
            self._measures.appended_records.inc(len(entries))
            self._measures.appended_bytes.inc(size)
            return pb.AppendResponse(offsets=offsets)

    def waiting(self) -> dict[int, int]:
        """By partition, samples appended here and not read by their owner yet."""
        return {partition: self._waiting(partition) for partition in sorted(self._unread)}

    async def _append(self, log: Log, entries: Sequence[pb.AppendEntry], who: Identity | None) -> list[int]:
        """Read the entries, keep them out if that is what is due, else append them."""
        if not entries:
            return []
        places = _places(log, entries)
        agent = who.name if who is not None else check_entry(0, entries[0], None).agent
        least = {place: FRAME_SAMPLES * len(numbers) for place, numbers in places.items()}
        self._shed(self._shedding.unseen(agent, len(entries), self._level(least), _now_s()))
        samples: Counter[int] = Counter()
        backlog = False
        for partition, numbers in places.items():
            for number in numbers:
                head = check_entry(number, entries[number], who)
                samples[partition] += FRAME_SAMPLES + head.samples
                backlog = backlog or head.backlog
                if number % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1:
                    await asyncio.sleep(0)  # others wait for this event loop
        check_samples(samples.total())
        self._shed(self._shedding.seen(agent, len(entries), self._level(samples), _now_s(), backlog=backlog))
        return await self._appended(log, entries, places, samples)

    async def _appended(
        self,
        log: Log,
        entries: Sequence[pb.AppendEntry],
        places: Mapping[int, Sequence[int]],
        samples: Mapping[int, int],
    ) -> list[int]:
        """Append to each entry's partition; the offsets in the order of the entries."""
        offsets = [0] * len(entries)
        under_way = dict(samples)
        for partition, more in samples.items():  # here, not at their tasks' turn: others look at it meanwhile
            self._unread[partition].under_way += more

        async def append(partition: int, numbers: Sequence[int]) -> None:
            records = [Entry(entries[number].pool.encode(), entries[number].record) for number in numbers]
            found = await log.append(Topic.INPUTS, partition, records)
            self._unread[partition].kept(found[-1], under_way.pop(partition))
            for number, offset in zip(numbers, found, strict=True):
                offsets[number] = offset

        try:
            await asyncio.gather(*(append(*place) for place in places.items()))
        finally:
            for partition, left in under_way.items():  # whose fate is not known: a task may never have begun
                self._unread[partition].under_way -= left
        return offsets

    def _waiting(self, partition: int) -> int:
        owned = self._doorway.plane().owner.owned.get(partition)
        return self._unread[partition].waiting(owned.next_offset if owned is not None else 0)

    def _level(self, more: Mapping[int, int]) -> Level:
        """What is kept out of the worst of these partitions, of which so many samples more are asked."""
        return max(level_of(self._waiting(place), samples, self._late_s(place)) for place, samples in more.items())

    def _shed(self, reason: str) -> None:
        if reason:
            why = "this agent sends too fast" if reason == RATE else "what came before is not read yet"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, f"{why}: come again")

    def _refused(self, refusal: Refusal, frames: int) -> None:
        self._measures.append_refused(refusal.reason)
        if refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._measures.shed(refusal.reason, frames)

    @contextmanager
    def _under_way(self, who: Identity | None, size: int) -> Iterator[None]:
        if self._under_way_bytes + size > MAX_UNDER_WAY_BYTES or (
            who is not None and self._calls[who] >= MAX_CALLS_OF_ONE
        ):
            said = "too much is being appended at once: come again"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, BUSY, said)
        self._under_way_bytes += size
        if who is not None:
            self._calls[who] += 1
        try:
            yield
        finally:
            self._under_way_bytes -= size
            if who is not None:
                self._calls[who] -= 1
                if not self._calls[who]:
                    del self._calls[who]


def check_size(count: int, size: int) -> None:
    """Raise `Refusal` for an append of more than is taken at once."""
    if count > MAX_ENTRIES or size > MAX_BYTES:
        said = f"{count} entries of {size} bytes; at most {MAX_ENTRIES} of {MAX_BYTES} are taken at once"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, said)


def check_samples(count: int) -> None:
    """Raise `Refusal` for an append of more samples than are taken at once."""
    if count > MAX_SAMPLES_AT_ONCE:
        said = f"{count} samples, each frame as some of them; at most {MAX_SAMPLES_AT_ONCE} are taken at once"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, INVALID, said)


def check_entry(number: int, entry: pb.AppendEntry, who: Identity | None) -> FrameHead:
    """The head of an entry's frame; raise `Refusal` unless it is one of its pool, and of the agent that sends it."""
    head = frame_head(entry.record)
    if head is None:
        body = decode_input(0, entry.record).body
        what = body.reason if isinstance(body, Malformed) else f"a {type(body).__name__}"
        said = f"entry {number}: agents append frames, and this is {what}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, NOT_A_FRAME, said)
    if head.pool != entry.pool or not 0 < len(entry.pool) <= MAX_NAME:
        said = f"entry {number}: a frame of pool {head.pool!r} under the key {entry.pool!r}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, NOT_A_FRAME, said[:500])
    if who is not None and head.agent != who.name:
        said = f"entry {number}: a frame of agent {head.agent!r}, and the certificate is of {who.name!r}"
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, ANOTHERS, said[:500])
    return head


def _places(log: Log, entries: Sequence[pb.AppendEntry]) -> dict[int, list[int]]:
    """The entries' numbers by partition, in their order."""
    places: dict[int, list[int]] = {}
    for number, entry in enumerate(entries):
        places.setdefault(log.partition_of(entry.pool), []).append(number)
    return places


def _now_s() -> float:
    return asyncio.get_running_loop().time()
