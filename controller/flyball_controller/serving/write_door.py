"""The door of operators who change something: an order goes on record, and its owner's answer comes back.

The answer is read from the decisions in the log, so it does not matter which controller owns the pool.
Decides nothing: what is refused here could not be followed by any owner.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from flyball_controller.serving.checked_orders import Said, check_order, signed
from flyball_controller.serving.doorway import Doorway
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.refusals import Refusal
from flyball_core.errors import FlyballError, Rejected
from flyball_core.inputs import Malformed, Order, OverrideClear, OverrideSet, PolicyText, Rebase
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import decode_audit, decode_input, encode_input
from flyball_proto.v1 import inputs_pb2, services_pb2 as pb
from flyball_service.rates import Buckets

log = structlog.get_logger()

LONGEST_S = 10.0
"""Longest wait for an owner's answer."""
MARGIN_S = 0.5
"""What is left of the call's deadline for the way back."""
ORDERS_PER_S = 50.0
"""Orders of one author a second."""
MAX_ORDERS_AT_ONCE = 500
"""Orders of one author after a rest."""
ORDER_BYTES = 1024
"""A longer text counts as so many orders, for judging it takes its time."""
MAX_AUTHORS_RATED = 1_000
"""Authors with a rate of their own at a time; those beyond share one."""
MAX_ORDERS_UNDER_WAY = 64
"""Most orders that wait for their owner's answer at once, of all authors."""

TOO_MANY = "too_many"

_Context = grpc.aio.ServicerContext[Any, Any]


class WriteDoor:
    """Implements `OperatorWriteService`."""

    def __init__(
        self,
        doorway: Doorway,
        measures: Measures,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._doorway = doorway
        self._measures = measures
        self._wall = wall
        self._clock = clock
        self._rates: Buckets[str] = Buckets(per_s=ORDERS_PER_S, at_once=MAX_ORDERS_AT_ONCE, most=MAX_AUTHORS_RATED)
        self._under_way = 0

    async def SetOverride(self, request: inputs_pb2.OverrideSet, context: _Context) -> pb.WriteResponse:  # noqa: N802 - the contract's name
        """Pin a knob."""
        return await self._write(inputs_pb2.InputRecord(override_set=request), context)

    async def ClearOverride(self, request: inputs_pb2.OverrideClear, context: _Context) -> pb.WriteResponse:  # noqa: N802 - as above
        """Lift the pin of a knob."""
        return await self._write(inputs_pb2.InputRecord(override_clear=request), context)

    async def ApplyPolicy(self, request: inputs_pb2.PolicyText, context: _Context) -> pb.WriteResponse:  # noqa: N802 - as above
        """Put a policy document in force."""
        return await self._write(inputs_pb2.InputRecord(policy=request), context)

    async def GiveOrder(self, request: inputs_pb2.Order, context: _Context) -> pb.WriteResponse:  # noqa: N802 - as above
        """Change a pool's mode, pause it, or lift a policy's quarantine."""
        return await self._write(inputs_pb2.InputRecord(order=request), context)

    async def GiveRebase(self, request: inputs_pb2.Rebase, context: _Context) -> pb.WriteResponse:  # noqa: N802 - as above
        """Let receivers of another log take this log's versions."""
        return await self._write(inputs_pb2.InputRecord(rebase=request), context)

    async def _write(self, record: inputs_pb2.InputRecord, context: _Context) -> pb.WriteResponse:
        async with self._doorway.refusing(context, lambda refusal: self._measures.ordered(refusal.reason)):
            who = self._doorway.caller(context)
            plane = self._doorway.plane()
            said = signed(_read(record), who.name if who is not None else None)
            check_order(said, self._wall())
            plane.must_know(said.pool)
            left_s = context.time_remaining()
            wait_s = max(0.0, min(LONGEST_S, (LONGEST_S if left_s is None else left_s) - MARGIN_S))
            with self._room(said):
                answer = await self._give(plane.log, said, wait_s)
            outcome = pb.WriteOutcome.Name(answer.outcome).removeprefix("WRITE_OUTCOME_").lower()
            self._measures.ordered(outcome)
            log.info("order_given", pool=said.pool, author=said.author, outcome=outcome, summary=answer.summary)
            return answer

    @contextmanager
    def _room(self, said: Said) -> Iterator[None]:
        """Count an order while it is under way; raises `Refusal` for one too many."""
        cost = 1 + (len(said.text) // ORDER_BYTES if isinstance(said, PolicyText) else 0)
        now_s = self._clock()
        if self._under_way >= MAX_ORDERS_UNDER_WAY or not self._rates.of(said.author, now_s).take(cost, now_s):
            why = f"more orders at once than are taken, or more than {ORDERS_PER_S:g} a second of {said.author}"
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY, f"{why}: come again")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _give(self, where: Log, said: Said, wait_s: float) -> pb.WriteResponse:
        """Put an order on record and wait for its pool's owner to answer it."""
        partition = where.partition_of(said.pool)
        start = (await where.bounds(Topic.DECISIONS, partition)).end
        [offset] = await where.append(Topic.INPUTS, partition, [Entry(said.pool.encode(), encode_input(said))])
        answer = None
        why = f"on record; its owner has not answered within {wait_s:.1f} s"
        answering = _answered(where, partition, start, f"{said.pool}@{offset}", wait_s)
        try:
            answer = await self._doorway.unless_stopping(answering)
        except FlyballError as error:  # on record all the same
            why = f"on record; whether it was taken cannot be read: {error}"
        outcome = pb.WRITE_OUTCOME_ON_RECORD
        if answer is not None:
            outcome = pb.WRITE_OUTCOME_REFUSED if answer.refused else pb.WRITE_OUTCOME_TAKEN
            why = answer.summary
        return pb.WriteResponse(offset=offset, outcome=outcome, summary=why, author=said.author)


def _read(record: inputs_pb2.InputRecord) -> Said:
    """The order as owners will read it; `Rejected` for what they could not."""
    body = decode_input(0, record.SerializeToString()).body
    if isinstance(body, (OverrideSet, OverrideClear, PolicyText, Order, Rebase)):
        return body
    raise Rejected(body.reason if isinstance(body, Malformed) else "this is no order")


async def _answered(where: Log, partition: int, start: int, decision: str, wait_s: float) -> DecisionRecord | None:
    """The owner's record of the order with this decision id; None if none comes in time."""
    until = asyncio.get_running_loop().time() + wait_s
    while (left_s := until - asyncio.get_running_loop().time()) > 0:
        for record in await where.read(Topic.DECISIONS, partition, start, wait_s=left_s):
            start = record.offset + 1
            try:
                found = decode_audit(record.value or b"")
            except Rejected:
                continue
            if isinstance(found, DecisionRecord) and found.kind is RecordKind.ORDER and found.decision == decision:
                return found
    return None
