"""Following the audit of a fleet as it is written, over controllers that come and go.

Goes on where it stopped: at a new connection it asks from the next offset. Where that cannot
be, it says that something may have been missed.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from flyball_cli.operating.connection import Connection
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.merging import FleetStatus
from flyball_core.errors import FlyballError, Rejected
from flyball_core.outputs import DecisionRecord
from flyball_log.limits import MAX_PARTITIONS
from flyball_proto.codec import decode_audit
from flyball_proto.v1.services_pb2 import DecisionsRequest
from flyball_service.channels import Backoff

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One record of the audit, at its offset among the decisions."""

    offset: int
    record: DecisionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The audit of something cannot be followed for now."""

    what: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The audit of something is followed, or followed again."""

    what: str
    address: str
    missed: bool
    """Whether records may have been missed since it was lost."""


Event = Recorded | Lost | Followed
Say = Callable[[Event], None]


class Follower:
    """Follows one pool, or one partition; keeps where it is."""

    def __init__(self, connection: Connection, pool: str, partition: int, say: Say) -> None:
        self._connection = connection
        self._pool = pool
        self._partition = partition
        self._say = say
        self._next: int | None = None
        self._lost = False
        self._was_following = False
        self.unreadable = 0
        """Records that could not be read here: a newer controller may write kinds not known yet."""

    @property
    def _what(self) -> str:
        return f"pool {self._pool}" if self._pool else f"partition {self._partition}"

    async def run(self) -> None:
        """Follow until cancelled."""
        backoff = Backoff(random.Random(), FIRST_WAIT_S, LONGEST_WAIT_S)
        async with Fleet(self._connection) as fleet:
            while True:
                why = "the stream ended"
                try:
                    await self._follow(fleet, backoff)
                except FlyballError as error:
                    why = str(error)
                    if isinstance(error, Rejected):
                        self._next = None  # that offset is gone, or of another log
                if not self._lost:
                    self._say(Lost(what=self._what, why=why))
                self._lost = True
                await asyncio.sleep(backoff.next_s())

    async def _follow(self, fleet: Fleet, backoff: Backoff) -> None:
        address = self._address(await fleet.status(self._pool))
        request = DecisionsRequest(
            pool=self._pool,
            partition=self._partition,
            follow=True,
            from_end=self._next is None,
            from_offset=self._next or 0,
        )
        missed, begun = self._was_following and self._next is None, False
        async for page in fleet.decisions(address, request):
            if not begun:  # the first page comes at once, if only to say where the audit stands
                self._say(Followed(what=self._what, address=address, missed=missed))
                begun, self._lost, self._was_following = True, False, True
            backoff.reset()
            self._next = page.next_offset
            self.unreadable += page.unreadable
            for entry in page.entries:
                if not entry.record.HasField("decision"):
                    continue
                try:
                    record = decode_audit(entry.record.SerializeToString())
                except Rejected:
                    self.unreadable += 1
                    continue
                if isinstance(record, DecisionRecord):
                    self._say(Recorded(offset=entry.offset, record=record))

    def _address(self, status: FleetStatus) -> str:
        """The owner's; any other controller reads the same audit."""
        if self._pool:
            return status.pool(self._pool).address
        for answer in status.answers:
            if any(one.partition == self._partition for one in answer.status.owned):
                return answer.address
        return status.answers[0].address


async def follow(connection: Connection, pool: str, say: Say) -> None:
    """Follow one pool, or with an empty name every partition, until cancelled. Raises `FlyballError` at the start."""
    async with Fleet(connection) as fleet:
        status = await fleet.status(pool)
    if pool:
        status.pool(pool)
        partitions = [0]
    else:
        partitions = list(range(min(MAX_PARTITIONS, max(answer.status.partitions for answer in status.answers))))
    async with asyncio.TaskGroup() as tasks:
        for partition in partitions:
            tasks.create_task(Follower(connection, pool, partition, say).run())
