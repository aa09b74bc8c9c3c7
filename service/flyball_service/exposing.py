"""A service's small HTTP door: `/metrics` for Prometheus, `/live` and `/ready` for whoever starts and stops it.

Takes nothing in: whatever changes something goes through gRPC, where the caller is known. Serves only
the registry it is given, so that two services of one process keep their numbers apart.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from flyball_core.addresses import split_address
from flyball_core.errors import Fatal
from flyball_service.health import Health
from flyball_service.rates import Bucket

_CLOSE_S = 2.0
"""Longest wait for answers that are on their way when the door closes."""
PAGES_PER_S = 50.0
"""Pages of metrics a second, of all who ask."""
MAX_PAGES_AT_ONCE = 200
"""As above, after a rest."""
_NOT_NOW, _TOO_MANY = 503, 429
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_leave_created_out: Callable[[], None] = disable_created_metrics  # the client does not say its type


def new_registry() -> CollectorRegistry:
    """A registry that already tells of this process: memory, CPU, open files, garbage collection, Python's version."""
    # The client's setting is the process's. With it every counter and histogram would bring a second series for each
    # of its label sets, which tells only when this process first counted.
    _leave_created_out()
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServer:
    """An open door. Close it."""

    port: int
    """The port it listens on, also where port 0 was asked for."""
    runner: web.AppRunner
    """What serves it."""

    async def close(self) -> None:
        """Stop listening; ends within seconds."""
        await self.runner.cleanup()


async def serve_http(
    address: str,
    registry: CollectorRegistry,
    health: Health,
    *,
    routes: Sequence[web.AbstractRouteDef] = (),
    clock: Callable[[], float] = time.monotonic,
) -> HttpServer:
    """Serve `/metrics`, `/live`, `/ready` and `routes` at HOST:PORT.

    `clock` is the one that `health` is told times of. Raises `Rejected` for a malformed address, `Fatal` if
    it cannot be listened on.
    """
    pages = Bucket(per_s=PAGES_PER_S, at_once=MAX_PAGES_AT_ONCE)

    async def metrics(_: web.Request) -> web.Response:
        if not pages.take(1, clock()):  # each is made anew, on the loop that everything else runs on
            return web.Response(status=_TOO_MANY, text=f"more than {PAGES_PER_S:g} pages a second\n")
        return web.Response(body=generate_latest(registry), headers={"Content-Type": _TEXT})

    async def live(_: web.Request) -> web.Response:
        overdue = health.live(clock())
        return _answer(not overdue, {"live": not overdue, "overdue_s": overdue})

    async def ready(_: web.Request) -> web.Response:
        return _answer(health.ready, {"ready": health.ready, "waiting_for": dict(health.waiting)})

    host, port = split_address(address)
    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/live", live), web.get("/ready", ready), *routes])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise Fatal(f"cannot listen on {address}: {error.strerror or error}") from error
    return HttpServer(port=int(runner.addresses[0][1]), runner=runner)


def _answer(well: bool, said: Mapping[str, Any]) -> web.Response:  # noqa: FBT001 - the one thing it is about
    return web.json_response(said, status=200 if well else _NOT_NOW)
