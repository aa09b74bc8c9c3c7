"""Engines with an OpenAI-like door that do as a test says, and a small gateway before them, on real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from flyball_agents.gateway.forwarding import ForwardLimits, Proxy
from flyball_agents.gateway.probing import ProbeLimits
from flyball_agents.gateway.serving import GatewayLimits, RoutedTo, SmallGateway
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule

LANES = (LaneRule(lane="realtime", priority=0, max_wait_s=5.0), LaneRule(lane="bulk", priority=10, max_wait_s=5.0))
LIMITS = GatewayLimits(
    forward=ForwardLimits(body_bytes=1 << 20, connect_s=1.0),
    probe=ProbeLimits(period_s=0.1, timeout_s=0.5),
)


@dataclass(slots=True)
class SmallEngine:
    """An engine's door. `gate` holds answers back between their first and second piece; `dies` breaks them off."""

    name: str
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    aborted: int = 0
    dies_before: bool = False
    dies_within: bool = False
    health: int = 200
    port: int = 0
    runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/health", self._healthy)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", port).start()
        self.port = int(self.runner.addresses[0][1])

    async def stop(self) -> None:
        """Be gone."""
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(request.path_qs)
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        if self.dies_before and request.transport is not None:
            request.transport.abort()
            return web.Response()
        if request.path == "/v1/models":
            return web.json_response({"engine": self.name}, status=418)
        try:
            return await self._stream(request)
        except asyncio.CancelledError:
            self.aborted += 1
            raise

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        out = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Engine": self.name})
        if request.transport is None or request.transport.is_closing():
            raise asyncio.CancelledError  # as it would be a moment later
        await out.prepare(request)
        await out.write(f"data: {self.name}\n\n".encode())
        await self.gate.wait()
        if self.dies_within and request.transport is not None:
            request.transport.abort()
            return out
        await out.write(b"data: [DONE]\n\n")
        return out


@dataclass(slots=True)
class SmallPool:
    """Engines, the gateway before them, and a client."""

    engines: Sequence[SmallEngine]
    gateway: SmallGateway
    proxy: Proxy
    client: aiohttp.ClientSession

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.gateway.port}"

    def ask(self, lane: str = "", **body: Any) -> Any:
        """A chat request, to be used with `async with`."""
        headers = {"x-flyball-lane": lane} if lane else {}
        return self.client.post(f"{self.url}/v1/chat/completions", data=json.dumps(body), headers=headers)

    async def answered(self, lane: str = "") -> tuple[int, str]:
        """A request to its end: its status, and which engine answered it."""
        async with self.ask(lane) as answer:
            await answer.read()
            return answer.status, answer.headers.get("X-Engine", "")


@asynccontextmanager
async def small_pool(
    names: Sequence[str] = ("a", "b"), *, lanes: Sequence[LaneRule] = LANES, limits: GatewayLimits = LIMITS
) -> AsyncIterator[SmallPool]:
    """A pool that serves until the end of the block."""
    engines = [SmallEngine(name) for name in names]
    for engine in engines:
        await engine.start()
    routed = [RoutedTo(EngineId(one.name), f"http://127.0.0.1:{one.port}") for one in engines]
    gateway = SmallGateway(routed, lanes, limits)
    proxy = await gateway.open("127.0.0.1:0")
    async with aiohttp.ClientSession() as client:
        yield SmallPool(engines, gateway, proxy, client)
    await gateway.close()
    for engine in engines:
        engine.gate.set()
        await engine.stop()


def forwarding(**changes: Any) -> GatewayLimits:
    """The usual limits with others for forwarding."""
    return replace(LIMITS, forward=replace(LIMITS.forward, **changes))
