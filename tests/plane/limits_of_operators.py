"""The doors of operators, at each limit and one beyond it: a call at a time, in a time of the test's own."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Any, cast
from unittest.mock import patch

import grpc

from flyball_cli.operating import fleet
from flyball_controller.serving import write_door
from flyball_controller.serving.checked_orders import check_order
from flyball_controller.serving.read_door import ReadDoor, page_of
from flyball_controller.serving.write_door import WriteDoor
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.inputs import OverrideSet
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_log.interface import Bounds, Record
from flyball_log.limits import MAX_RECORD_BYTES
from flyball_proto.codec import encode_audit
from flyball_proto.v1 import common_pb2, inputs_pb2, services_pb2 as pb
from flyball_service.channels import channel, grpc_server
from flyball_service.tls import Identity
from limit_calls import Context, OneDoorway, Reasons
from limit_table import Answers, Bench, beyond, heard, padded, said

WALL_S = 1.7e9
ADA = Identity("operator", "ada")


@dataclass(slots=True)
class Paper:
    """A log that takes every order, and whose owner answers when it is let, or never."""

    lets: asyncio.Event = field(default_factory=asyncio.Event)
    answers: bool = False
    where: str = "folder"
    log_id: str = "log"
    partitions: int = 1

    def partition_of(self, _: str) -> int:
        """All in one."""
        return 0

    async def bounds(self, *_: object) -> Bounds:
        """Nothing yet."""
        return Bounds(0, 0)

    async def append(self, *_: object) -> list[int]:
        """On record."""
        return [7]

    async def read(self, *_: object, wait_s: float = 0.0, **__: object) -> list[Record]:
        """The owner's answer."""
        if not self.answers:
            await asyncio.sleep(wait_s)
            return []
        await self.lets.wait()
        record = DecisionRecord(
            pool=PoolId("chat"),
            kind=RecordKind.ORDER,
            version=Version(log_id=LogId("log"), partition=0, epoch=0, revision=7),
            decision="chat@7",
            time_s=0.0,
            wall_s=0.0,
            mode="control",
            regime="idle",
            confidence=0.0,
            summary="as ordered",
        )
        return [Record(0, b"chat", encode_audit(record))]


@dataclass(slots=True)
class Desk:
    """The door of orders, at a time that the test tells."""

    paper: Paper = field(default_factory=Paper)
    reasons: Reasons = field(default_factory=Reasons)
    now_s: float = 0.0
    door: WriteDoor = field(init=False)
    doorway: OneDoorway = field(init=False)

    def __post_init__(self) -> None:
        self.doorway = OneDoorway(ADA, self.paper)
        self.door = WriteDoor(self.doorway, self.reasons, lambda: WALL_S, lambda: self.now_s)

    async def order(self, author: str = "ada", left_s: float = 0.0) -> str:
        """Give an order that nobody waits for; what becomes of it."""
        self.doorway.who = Identity("operator", author)
        said_ = inputs_pb2.OverrideSet(
            pool="chat",
            override_id="o",
            knob=BATCH_CAP,
            value=common_pb2.Value(integer=1),
            expires_wall_s=WALL_S + 1.0,
        )
        await heard(self.door.SetOverride(said_, cast("Any", Context(left_s=left_s))))
        return self.reasons.found[-1]

    async def orders(self, count: int, author: str = "ada") -> list[str]:
        """So many, one after the other."""
        return [await self.order(author) for _ in range(count)]


@beyond("orders")
async def orders(bench: Bench) -> Answers:
    """While time stands still."""
    told = await Desk().orders(bench.limit + 1)
    return " ".join(told[:-1]), told[-1]


@beyond("orders-rate")
async def orders_rate(bench: Bench) -> Answers:
    """In the second after that."""
    desk = Desk()
    await desk.orders(500)
    desk.now_s = 1.0
    told = await desk.orders(bench.limit + 1)
    return " ".join(told[:-1]), told[-1]


@beyond("authors-rated")
async def authors_rated(bench: Bench) -> Answers:
    """Authors who have all just ordered something; those beyond them share what one may."""
    desk = Desk()
    told = [await desk.order(f"a{number}") for number in range(bench.limit)]
    told += await desk.orders(500, "one more")
    return " ".join(told), await desk.order("and another")


@beyond("orders-under-way")
async def orders_under_way(bench: Bench) -> Answers:
    """Of authors who all wait for their answer."""
    desk = Desk(Paper(answers=True))
    waiting = [asyncio.create_task(desk.order(f"a{number}", left_s=20.0)) for number in range(bench.limit)]
    await asyncio.sleep(0.05)
    more = await desk.order("one more", left_s=20.0)
    desk.paper.lets.set()
    return " ".join(await asyncio.gather(*waiting)), more


@beyond("order-wait")
async def order_wait(bench: Bench) -> Answers:
    """A fiftieth of it, with an owner that answers at once and one that never does."""
    assert bench.limit == write_door.LONGEST_S
    with patch.object(write_door, "LONGEST_S", bench.limit / 50):
        answered, silent = Desk(Paper(answers=True)), Desk()
        answered.paper.lets.set()
        at = await answered.order(left_s=1000.0)
        more = await silent.order(left_s=1000.0)
    return at.replace("_", " "), more.replace("_", " ")


PIN = OverrideSet(
    pool=PoolId("chat"),
    override_id="o",
    target="",
    knob=BATCH_CAP,
    value=50,
    expires_wall_s=WALL_S + 1.0,
    reason="",
    author="ada",
)


@beyond("order-reason")
def order_reason(bench: Bench) -> Answers:
    """Of a pin."""
    at, more = (replace(PIN, reason="r" * (bench.limit + one)) for one in (0, 1))
    return said(lambda: check_order(at, WALL_S)), said(lambda: check_order(more, WALL_S))


@beyond("order-number")
def order_number(bench: Bench) -> Answers:
    """Of a pin: the limit itself is the first that is not taken."""
    at, more = (replace(PIN, value=bench.limit - one) for one in (1, 0))
    return said(lambda: check_order(at, WALL_S)), said(lambda: check_order(more, WALL_S))


@dataclass(slots=True)
class Window:
    """The door of whoever looks, at a time that the test tells."""

    now_s: float = 0.0
    reasons: Reasons = field(default_factory=Reasons)
    pages: list[Any] = field(default_factory=list)
    """Readings that go on."""
    door: ReadDoor = field(init=False)
    doorway: OneDoorway = field(init=False)

    def __post_init__(self) -> None:
        self.doorway = OneDoorway(ADA, Paper())
        self.door = ReadDoor(self.doorway, self.reasons, 1.0, lambda: WALL_S, lambda: self.now_s)

    async def looks(self, count: int, who: str = "ada") -> list[str]:
        """So many looks at a policy, one after the other, and what was answered."""
        self.doorway.who = Identity("viewer", who)
        asked = pb.GetPolicyRequest(pool="chat")
        return [await self._heard(self.door.GetPolicy(asked, cast("Any", Context()))) for _ in range(count)]

    async def _heard(self, call: Awaitable[object]) -> str:
        """The status of a call, and the reason for which it was refused."""
        self.reasons.found.clear()
        words = await heard(call)
        return f"{words.split(' ', 1)[0]} {' '.join(self.reasons.found)}"

    async def readings(self, count: int, who: str) -> list[str]:
        """So many readings of the audit that go on, and what was answered to each."""
        told = []
        for number in range(count):
            self.doorway.who = Identity("viewer", who.format(number))
            pages = self.door.Decisions(pb.DecisionsRequest(follow=True), cast("Any", Context()))
            told.append(await self._heard(cast("Any", anext(aiter(pages)))))
            self.pages.append(pages)
        return told

    async def close(self) -> None:
        """End the readings."""
        for pages in self.pages:
            await pages.aclose()


@beyond("looks")
async def looks(bench: Bench) -> Answers:
    """While time stands still."""
    told = await Window().looks(bench.limit + 1)
    return " ".join(told[:-1]), told[-1]


@beyond("looks-rate")
async def looks_rate(bench: Bench) -> Answers:
    """In the second after that."""
    window = Window()
    await window.looks(200)
    window.now_s = 1.0
    told = await window.looks(bench.limit + 1)
    return " ".join(told[:-1]), told[-1]


@beyond("lookers-rated")
async def lookers_rated(bench: Bench) -> Answers:
    """Who have all just looked; those beyond them share what one may."""
    window = Window()
    told = [(await window.looks(1, f"a{number}"))[0] for number in range(bench.limit)]
    told += await window.looks(200, "one more")
    return " ".join(told), (await window.looks(1, "and another"))[0]


@beyond("readings")
async def readings(bench: Bench) -> Answers:
    """Of different certificates."""
    window = Window()
    told = await window.readings(bench.limit + 1, "a{}")
    await window.close()
    return " ".join(told[:-1]), told[-1]


@beyond("readings-of-one")
async def readings_of_one(bench: Bench) -> Answers:
    """Of one certificate."""
    window = Window()
    told = await window.readings(bench.limit + 1, "ada")
    await window.close()
    return " ".join(told[:-1]), told[-1]


@beyond("page-bytes")
def page_bytes(bench: Bench) -> Answers:
    """Of the largest records: with one byte less there is room for another."""
    tick = padded(b"\x12\x00", MAX_RECORD_BYTES)
    whole = [Record(at, b"chat", tick) for at in range(bench.limit // MAX_RECORD_BYTES)]

    def page(records: list[Record]) -> str:
        made, _ = page_of([*records, Record(99, b"chat", tick)], pb.DecisionsRequest(), 0)
        return "next page" if len(made.entries) == len(records) else ""

    less = [*whole[:-1], whole[-1]._replace(value=padded(b"\x12\x00", MAX_RECORD_BYTES - 1))]
    return page(less), page(whole)


@beyond("operator-message-bytes")
async def operator_message(bench: Bench) -> Answers:
    """An answer, over a channel as the operator's commands make it."""

    async def answer(asked: bytes, _: object) -> bytes:
        return bytes(int(asked))

    def add_to(server: grpc.aio.Server) -> None:
        handler = grpc.unary_unary_rpc_method_handler(cast("Any", answer), _as_is, _as_is)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("large", {"Answer": handler}),))

    server, port = await grpc_server("127.0.0.1:0", None, add_to)
    own = channel(f"127.0.0.1:{port}", None, receive_bytes=fleet.RECEIVE_BYTES)
    try:
        ask = own.unary_unary("/large/Answer", _as_is, _as_is)
        return await heard(ask(b"%d" % bench.limit)), await heard(ask(b"%d" % (bench.limit + 1)))
    finally:
        await own.close(None)
        await server.stop(None)


def _as_is(message: bytes) -> bytes:
    return message
