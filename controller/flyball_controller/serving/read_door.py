"""The door of whoever looks: what this controller owns, the policies in force, the audit.

Changes nothing. What it tells of a pool is the state of the pool's owner, so it tells of pools owned here;
the audit is read from the log, and so is that of every pool.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from flyball_controller.owner import Owned
from flyball_controller.serving.doorway import Doorway, Plane
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.refusals import Refusal
from flyball_controller.serving.status import partition_status, pool_status
from flyball_core.errors import OffsetGone
from flyball_log.interface import Bounds, Log, Record, Topic
from flyball_log.limits import MAX_RECORD_BYTES
from flyball_proto.codec import is_tick
from flyball_proto.v1 import outputs_pb2, services_pb2 as pb
from flyball_service.rates import Buckets
from flyball_service.tls import Identity

PAGE_BYTES = 1024 * 1024
"""A page takes no further record once it holds so much."""
READ_AT_ONCE = 500
WAIT_S = 10.0
"""Longest wait of a call that follows before it asks the log anew."""
MAX_READINGS = 64
"""Most readings of the audit at once, those that follow it included."""
MAX_READINGS_OF_ONE = 16
"""Most of them by one certificate."""
LOOKS_PER_S = 50.0
"""Looks at a status or a policy a second, by one certificate."""
MAX_LOOKS_AT_ONCE = 200
"""As above, after a rest."""
MAX_LOOKERS_RATED = 1_000
"""Certificates with a rate of their own at a time; those beyond share one."""

FULL = "full"
TOO_FAST = "rate"

_Context = grpc.aio.ServicerContext[Any, Any]


class ReadDoor:
    """Implements `OperatorReadService`."""

    def __init__(
        self,
        doorway: Doorway,
        measures: Measures,
        tick_s: float,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doorway = doorway
        self._measures = measures
        self._tick_s = tick_s
        self._wall = wall
        self._clock = clock
        self._looks: Buckets[Identity] = Buckets(per_s=LOOKS_PER_S, at_once=MAX_LOOKS_AT_ONCE, most=MAX_LOOKERS_RATED)
        self._readings: Counter[Identity | None] = Counter()

    async def Status(self, request: pb.StatusRequest, context: _Context) -> pb.StatusResponse:  # noqa: N802 - the contract's name
        """What this controller is and owns."""
        async with self._doorway.refusing(context, self._refused):
            self._look(self._doorway.caller(context))
            plane, health = self._doorway.plane(), self._doorway.health
            if request.pool:
                plane.must_know(request.pool)
            answer = pb.StatusResponse(
                controller=self._doorway.name,
                log_id=plane.log.log_id,
                log=plane.log.where,
                partitions=plane.log.partitions,
                ready=health.ready,
                waiting_for=[f"{what}: {why}" for what, why in health.waiting.items()],
                wall_s=self._wall(),
            )
            for owned in _held(plane):
                answer.owned.append(partition_status(owned))
                for name, pool in sorted(owned.state.pools.items()):
                    if request.pool in ("", name):
                        answer.pools.append(pool_status(owned.state, pool, self._tick_s))
            return answer

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: _Context) -> pb.GetPolicyResponse:  # noqa: N802 - as above
        """The policy document in force."""
        async with self._doorway.refusing(context, self._refused):
            self._look(self._doorway.caller(context))
            plane = self._doorway.plane()
            plane.must_know(request.pool)
            for owned in _held(plane):
                if request.pool in owned.state.pools:
                    pool = owned.state.pools[request.pool]
                    return pb.GetPolicyResponse(
                        pool=pool.pool, text=pool.policy_text, author=pool.policy_author, owned=True
                    )
            return pb.GetPolicyResponse(pool=request.pool)

    async def Decisions(self, request: pb.DecisionsRequest, context: _Context) -> AsyncIterator[pb.DecisionsPage]:  # noqa: N802 - as above
        """The audit of a pool or a partition, page by page."""
        async with self._doorway.refusing(context, self._refused):
            who = self._doorway.caller(context)
            plane = self._doorway.plane()
            if request.follow and (request.last or request.before_offset):
                said = "`follow` goes with neither `last` nor `before_offset`: what comes has no end yet"
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid", said)
            if request.pool:
                plane.must_know(request.pool)
            elif request.partition >= plane.log.partitions:
                said = f"there are partitions 0 to {plane.log.partitions - 1}"
                raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid", said)
            with self._reading(who):
                async for page in self._pages(plane.log, request):
                    yield page

    def _look(self, who: Identity | None) -> None:
        """Raise `Refusal` if this certificate looks too often; on plaintext nobody can be told from another."""
        now_s = self._clock()
        if who is not None and not self._looks.of(who, now_s).take(1, now_s):
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_FAST, f"more than {LOOKS_PER_S:g} looks a second")

    @contextmanager
    def _reading(self, who: Identity | None) -> Iterator[None]:
        """Count a reading of the audit while it lasts; raises `Refusal` for one too many."""
        too_many = who is not None and self._readings[who] >= MAX_READINGS_OF_ONE
        if too_many or self._readings.total() >= MAX_READINGS:
            said = f"{MAX_READINGS} readings are open, or {MAX_READINGS_OF_ONE} of one certificate: come again"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, FULL, said)
        self._readings[who] += 1
        try:
            yield
        finally:
            self._readings[who] -= 1
            if not self._readings[who]:
                del self._readings[who]

    def _refused(self, refusal: Refusal) -> None:
        self._measures.read_refused(refusal.reason)

    async def _pages(self, log: Log, request: pb.DecisionsRequest) -> AsyncIterator[pb.DecisionsPage]:
        """Pages up to the end as it is now, and on from there if asked to follow; the first one even if it is empty.

        However few records are asked for, a page is made of each handful that is read: it shows that somebody reads.
        """
        partition = log.partition_of(request.pool) if request.pool else request.partition
        at, end = _span(request, await log.bounds(Topic.DECISIONS, partition))
        wait_s = 0.0
        while True:
            records: list[Record] = []
            if request.follow or at < end:
                reading = log.read(Topic.DECISIONS, partition, at, limit=READ_AT_ONCE, wait_s=wait_s)
                read = await self._doorway.unless_stopping(reading)
                records = [one for one in read if request.follow or one.offset < end]
            page, at = page_of(records, request, at)
            if page.entries or not wait_s:
                yield page
            if not request.follow and (at >= end or not records):
                return
            wait_s = WAIT_S if request.follow else 0.0


def _span(request: pb.DecisionsRequest, bounds: Bounds) -> tuple[int, int]:
    """Where to read from, and up to where unless asked to follow. Raises `OffsetGone` for what is kept no more."""
    end = min(request.before_offset or bounds.end, bounds.end)
    if request.last:
        return min(max(bounds.begin, end - request.last), end), end
    at = bounds.end if request.follow and request.from_end else request.from_offset or bounds.begin
    if at < bounds.begin:
        raise OffsetGone(at, bounds.begin)
    return at, end


def _held(plane: Plane) -> list[Owned]:
    """What is owned here and was not lost, by partition."""
    held = plane.owner.owned
    return [held[partition] for partition in sorted(held) if not held[partition].lost]


def page_of(records: list[Record], request: pb.DecisionsRequest, at: int) -> tuple[pb.DecisionsPage, int]:
    """Those of the records that are asked for, as far as a page takes them; where to go on."""
    page, size, pool = pb.DecisionsPage(from_offset=at), 0, request.pool.encode()
    for record in records:
        if size >= PAGE_BYTES:
            break
        at = record.offset + 1
        if record.value is None or pool not in (b"", record.key) or (request.without_ticks and is_tick(record.value)):
            continue
        if len(record.value) > MAX_RECORD_BYTES:  # a stranger's: nobody could take the page
            page.unreadable += 1
            continue
        size += len(record.value)
        try:
            told = outputs_pb2.AuditRecord.FromString(record.value)
        except DecodeError:
            page.unreadable += 1  # one damaged record must not hide all others
            continue
        page.entries.append(pb.DecisionEntry(offset=record.offset, record=told))
    page.next_offset = at
    return page, at
