"""What agents and receivers take in and keep, at each limit and one beyond it."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import aiohttp
from aiohttp import web

from flyball_agents.attaching import Attacher, AttachLimits, Place, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import GatewayReading, LanePlace, TableDefaults, TableSurface
from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.gateway_page import GatewayReader
from flyball_agents.node.pages import PageParser
from flyball_agents.node.scraping import PageLimits, fetch_page
from flyball_agents.offers import Offer, Target, unfit
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.segments import encode
from flyball_agents.shipper import Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits
from flyball_cli.bench_fleet import KNOBS
from flyball_cli.bench_sockets import ScriptedControls
from flyball_core.errors import Retryable
from flyball_core.fencing import Version
from flyball_core.ids import BootId, Incarnation, LogId, PoolId
from flyball_core.inputs import AckStatus, TargetKind
from flyball_core.knobs import BATCH_CAP, KnobClass, KnobKind, KnobSpec, Value
from flyball_service.config import ScrapedEngine, ScrapedGateway
from limit_table import Answers, Bench, beyond, heard, said

BOOT, CHAT = BootId("b0"), PoolId("chat")


async def scraped(size: int) -> str:
    """What an agent says to a page of this size."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    app = web.Application()
    app.router.add_get("/metrics", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            port = runner.addresses[0][1]
            return await heard(fetch_page(session, f"http://127.0.0.1:{port}/metrics", PageLimits(timeout_s=10.0)))
    finally:
        await runner.cleanup()


@beyond("page-scraped-bytes")
async def page_scraped(bench: Bench) -> Answers:
    """As an engine serves it."""
    return await scraped(bench.limit), await scraped(bench.limit + 1)


@beyond("page-lines")
def page_lines(bench: Bench) -> Answers:
    """That are looked for."""

    def page(lines: int) -> bytes:
        return b"".join(b'm{l="%d"} 1\n' % number for number in range(lines))

    at, more = page(bench.limit), page(bench.limit + 1)
    return said(lambda: PageParser(["m"]).samples(at)), said(lambda: PageParser(["m"]).samples(more))


@beyond("page-line-bytes")
def page_line_bytes(bench: Bench) -> Answers:
    """Of one line with a long label."""

    def page(size: int) -> bytes:
        return b'm{l="' + b"x" * (size - len('m{l=""} 1')) + b'"} 1\n'

    at, more = page(bench.limit), page(bench.limit + 1)
    return said(lambda: PageParser(["m"]).samples(at)), said(lambda: PageParser(["m"]).samples(more))


@beyond("page-ranks")
def page_ranks(bench: Bench) -> Answers:
    """Of a vLLM page."""
    target = ScrapedEngine(engine="e0", pool="chat", metrics="http://127.0.0.1/metrics")

    def read(ranks: int) -> str:
        page = "".join(f'vllm:num_requests_running{{engine="{rank}"}} 1.0\n' for rank in range(ranks))
        return said(lambda: EngineReader(target, BOOT).read(page.encode(), 0.0))

    return read(bench.limit), read(bench.limit + 1)


def _lanes(*names: str) -> str:
    target = ScrapedGateway(gateway="g0", pool="chat", metrics="http://127.0.0.1/metrics")
    page = "".join(f'flyball_gateway_requests_queued{{lane="{name}"}} 1.0\n' for name in names)
    return said(lambda: GatewayReader(target, BOOT).read(page.encode(), 0.0))


@beyond("page-lanes")
def page_lanes(bench: Bench) -> Answers:
    """Of a gateway's page."""
    names = [f"l{number}" for number in range(bench.limit + 1)]
    return _lanes(*names[1:]), _lanes(*names)


@beyond("page-names")
def page_names(bench: Bench) -> Answers:
    """Of one lane."""
    return _lanes("x" * bench.limit), _lanes("x" * (bench.limit + 1))


class Kept(NamedTuple):
    """A spool, and the frames that it is given."""

    spool: Spool

    def add(self, seq: int, payload: bytes, *, now_s: float = 0.0, live: bytes | None = None) -> None:
        """One frame, sampled at that time."""
        self.spool.append(boot=BOOT, pool=CHAT, seq=seq, now_s=now_s, wall_s=now_s, payload=payload, live=live)

    @property
    def dropped(self) -> str:
        """Why any was dropped."""
        return " ".join(self.spool.accounting.dropped)


HEAD = len(encode(BOOT, CHAT, 0, 0.0, 0.0, b""))


@beyond("spool-bytes")
def spool_bytes(bench: Bench) -> Answers:
    """A spool that is full to the last byte, and then takes one frame more."""
    kept, each = Kept(Spool(bench.folder)), SpoolLimits().segment_bytes
    for seq in range(bench.limit // each):
        kept.add(seq, bytes(each - HEAD))
    at = kept.dropped
    assert bench.limit == kept.spool.bytes_on_disk
    kept.add(10**6, b"")
    more = kept.dropped
    kept.spool.close()
    return at, more


@beyond("spool-seconds")
def spool_seconds(bench: Bench) -> Answers:
    """By the clock of one boot."""
    kept = Kept(Spool(bench.folder))
    kept.add(0, b"frame")
    kept.spool.expire(BOOT, float(bench.limit), float(bench.limit))
    at = kept.dropped
    kept.spool.expire(BOOT, float(bench.limit + 1), float(bench.limit + 1))
    more = kept.dropped
    kept.spool.close()
    return at, more


@beyond("spool-record-bytes")
def spool_record(bench: Bench) -> Answers:
    """With its head."""
    kept = Kept(Spool(bench.folder))
    kept.add(0, bytes(bench.limit - HEAD))
    at = kept.dropped
    kept.add(1, bytes(bench.limit - HEAD + 1))
    more = kept.dropped
    kept.spool.close()
    return at, more


def _shipped(folder: Path, frames: int, size: int) -> int:
    """How many of so many live frames go in one append."""
    kept = Kept(Spool(folder))
    shipper = Shipper(kept.spool, random.Random(1))
    for seq in range(frames):
        payload = bytes(size)
        ticket = kept.spool.append(boot=BOOT, pool=CHAT, seq=seq, now_s=0.0, wall_s=0.0, payload=payload, live=payload)
        shipper.add(ticket)
    batch = shipper.next_batch(0.0)
    kept.spool.close()
    return 0 if batch is None else len(batch.shipments)


@beyond("ship-frames")
def ship_frames(bench: Bench) -> Answers:
    """Of small frames."""
    at, more = (_shipped(bench.folder / str(one), bench.limit + one, 10) for one in (0, 1))
    return "next" if at < bench.limit else "", "next" if more == bench.limit else ""


@beyond("ship-bytes")
def ship_bytes(bench: Bench) -> Answers:
    """Of four frames: as long as there is a byte of room another goes along."""
    each = bench.limit // 4
    at, more = (_shipped(bench.folder / str(size), 5, size) for size in (each - 1, each))
    return "next" if at < 5 else "", "next" if more < 5 else ""


@beyond("ship-backlog-rate")
def ship_backlog(bench: Bench) -> Answers:
    """In the second after one in which as many went."""

    def left(frames: int) -> str:
        kept = Kept(Spool(bench.folder / str(frames)))
        shipper = Shipper(kept.spool, random.Random(1), ShipperLimits())
        for seq in range(bench.limit + frames):
            kept.add(seq, b"frame")
        shipper.next_batch(0.0)  # a bucket begins empty
        for now_s in (1.0, 2.0):
            batch = shipper.next_batch(now_s)
            assert batch is not None
            shipper.sent(batch)
        waiting = kept.spool.waiting
        kept.spool.close()
        return "later" if waiting else ""

    return left(bench.limit), left(bench.limit + 1)


TEXT = KnobSpec(name="text", knob_class=KnobClass.LIVE, kind=KnobKind.CHOICE, safe="a", choices=("a",))
NUMBER = KnobSpec(name="number", knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=0)


@beyond("text-value")
def text_value(bench: Bench) -> Answers:
    """For a choice; at the limit it is refused for being none of those."""
    return str(unfit(TEXT, "x" * bench.limit)), str(unfit(TEXT, "x" * (bench.limit + 1)))


@beyond("number-value")
def number_value(bench: Bench) -> Answers:
    """For a number without bounds of its own."""
    return str(unfit(NUMBER, bench.limit)), str(unfit(NUMBER, bench.limit + 1))


def receiver(folder: Path) -> Receiver:
    """A receiver of a scripted engine."""
    values: dict[str, Value] = {spec.name: spec.safe for spec in KNOBS}
    target = Target(pool=CHAT, kind=TargetKind.ENGINE, name="e0", incarnation=Incarnation("i"))
    store = ReceiverStore(folder, durable=False)
    surface = SettingsSurface(ScriptedControls(values))
    return Receiver(target, surface, store, ReceiverLimits(), seed=1, now_s=0.0, wall_s=0.0)


def offer(revision: int, values: dict[str, Value]) -> Offer:
    """What a controller tells it."""
    version = Version(log_id=LogId("log"), partition=0, epoch=1, revision=revision)
    return Offer(pool=CHAT, target="e0", version=version, values=values)


@beyond("nack-reason")
def nack_reason(bench: Bench) -> Answers:
    """Of values that cannot be read, for a reason told at length."""
    one = receiver(bench.folder)
    begins = "cannot be read: "

    def nack(revision: int, words: int) -> str:
        wrong = Offer(
            pool=CHAT,
            target="e0",
            version=offer(revision, {}).version,
            values={},
            unreadable="x" * (words - len(begins)),
        )
        ack = one.offer(wrong, now_s=0.0, wall_s=0.0)
        assert ack.status is AckStatus.NACK
        return "" if len(ack.reason) == words else "cut short"

    return nack(1, bench.limit), nack(2, bench.limit + 1)


@beyond("receiver-audit-bytes")
def receiver_audit(bench: Bench) -> Answers:
    """With what was there before; at the limit a new file is begun, and with the next what was before is gone."""
    one = receiver(bench.folder)
    audit, before = bench.folder / "audit.jsonl", bench.folder / "audit.jsonl.1"
    audit.write_bytes(b"x" * (bench.limit - 1))
    one.offer(offer(1, {BATCH_CAP: 60}), now_s=0.0, wall_s=0.0)
    at = "removed" if before.exists() else ""
    before.write_bytes(b"older")
    audit.write_bytes(b"x" * bench.limit)
    one.offer(offer(2, {BATCH_CAP: 61}), now_s=0.0, wall_s=0.0)
    return at, "removed" if before.read_bytes() != b"older" else ""


class Table:
    """`GatewayControls` of nothing."""

    def read(self) -> GatewayReading:
        """An engine and a lane."""
        return GatewayReading({"e0": 100}, {"e0": 0}, {"realtime": LanePlace(0, 60.0)})

    def set_weight(self, engine: str, weight: int) -> None:
        """Nothing."""

    def set_cap(self, engine: str, cap: int) -> None:
        """Nothing."""

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Nothing."""


@beyond("table-name")
def table_name(bench: Bench) -> Answers:
    """Of an engine that the gateway does not know yet."""
    surface = TableSurface(Table(), TableDefaults())
    target = Target(pool=CHAT, kind=TargetKind.GATEWAY, name="e0", incarnation=Incarnation("i"))
    store = ReceiverStore(bench.folder, durable=False)
    one = Receiver(target, surface, store, ReceiverLimits(), seed=1, now_s=0.0, wall_s=0.0)

    def told(revision: int, length: int) -> str:
        return one.offer(offer(revision, {f"weight:{'x' * length}": 1}), now_s=0.0, wall_s=0.0).reason

    return told(1, bench.limit), told(2, bench.limit + 1)


@beyond("places")
async def places(bench: Bench) -> Answers:
    """That a name resolves to, none of which answers: which are tried before it is looked up anew."""

    async def tried(count: int, folder: Path) -> str:
        looked_up, opened = 0, set[str]()

        async def look_up(_: str) -> Sequence[Place]:
            nonlocal looked_up
            looked_up += 1
            return [Place(f"127.0.0.1:{port}", "h") for port in range(1, count + 1)]

        class Nowhere:
            def __call__(self, place: Place) -> NoReturn:
                if looked_up == 1:
                    opened.add(place.address)
                raise Retryable("nobody is there")

            def check(self, address: str) -> None:
                """Any will do."""

        around = Surroundings(rng=random.Random(1), look_up=look_up, tell=lambda *_, **__: None)
        limits = AttachLimits(first_pause_s=0.0, most_pause_s=0.0)
        attacher = Attacher(receiver(folder), ["h:1"], Nowhere(), around, limits)
        stop = asyncio.Event()
        running = asyncio.create_task(attacher.run(stop))
        async with asyncio.timeout(10.0):
            while looked_up < 2:
                await asyncio.sleep(0)
        stop.set()
        await running
        return "left out" if len(opened) < count else ""

    return await tried(bench.limit, bench.folder / "a"), await tried(bench.limit + 1, bench.folder / "b")
