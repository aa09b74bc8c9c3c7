"""What is sent next, and what became of it: live frames first, the backlog beside them.

A frame is live for a few seconds after it was sampled; it is then sent from memory, in order.
Older ones come from the spool, marked as backlog, at a bounded rate. One batch is under way at a
time. What failed retryably is tried again after a growing, jittered pause, for ever; where more is
sent than can be taken, the backlog alone pauses while live frames are taken. Sending
twice is allowed, for a frame's identity tells. A frame leaves the spool when its append has
returned, never before. Time and randomness are the caller's, so a simulation can drive it.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from flyball_agents.spool import Spool, Ticket
from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.ids import BootId, PoolId


class Shed(LogUnavailable):
    """Telemetry is kept out for now, because more comes than can be taken; what is live and little goes first."""


class Shipment(NamedTuple):
    """One encoded frame on its way."""

    boot: BootId
    pool: PoolId
    seq: int
    payload: bytes
    backlog: bool


class Appender(Protocol):
    """The way into the log, direct or through a controller."""

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Return once all are durable.

        Raises `Retryable` if that is not known (some may have been written) and `Rejected`
        if one of them will never be taken.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipperLimits:
    """How fast and how patient."""

    live_s: float = 5.0
    """A frame this old is backlog: no decision waits for it."""
    batch_frames: int = 200
    batch_bytes: int = 512 << 10
    backlog_per_s: float = 50.0
    """Frames of the backlog sent a second: 600 s of outage at 1 Hz drain in 12 s per pool."""
    first_pause_s: float = 0.25
    most_pause_s: float = 8.0
    """Pauses after failures double from the first to this, each shortened by up to a half at random."""


class Batch(NamedTuple):
    """One append under way; answer it with `sent`, `failed` or `refused`."""

    tickets: tuple[Ticket, ...]
    shipments: tuple[Shipment, ...]


class Shipper:
    """Drains one agent's spool."""

    def __init__(self, spool: Spool, rng: random.Random, limits: ShipperLimits | None = None) -> None:
        self.limits = limits or ShipperLimits()
        self.failures = 0
        """Appends that failed since the last one that worked."""
        self.attempts = 0
        """Frames handed to the appender, repeats included."""
        self._spool = spool
        self._rng = rng
        self._live: deque[Ticket] = deque()
        self._under_way = False
        self._not_before_s = -float("inf")
        self._allowance = 0.0
        self._allowance_s: float | None = None
        self._singly = 0
        self._shed_in_a_row = 0
        self._no_backlog_before_s = -float("inf")

    def add(self, ticket: Ticket) -> None:
        """Take note of a frame that was just sampled and spooled."""
        if ticket.payload is not None:
            self._live.append(ticket)

    def next_batch(self, now_s: float) -> Batch | None:
        """What to send now; None if nothing waits, a batch is under way, or a pause lasts."""
        self._retire(now_s)
        if self._under_way or now_s < self._not_before_s:
            return None
        most = 1 if self._singly else self.limits.batch_frames
        tickets: list[Ticket] = []
        shipments: list[Shipment] = []
        room = self.limits.batch_bytes
        for ticket in self._live:
            if len(tickets) >= most or room <= 0:
                break
            if ticket.payload is not None:
                tickets.append(ticket)
                shipments.append(Shipment(*ticket.key, ticket.payload, backlog=False))
                room -= len(ticket.payload)
        allowed = 0 if now_s < self._no_backlog_before_s else min(most - len(tickets), int(self._refill(now_s)))
        for ticket in self._spool.oldest(allowed):
            if room <= 0:
                break
            payload = self._spool.read(ticket)
            if payload is not None:
                tickets.append(ticket)
                shipments.append(Shipment(*ticket.key, payload, backlog=True))
                room -= len(payload)
                self._allowance -= 1
        if not tickets:
            return None
        for ticket in tickets:
            ticket.leased = True
        self._under_way = True
        self.attempts += len(tickets)
        return Batch(tuple(tickets), tuple(shipments))

    def sent(self, batch: Batch) -> None:
        """The append returned: the frames are delivered."""
        self._end(batch, worked=True)
        for ticket in batch.tickets:
            ticket.leased = False
            ticket.payload = None
        self._spool.delivered(batch.tickets)
        self._forget_delivered(batch)
        if any(shipment.backlog for shipment in batch.shipments):
            self._shed_in_a_row = 0

    def failed(self, batch: Batch, now_s: float) -> None:
        """The append failed retryably, or nobody knows: the frames are tried again after a pause."""
        self._end(batch, worked=False)
        self._not_before_s = now_s + self._pause_s(self.failures)
        for ticket in batch.tickets:
            self._spool.release(ticket)

    def shed(self, batch: Batch, now_s: float) -> None:
        """The append was kept out: its backlog waits, ever longer, and its live frames go alone at once.

        A batch without backlog is tried again after a pause, as after any failure.
        """
        if not any(shipment.backlog for shipment in batch.shipments):
            self.failed(batch, now_s)
            return
        self._under_way = False
        self._shed_in_a_row += 1
        self._no_backlog_before_s = now_s + self._pause_s(self._shed_in_a_row)
        for ticket in batch.tickets:
            self._spool.release(ticket)

    def refused(self, batch: Batch, now_s: float) -> None:
        """One of the frames will never be taken: alone it is dropped, else the batch is tried again one by one."""
        if len(batch.tickets) > 1:
            self._singly = len(batch.tickets)
            self.failed(batch, now_s)
            return
        self._end(batch, worked=True)
        for ticket in batch.tickets:
            ticket.payload = None
            ticket.leased = False
            self._spool.drop(ticket, "rejected")
        self._forget_delivered(batch)

    def hurry(self) -> None:
        """The way into the log was opened: what failed before says nothing any more, so no pause goes on."""
        self.failures = self._shed_in_a_row = 0
        self._not_before_s = self._no_backlog_before_s = -float("inf")

    def wait_s(self, now_s: float) -> float:
        """How long until `next_batch` may have something that it has not now, if nothing is added."""
        if now_s < self._not_before_s:
            return self._not_before_s - now_s
        if not self._spool.waiting:
            return 3600.0
        return max(1.0 / self.limits.backlog_per_s, self._no_backlog_before_s - now_s)

    async def ship(self, appender: Appender, batch: Batch) -> BaseException | None:
        """Append a batch; the error that it met, for `conclude`. Cancellation passes through."""
        try:
            await appender.append(batch.shipments)
        except Exception as error:  # noqa: BLE001 - the task's boundary: any failure is an outcome, and counted
            return error
        return None

    def conclude(self, batch: Batch, error: BaseException | None, now_s: float) -> None:
        """Account for a batch by the error its append met, or None."""
        if error is None:
            self.sent(batch)
        elif isinstance(error, Rejected):
            self.refused(batch, now_s)
        elif isinstance(error, Shed):
            self.shed(batch, now_s)
        else:
            self.failed(batch, now_s)

    def _pause_s(self, in_a_row: int) -> float:
        """How long to wait after so many failures in a row."""
        longest = min(self.limits.first_pause_s * 2.0 ** min(in_a_row - 1, 30), self.limits.most_pause_s)
        return longest * self._rng.uniform(0.5, 1.0)

    def _end(self, batch: Batch, *, worked: bool) -> None:
        self._under_way = False
        self.failures = 0 if worked else self.failures + 1
        if worked and self._singly:
            self._singly = max(self._singly - len(batch.tickets), 0)

    def _retire(self, now_s: float) -> None:
        while self._live and (self._live[0].payload is None or now_s - self._live[0].stored.now_s > self.limits.live_s):
            ticket = self._live.popleft()
            if ticket.payload is not None:
                self._spool.retire(ticket)

    def _forget_delivered(self, batch: Batch) -> None:
        gone = set(map(id, batch.tickets))
        self._live = deque(ticket for ticket in self._live if id(ticket) not in gone)

    def _refill(self, now_s: float) -> float:
        """The backlog's allowance: a bucket that fills at its rate and holds a second's worth."""
        since_s = 0.0 if self._allowance_s is None else max(now_s - self._allowance_s, 0.0)
        self._allowance_s = now_s
        self._allowance = min(self._allowance + since_s * self.limits.backlog_per_s, max(self.limits.backlog_per_s, 1))
        return self._allowance
