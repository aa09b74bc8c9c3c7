"""The small gateway and the small engine, at each limit and one beyond it; on real sockets where bodies come in."""

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from functools import partial

import aiohttp
from aiohttp import web

from flyball_agents.gateway.admission import Admission, Waiter
from flyball_agents.gateway.balancing import Balancer
from flyball_agents.gateway.forwarding import ForwardLimits
from flyball_agents.gateway.lanes import lane_of
from flyball_agents.gateway.serving import GatewayLimits, RoutedTo, SmallGateway
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.engine.engine import Engine
from flyball_twin.physics import ENGINE_MODEL
from flyball_twin.serving.alarm import LoopAlarm
from flyball_twin.serving.http_door import HttpDoor
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.page import EnginePage
from limit_table import Answers, Bench, beyond, heard, said

LANES = (LaneRule(lane="realtime", priority=0, max_wait_s=5.0), LaneRule(lane="bulk", priority=10, max_wait_s=5.0))
E0 = EngineId("e0")


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """HOST:PORT of an application."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def gateway(limits: ForwardLimits, gate: asyncio.Event) -> AsyncIterator[str]:
    """The URL of a gateway before one engine, which answers once the gate is open."""

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        await gate.wait()
        return web.json_response({"bytes": len(body)})

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    async with listening(app) as engine:
        small = SmallGateway([RoutedTo(E0, f"http://{engine}")], LANES, GatewayLimits(forward=limits))
        await small.open("127.0.0.1:0")
        try:
            yield f"http://127.0.0.1:{small.port}/"
        finally:
            await small.close()


async def asked(session: aiohttp.ClientSession, url: str, body: bytes = b"") -> str:
    """What is answered to a request."""
    async with session.post(url, data=io.BytesIO(body)) as answer:
        return f"{answer.status} {await answer.text()}"


async def several(limits: ForwardLimits, bodies: list[bytes]) -> list[str]:
    """What is answered to requests that are all there at once, the last of them last."""
    gate = asyncio.Event()
    async with gateway(limits, gate) as url, aiohttp.ClientSession() as session:
        calls = [asyncio.create_task(asked(session, url, body)) for body in bodies[:-1]]
        await asyncio.sleep(0.2)
        calls.append(asyncio.create_task(asked(session, url, bodies[-1])))
        await asyncio.sleep(0.2)
        gate.set()
        return await asyncio.gather(*calls)


def _is_default(name: str, limit: int) -> bool:
    return limit == {one.name: one.default for one in fields(ForwardLimits)}[name]


@beyond("gateway-open")
async def gateway_open(bench: Bench) -> Answers:
    """Of a gateway with a smaller bound."""
    assert _is_default("most_open", bench.limit)
    told = await several(ForwardLimits(most_open=3), [b""] * 4)
    return " ".join(told[:-1]), told[-1]


@beyond("gateway-body-bytes")
async def gateway_body(bench: Bench) -> Answers:
    """One request at a time."""
    at, more = [(await several(ForwardLimits(), [bytes(bench.limit + one)]))[0] for one in (0, 1)]
    return at, more


@beyond("gateway-held-bytes")
async def gateway_held(bench: Bench) -> Answers:
    """Of a gateway with a smaller bound."""
    assert _is_default("held_bytes", bench.limit)
    limits = ForwardLimits(held_bytes=1_000)
    at, more = [await several(limits, [bytes(500), bytes(500 + one)]) for one in (0, 1)]
    return " ".join(at), more[-1]


@beyond("gateway-queued")
async def gateway_queued(bench: Bench) -> Answers:
    """Before one engine that has all it takes."""
    balancer = Balancer[Waiter]([E0], LANES)
    admission = Admission(balancer, time.monotonic, GatewayLimits().most_queued)
    admission.set_cap(E0, 1)
    await admission.enter("realtime")
    waiting = [asyncio.create_task(heard(admission.enter("realtime"))) for _ in range(bench.limit)]
    await asyncio.sleep(0)
    at = "" if balancer.queued == bench.limit else "queue_full"
    more = await heard(admission.enter("realtime"))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return at, "queue_full" if "QueueFull" in more else more


@beyond("gateway-tier-bytes")
def gateway_tier(bench: Bench) -> Answers:
    """A tier that ends with the last byte that is looked at, or just after it."""

    def lane(size: int) -> str:
        head, tail = b'{"a": "', b'", "service_tier": "flex"'
        body = head + b"x" * (size - len(head) - len(tail)) + tail
        return "first lane" if lane_of(None, body + b"}", LANES) == "realtime" else ""

    return lane(bench.limit), lane(bench.limit + 1)


def _balancer() -> Balancer[Waiter]:
    return Balancer[Waiter]([E0], LANES)


@beyond("gateway-weight")
def gateway_weight(bench: Bench) -> Answers:
    """Of an engine."""
    at, more = (said(partial(_balancer().set_weight, E0, bench.limit + one)) for one in (0, 1))
    return at, more


@beyond("gateway-cap")
def gateway_cap(bench: Bench) -> Answers:
    """Of an engine."""
    at, more = (said(partial(_balancer().set_cap, E0, bench.limit + one)) for one in (0, 1))
    return at, more


@beyond("gateway-priority")
def gateway_priority(bench: Bench) -> Answers:
    """Of a lane, to either side."""
    told = [
        said(partial(_balancer().set_lane, "bulk", value, 1.0))
        for one in (0, 1)
        for value in (bench.limit + one, -bench.limit - one)
    ]
    return " ".join(told[:2]), told[2] if told[3] else ""


@beyond("gateway-wait")
def gateway_wait(bench: Bench) -> Answers:
    """Of a lane."""
    at, more = (said(partial(_balancer().set_lane, "bulk", 0, bench.limit + one)) for one in (0, 1))
    return at, more


@asynccontextmanager
async def engine() -> AsyncIterator[PacedEngine]:
    """A small engine at real time."""
    alarm = LoopAlarm()
    try:
        yield PacedEngine(Engine(E0, ENGINE_MODEL, "graphs"), alarm.clock, alarm.at, time.time)
    finally:
        alarm.stop()


@beyond("engine-body-bytes")
async def engine_body(bench: Bench) -> Answers:
    """Which is no JSON: at the limit it is refused for that."""
    async with engine() as paced, aiohttp.ClientSession() as session:
        door = HttpDoor(paced, EnginePage(paced, "m"), "m", time.time)
        async with listening(door.application()) as address:
            url = f"http://{address}/v1/completions"
            return await asked(session, url, bytes(bench.limit)), await asked(session, url, bytes(bench.limit + 1))


@beyond("engine-requests")
async def engine_requests(bench: Bench) -> Answers:
    """That all wait or run."""
    async with engine() as paced:
        told = [said(lambda: paced.submit(10, 10_000, "length")) for _ in range(bench.limit + 1)]
    return " ".join(told[:-1]), told[-1]
