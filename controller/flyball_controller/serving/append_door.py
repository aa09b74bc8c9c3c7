"""The door of agents, where the log is embedded: frames go in, and nothing else.

Every entry is read before any is appended, so that a batch is taken whole or not at all. How much is under
way is bounded; beyond it callers are told to come again. With Kafka agents append there themselves.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from flyball_controller.machine.admission import MAX_NAME
from flyball_controller.serving.doorway import Doorway
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.refusals import INVALID, Refusal, refusing
from flyball_core.frames import Frame
from flyball_core.inputs import Malformed
from flyball_log.interface import Entry, Log, Topic
from flyball_log.opening import is_kafka
from flyball_proto.codec import decode_input
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
CHECKED_AT_ONCE = 50
"""Entries read before others have a turn."""

BUSY = "busy"
NOT_A_FRAME = "not_a_frame"
ANOTHERS = "another_agents"

_Context = grpc.aio.ServicerContext[Any, Any]


class AppendDoor:
    """Implements `AppendService`."""

    def __init__(self, doorway: Doorway, measures: Measures) -> None:
        self._doorway = doorway
        self._measures = measures
        self._under_way_bytes = 0
        self._calls: Counter[Identity] = Counter()

    async def Append(self, request: pb.AppendRequest, context: _Context) -> pb.AppendResponse:  # noqa: N802 - the contract's name
        """Append frames; answers once they are durable."""
        async with refusing(context, lambda refusal: self._measures.append_refused(refusal.reason)):
            who = self._doorway.caller(context, "agent")
            log = self._doorway.plane().log
            if is_kafka(log.where):
                said = f"this log is {log.where}: agents append there, not through a controller"
                raise Refusal(grpc.StatusCode.UNIMPLEMENTED, INVALID, said)
            entries = list(request.entries)
            size = sum(len(entry.record) for entry in entries)
            check_size(len(entries), size)
            with self._under_way(who, size):
                for number, entry in enumerate(entries):
                    check_entry(number, entry, who)
                    if number % CHECKED_AT_ONCE == CHECKED_AT_ONCE - 1:
                        await asyncio.sleep(0)  # others wait for this event loop
                offsets = await _append(log, entries)
            self._measures.appended_records.inc(len(entries))
            self._measures.appended_bytes.inc(size)
            return pb.AppendResponse(offsets=offsets)

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


def check_entry(number: int, entry: pb.AppendEntry, who: Identity | None) -> None:
    """Raise `Refusal` unless an entry is a frame of its pool, and of the agent that sends it."""
    body = decode_input(0, entry.record).body
    if not isinstance(body, Frame):
        what = body.reason if isinstance(body, Malformed) else f"a {type(body).__name__}"
        said = f"entry {number}: agents append frames, and this is {what}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, NOT_A_FRAME, said)
    if body.pool != entry.pool or not 0 < len(entry.pool) <= MAX_NAME:
        said = f"entry {number}: a frame of pool {body.pool!r} under the key {entry.pool!r}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, NOT_A_FRAME, said[:500])
    if who is not None and body.agent != who.name:
        said = f"entry {number}: a frame of agent {body.agent!r}, and the certificate is of {who.name!r}"
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, ANOTHERS, said[:500])


async def _append(log: Log, entries: Sequence[pb.AppendEntry]) -> list[int]:
    """Append to each entry's partition; the offsets in the order of the entries."""
    places: dict[int, list[int]] = {}
    for number, entry in enumerate(entries):
        places.setdefault(log.partition_of(entry.pool), []).append(number)

    async def append(partition: int, numbers: list[int]) -> list[int]:
        records = [Entry(entries[number].pool.encode(), entries[number].record) for number in numbers]
        return await log.append(Topic.INPUTS, partition, records)

    offsets = [0] * len(entries)
    for numbers, found in zip(
        places.values(), await asyncio.gather(*(append(*place) for place in places.items())), strict=True
    ):
        for number, offset in zip(numbers, found, strict=True):
            offsets[number] = offset
    return offsets
