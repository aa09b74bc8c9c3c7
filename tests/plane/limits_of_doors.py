"""The doors of agents and receivers, at each limit and one beyond it; a controller's own where that is practical."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import aiohttp
import grpc
import structlog
from prometheus_client import CollectorRegistry, generate_latest

from flyball_controller.serving.append_door import AppendDoor
from flyball_controller.serving.doorkeeper import Doorkeeper, RefusalLog
from flyball_controller.serving.measures import Measures
from flyball_controller.serving.outbox import Outbox
from flyball_controller.serving.refusals import Refusal, refusing
from flyball_controller.serving.shedding import Level, Shedding, level_of
from flyball_controller.serving.streams import Stream, Streams, check_ack, check_attach
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach, TargetKind
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec
from flyball_proto.codec import encode_input, receiver_message
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service import channels
from flyball_service.channels import channel, grpc_server
from flyball_service.exposing import serve_http
from flyball_service.health import Health
from flyball_service.tls import Identity
from limit_calls import NOTHING, Context, OneDoorway, Reasons
from limit_table import Answers, Bench, beyond, heard, padded, said
from plane_clients import config_for, frame, running, stub

ATTACH = Attach(pool=PoolId("chat"), kind=TargetKind.ENGINE, target="e1", incarnation=Incarnation("i1"))
FLAG = KnobSpec(name="k", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=True)
ONE = Identity("agent", "a0")


@dataclass(slots=True)
class Bar:
    """A log that takes its time."""

    lets: asyncio.Event = field(default_factory=asyncio.Event)
    where: str = "folder"

    def partition_of(self, _: str) -> int:
        """All in one."""
        return 0

    async def append(self, _: object, __: int, entries: list[object]) -> list[int]:
        """Once it is let."""
        await self.lets.wait()
        return list(range(len(entries)))


async def at_the_bar(calls: int, records: list[bytes]) -> str:
    """So many appends of these records at once; why any was refused."""
    bar, reasons = Bar(), Reasons()
    door = AppendDoor(OneDoorway(ONE, bar), reasons, lambda _: 0.0)
    request = pb.AppendRequest(entries=[pb.AppendEntry(pool="chat", record=record) for record in records])
    under_way = [asyncio.create_task(door.Append(request, cast("Any", Context()))) for _ in range(calls)]
    for _ in range(20):
        await asyncio.sleep(0)
    bar.lets.set()
    await asyncio.gather(*under_way, return_exceptions=True)
    return " ".join(reasons.found)


@beyond("append-calls-of-one")
async def append_calls_of_one(bench: Bench) -> Answers:
    """That wait for the disk."""
    record = encode_input(frame(1))
    return await at_the_bar(bench.limit, [record]), await at_the_bar(bench.limit + 1, [record])


@beyond("append-under-way-bytes")
async def append_under_way(bench: Bench) -> Answers:
    """Of appends whose sizes come to the limit exactly; the limit is moved to where one certificate may come to."""
    record = encode_input(frame(1))
    few = 4 * len(record)
    with patch("flyball_controller.serving.append_door.MAX_UNDER_WAY_BYTES", few):
        at = await at_the_bar(4, [record])
    with patch("flyball_controller.serving.append_door.MAX_UNDER_WAY_BYTES", few - 1):
        more = await at_the_bar(4, [record])
    assert bench.limit > few
    return at, more


async def appended(bench: Bench, *requests: pb.AppendRequest) -> list[str]:
    """What a controller answers to each of these appends."""
    async with running(config_for(bench.folder)) as one, stub(rpc.AppendServiceStub, one.addresses.grpc) as agents:
        return [await heard(agents.Append(request)) for request in requests]


@beyond("append-entries")
async def append_entries(bench: Bench) -> Answers:
    """Of small frames."""
    entry = pb.AppendEntry(pool="chat", record=encode_input(frame(1)))
    sizes = (bench.limit, bench.limit + 1)
    at, more = await appended(bench, *(pb.AppendRequest(entries=[entry] * size) for size in sizes))
    return at, more


@beyond("append-bytes")
async def append_bytes(bench: Bench) -> Answers:
    """Of records as large as they may be."""
    record, each = encode_input(frame(1)), 200_000

    def request(size: int) -> pb.AppendRequest:
        whole = size // each - 1
        sizes = [each] * whole + [size - each * whole - 100_000, 100_000]
        entries = [pb.AppendEntry(pool="chat", record=padded(record, one)) for one in sizes]
        assert size == sum(len(entry.record) for entry in entries)
        return pb.AppendRequest(entries=entries)

    at, more = await appended(bench, request(bench.limit), request(bench.limit + 1))
    return at, more


@beyond("append-samples")
async def append_samples(bench: Bench) -> Answers:
    """In two frames, each of which counts as four more."""

    def request(samples: int) -> pb.AppendRequest:
        shares = (samples // 2, samples - samples // 2)
        frames = [frame(seq, engines=[f"{one:x}" for one in range(share)]) for seq, share in enumerate(shares)]
        short = [one._replace(engines=tuple(engine._replace(variant="") for engine in one.engines)) for one in frames]
        records = [encode_input(one._replace(gpus=(), engines=_bare(one.engines))) for one in short]
        return pb.AppendRequest(entries=[pb.AppendEntry(pool="chat", record=record) for record in records])

    at, more = await appended(bench, request(bench.limit - 8), request(bench.limit - 7))
    return at, more


def _bare(engines: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same engines, of whom one number is told."""
    numbers = dict.fromkeys(engines[0]._fields[6:]) if engines else {}
    return tuple(engine._replace(**numbers) for engine in engines)


@beyond("agent-frames")
def agent_frames(bench: Bench) -> Answers:
    """At once, of an agent that has rested."""
    at, more = Shedding(), Shedding()
    return at.unseen("a", bench.limit, Level.NOTHING, 0.0), more.unseen("a", bench.limit + 1, Level.NOTHING, 0.0)


def _worn(level: Level, frames: int) -> Shedding:
    """The rates once one agent has sent so many at the start of time."""
    rates = Shedding()
    assert rates.seen("a", frames, level, 0.0, backlog=False) == ""
    return rates


@beyond("agent-frames-rate")
def agent_frames_rate(bench: Bench) -> Answers:
    """A second after an agent has sent all that it may at once."""
    at, more = (_worn(Level.NOTHING, 1_000).unseen("a", bench.limit + one, Level.NOTHING, 1.0) for one in (0, 1))
    return at, more


@beyond("agent-live")
def agent_live(bench: Bench) -> Answers:
    """At once, while its owner is far behind."""
    level = Level.BEYOND_ITS_SHARE
    at, more = (Shedding().seen("a", bench.limit + one, level, 0.0, backlog=False) for one in (0, 1))
    return at, more


@beyond("agent-live-rate")
def agent_live_rate(bench: Bench) -> Answers:
    """A second after that."""
    level = Level.BEYOND_ITS_SHARE
    at, more = (_worn(level, 40).seen("a", bench.limit + one, level, 1.0, backlog=False) for one in (0, 1))
    return at, more


@beyond("agents-rated")
def agents_rated(bench: Bench) -> Answers:
    """Agents that have all just sent something; of two beyond them the second finds what the first has left."""
    rates = Shedding()
    told = [rates.seen(f"a{one}", 1_000, Level.NOTHING, 0.0, backlog=False) for one in range(bench.limit)]
    more = [rates.seen(f"b{one}", 1_000, Level.NOTHING, 0.0, backlog=False) for one in range(2)]
    return " ".join([*told, more[0]]), more[1]


@beyond("samples-waiting-backlog")
def waiting_backlog(bench: Bench) -> Answers:
    """For one backlog frame."""
    at, more = (Shedding().seen("a", 1, level_of(bench.limit + one, 5, 0.0), 0.0, backlog=True) for one in (0, 1))
    return at, more


@beyond("samples-waiting-share")
def waiting_share(bench: Bench) -> Answers:
    """For more live frames than are an agent's share."""
    at, more = (Shedding().seen("a", 41, level_of(bench.limit + one, 5, 0.0), 0.0, backlog=False) for one in (0, 1))
    return at, more


@beyond("samples-waiting")
def waiting(bench: Bench) -> Answers:
    """For one live frame; what it brings counts."""
    at, more = (Shedding().seen("a", 1, level_of(bench.limit - 5, 5 + one, 0.0), 0.0, backlog=False) for one in (0, 1))
    return at, more


@beyond("streams")
def streams(bench: Bench) -> Answers:
    """Of nobody's certificate."""
    here = Streams()
    told = [said(lambda: here.enter(None)) for _ in range(bench.limit + 1)]
    return " ".join(told[:-1]), told[-1]


@beyond("streams-of-one")
def streams_of_one(bench: Bench) -> Answers:
    """Of one certificate."""
    here = Streams()
    told = [said(lambda: here.enter(ONE)) for _ in range(bench.limit + 1)]
    return " ".join(told[:-1]), told[-1]


def _words(count: int, now_s: float, stream: Stream) -> str:
    waits = [stream.words.wait_s(now_s) for _ in range(count)]
    return "waits" if waits[-1] > 0 else ""


def _stream() -> Stream:
    return Stream(attach=ATTACH, outbox=Outbox(lambda: 0.0, lambda _: None))


@beyond("receiver-words")
async def receiver_words(bench: Bench) -> Answers:
    """Said in one breath."""
    return _words(bench.limit, 0.0, _stream()), _words(bench.limit + 1, 0.0, _stream())


@beyond("receiver-words-rate")
async def receiver_words_rate(bench: Bench) -> Answers:
    """In the second after that."""
    at, more = _stream(), _stream()
    assert "" == _words(200, 0.0, at) == _words(200, 0.0, more)
    return _words(bench.limit, 1.0, at), _words(bench.limit + 1, 1.0, more)


@beyond("names")
def names(bench: Bench) -> Answers:
    """Of an engine that attaches."""
    at, more = (replace(ATTACH, target="e" * (bench.limit + one)) for one in (0, 1))
    return said(lambda: check_attach(at, None)), said(lambda: check_attach(more, None))


@beyond("knobs")
def knobs(bench: Bench) -> Answers:
    """Of an engine that attaches."""
    specs = tuple(replace(FLAG, name=f"k{number}") for number in range(bench.limit + 1))
    at, more = (replace(ATTACH, knobs=some) for some in (specs[1:], specs))
    return said(lambda: check_attach(at, None)), said(lambda: check_attach(more, None))


@beyond("setting-bytes")
def setting_bytes(bench: Bench) -> Answers:
    """One knob with a long unit: its name, unit and safe value, and eight bytes for each."""
    room = bench.limit - len("k") - len("True") - 3 * 8
    at, more = (replace(ATTACH, knobs=(replace(FLAG, unit="u" * (room + one)),)) for one in (0, 1))
    return said(lambda: check_attach(at, None)), said(lambda: check_attach(more, None))


@beyond("ack-reason")
def ack_reason(bench: Bench) -> Answers:
    """Of a nack."""
    nack = Ack(
        pool=ATTACH.pool,
        kind=ATTACH.kind,
        target=ATTACH.target,
        incarnation=ATTACH.incarnation,
        version=Version(log_id=LogId("log"), partition=0, epoch=1, revision=1),
        status=AckStatus.NACK,
    )
    at, more = (replace(nack, reason="r" * (bench.limit + one)) for one in (0, 1))
    return said(lambda: check_ack(at)), said(lambda: check_ack(more))


@beyond("attach-message-bytes")
async def attach_message(bench: Bench) -> Answers:
    """An attach with a field that nobody knows."""
    attach = receiver_message(ATTACH).SerializeToString()

    async def attached(address: str, size: int) -> str:
        async with grpc.aio.insecure_channel(address) as own:
            call = own.stream_stream(f"/{_METHOD}", _as_is, _as_is)(timeout=10.0)
            await call.write(padded(attach, size))
            return await heard(call.read())

    async with running(config_for(bench.folder)) as one:
        return await attached(one.addresses.grpc, bench.limit), await attached(one.addresses.grpc, bench.limit + 1)


_METHOD = "flyball.v1.AttachService/Attach"


def _as_is(message: bytes) -> bytes:
    return message


@beyond("grpc-message-bytes")
async def grpc_message(bench: Bench) -> Answers:
    """An append of one field that nobody knows: refused for what it is at the limit, and for its size beyond it."""
    async with running(config_for(bench.folder)) as one:
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(one.addresses.grpc, options=options) as own:
            append = own.unary_unary("/flyball.v1.AppendService/Append", _as_is, _as_is)
            return await heard(append(bytes(bench.limit))), await heard(append(bytes(bench.limit + 1)))


@dataclass(slots=True)
class Slow:
    """A service whose calls last until they are let go."""

    lets: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve."""

        async def wait(_: bytes, __: object) -> bytes:
            self.begun += 1
            await self.lets.wait()
            return b""

        handler = grpc.unary_unary_rpc_method_handler(cast("Any", wait), _as_is, _as_is)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("slow", {"Wait": handler}),))

    async def until(self, begun: int) -> None:
        """Wait until so many calls have begun, or for a while."""
        for _ in range(100):
            if self.begun >= begun:
                return
            await asyncio.sleep(0.01)


@beyond("server-calls")
async def server_calls(bench: Bench) -> Answers:
    """Of a server with a smaller bound, for so many calls are more than a test should make."""
    slow = Slow()
    assert bench.limit == channels.MAX_CALLS
    with patch.object(channels, "MAX_CALLS", 3):
        server, port = await grpc_server("127.0.0.1:0", None, slow.add_to)
    own = channel(f"127.0.0.1:{port}", None)
    try:
        ask = own.unary_unary("/slow/Wait", _as_is, _as_is)
        calls = [asyncio.ensure_future(heard(ask(b""))) for _ in range(3)]
        await slow.until(3)
        more = await heard(ask(b""))
        slow.lets.set()
        return " ".join(await asyncio.gather(*calls)), more
    finally:
        await own.close(None)
        await server.stop(None)


@beyond("connection-calls")
async def connection_calls(bench: Bench) -> Answers:
    """Of one connection: the last begins once another has ended."""
    slow = Slow()
    server, port = await grpc_server("127.0.0.1:0", None, slow.add_to)
    own = channel(f"127.0.0.1:{port}", None)
    try:
        ask = own.unary_unary("/slow/Wait", _as_is, _as_is)
        calls = [asyncio.ensure_future(heard(ask(b""))) for _ in range(bench.limit)]
        await slow.until(bench.limit)
        at = "" if slow.begun == bench.limit else "waits"
        calls.append(asyncio.ensure_future(heard(ask(b""))))
        await asyncio.sleep(0.2)
        more = "waits" if slow.begun == bench.limit else ""
        slow.lets.set()
        assert {""} == set(await asyncio.gather(*calls))
        return at, more
    finally:
        await own.close(None)
        await server.stop(None)


async def pages(first: int, later: int, now_s: Callable[[], float], move: Callable[[], None]) -> list[int]:
    """The statuses of so many pages of metrics, then of so many after time has moved."""
    async with AsyncExitStack() as closing:
        http = await serve_http("127.0.0.1:0", CollectorRegistry(), Health(), clock=now_s)
        closing.push_async_callback(http.close)
        session = await closing.enter_async_context(aiohttp.ClientSession())

        async def page() -> int:
            async with session.get(f"http://127.0.0.1:{http.port}/metrics") as answer:
                return answer.status

        found = [await page() for _ in range(first)]
        move()
        return found + [await page() for _ in range(later)]


@beyond("metrics-pages")
async def metrics_pages(bench: Bench) -> Answers:
    """While time stands still."""
    found = await pages(bench.limit + 1, 0, lambda: 0.0, lambda: None)
    return str(set(found[:-1])), str(found[-1])


@beyond("metrics-pages-rate")
async def metrics_pages_rate(bench: Bench) -> Answers:
    """In the second after that."""
    now = [0.0]
    found = await pages(200, bench.limit + 1, lambda: now[0], lambda: now.append(now.pop() + 1.0))
    return str(set(found[:-1])), str(found[-1])


@beyond("metrics-pools")
def metrics_pools(bench: Bench) -> Answers:
    """That answer."""
    registry = CollectorRegistry()
    measures = Measures(registry, lambda: NOTHING)

    def page(pools: int) -> str:
        for number in range(pools):
            ack = SimpleNamespace(pool=f"p{number}", status=AckStatus.APPLIED)
            measures.acked(cast("Ack", ack))
        return generate_latest(registry).decode()

    return page(bench.limit), page(bench.limit + 1)


@beyond("refusal-words")
async def refusal_words(bench: Bench) -> Answers:
    """Of a refusal that quotes at length."""

    async def told(words: int) -> str:
        try:
            async with refusing(cast("Any", Context())):
                raise Refusal(grpc.StatusCode.NOT_FOUND, "r", "x" * words)
        except Refusal as refusal:
            return "cut short" if len(str(refusal)) < words else ""

    return await told(bench.limit), await told(bench.limit + 1)


FORBIDDEN = Refusal(grpc.StatusCode.PERMISSION_DENIED, "role", "no")


def lines(first: int, later: int) -> list[dict[str, Any]]:
    """What the log holds of so many refused callers, of so many a second later, and of one more much later."""
    now, reasons = [0.0], list[str]()
    refusals = RefusalLog(reasons.append, lambda: now[0])
    with structlog.testing.capture_logs() as told:
        for moment, count in ((0.0, first), (1.0, later), (1000.0, 1)):
            now[0] = moment
            for _ in range(count):
                refusals.refused(cast("Any", Context()), FORBIDDEN)
    assert len(reasons) == first + later + 1
    return [dict(line) for line in told]


@beyond("refused-callers")
def refused_callers(bench: Bench) -> Answers:
    """At once."""
    return str(lines(bench.limit, 0)[-1]), str(lines(bench.limit + 1, 0)[-1])


@beyond("refused-callers-rate")
def refused_callers_rate(bench: Bench) -> Answers:
    """In the second after that."""
    return str(lines(100, bench.limit)[-1]), str(lines(100, bench.limit + 1)[-1])


@beyond("peers")
async def peers(bench: Bench) -> Answers:
    """That have each made a call; then the first makes another."""

    async def counted(connections: int) -> str:
        keeper = Doorkeeper(None, RefusalLog(lambda _: None))
        handler: Any = grpc.unary_unary_rpc_method_handler(cast("Any", _nothing))
        details = cast("Any", SimpleNamespace(method="/flyball.v1.AppendService/Append"))
        behind = await keeper.intercept_service(lambda _: _given(handler), details)
        assert behind is not None
        for number in (*range(connections), 0):
            await cast("Any", behind.unary_unary)(b"", Context(f"ipv4:{number}"))
        return "counted again" if keeper.connections > connections else ""

    return await counted(bench.limit), await counted(bench.limit + 1)


async def _nothing(_: object, __: object) -> bytes:
    return b""


async def _given(handler: Any) -> Any:
    return handler
