"""The small gateway: `SmallGateway` to embed, and `run_gateway_service`, which a configuration file describes.

It serves from the moment it listens, whether engines, log or controllers are there or not: an
engine that is down is probed, a controller that is away is sought, and requests wait as their lane allows.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import aiohttp
import structlog
from aiohttp import web

from flyball_agents.attach_metrics import AttachMetrics
from flyball_agents.attach_stream import grpc_streams
from flyball_agents.gateway.admission import Admission, Waiter
from flyball_agents.gateway.balancing import Balancer
from flyball_agents.gateway.forwarding import ForwardLimits, Proxy
from flyball_agents.gateway.governed import govern
from flyball_agents.gateway.metrics import GatewayMetrics
from flyball_agents.gateway.probing import ProbeLimits, Probing
from flyball_agents.offers import Target
from flyball_core.addresses import split_address
from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, Incarnation, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.outputs import LaneRule
from flyball_service.certificate_measures import CertificateMeasures, expiries_of
from flyball_service.config import Config, GatewayConfig
from flyball_service.exposing import new_registry, serve_http
from flyball_service.health import Health
from flyball_service.running import own_name
from flyball_service.tls import Tls

log = structlog.get_logger()

_BEAT_S = 1.0
_ALIVE_WITHIN_S = 10.0
_CLOSE_S = 5.0
_IDLE_S = 3.0  # less than the 5 s after which uvicorn closes an idle connection under a request
_ENGINES = "engines"


class RoutedTo(NamedTuple):
    """An engine and its base URL."""

    engine: EngineId
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """What the gateway puts up with."""

    most_queued: int = 1000
    """Requests that may wait at any time."""
    forward: ForwardLimits = field(default_factory=ForwardLimits)
    probe: ProbeLimits = field(default_factory=ProbeLimits)


class SmallGateway:
    """A reverse proxy before one pool; open it in a running loop, close it in the same.

    Raises `Rejected` if there is no engine or no lane, or one of them is there twice or wrong.
    """

    def __init__(
        self, engines: Sequence[RoutedTo], lanes: Sequence[LaneRule], limits: GatewayLimits | None = None
    ) -> None:
        _once("engine", [routed.engine for routed in engines])
        _once("lane", [rule.lane for rule in lanes])
        for routed in engines:
            if not routed.url.startswith(("http://", "https://")):
                raise Rejected(f"the URL of {routed.engine} begins with http:// or https://, not {routed.url!r}")
        self._limits = limits or GatewayLimits()
        balancer = Balancer[Waiter]([routed.engine for routed in engines], lanes)
        self.admission = Admission(balancer, time.monotonic, self._limits.most_queued)
        self._routed = tuple(engines)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._probes: list[asyncio.Task[None]] = []
        self.port = 0

    async def open(self, address: str) -> Proxy:
        """Listen on HOST:PORT and probe the engines; the port is in `port`. Raises `Fatal` if it cannot listen."""
        host, port = split_address(address)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        probing = {
            routed.engine: Probing(
                routed.engine, routed.url.rstrip("/"), self.admission, self._session, self._limits.probe
            )
            for routed in self._routed
        }
        proxy = Proxy(self.admission, probing, self._session, random.Random(), self._limits.forward)
        # The body's bounds are the proxy's own, which refuses before it reads.
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=_CLOSE_S
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.close()
            raise Fatal(f"cannot listen on {address}: {error.strerror or error}") from error
        self.port = int(self._runner.addresses[0][1])
        self._probes = [asyncio.create_task(one.run()) for one in probing.values()]
        return proxy

    @property
    def up(self) -> int:
        """How many engines answer, as far as is known."""
        balancer = self.admission.balancer
        return sum(balancer.is_up(engine) for engine in balancer.engines)

    async def close(self) -> None:
        """Stop listening and end what is under way; ends within seconds."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()


class GatewayAddresses(NamedTuple):
    """Where a gateway can be reached."""

    requests: int
    """Port for clients' requests."""
    http: int
    """Port of `/metrics`, `/live` and `/ready`."""


async def run_gateway_service(
    config: Config, stop: asyncio.Event, *, started: Callable[[GatewayAddresses], None] | None = None
) -> None:
    """Serve as the section `gateway` says, until `stop` is set.

    Raises `Rejected` or `Fatal` for what is wrong with the configuration; a peer's absence is waited out.
    """
    section = config.gateway
    if section is None:
        raise Rejected(f"{config.file}: there is no section `gateway`")
    target = Target(
        pool=PoolId(section.pool),
        kind=TargetKind.GATEWAY,
        name=own_name(section.name),
        incarnation=Incarnation(uuid.uuid4().hex),
    )
    tls = None if config.tls is None else Tls(config.tls, role="gateway", name=target.name)
    gateway = _of(section)
    governed = await govern(
        target,
        gateway.admission,
        config.state / "gateway" / target.name,
        section.controllers,
        grpc_streams(tls),
        tell=_tell,
    )
    health, registry = Health(), new_registry()
    try:
        proxy = await gateway.open(section.listen)
        registry.register(GatewayMetrics(target, gateway.admission, proxy.counts))
        registry.register(AttachMetrics([governed.attacher]))
        registry.register(CertificateMeasures("gateway", expiries_of(config, tls)))
        http = await serve_http(section.http, registry, health)
        try:
            log.info("gateway_serves", gateway=target.name, pool=target.pool, port=gateway.port)
            if started is not None:
                started(GatewayAddresses(gateway.port, http.port))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(governed.run(stop))
                tasks.create_task(_watch(gateway, health, stop))
        finally:
            await http.close()
    finally:
        await gateway.close()
        governed.close()


async def _watch(gateway: SmallGateway, health: Health, stop: asyncio.Event) -> None:
    while not stop.is_set():
        health.beat("serving", time.monotonic(), _ALIVE_WITHIN_S)
        if gateway.up:
            health.has(_ENGINES)
        else:
            health.waits_for(_ENGINES, "none of them answers")
        try:
            async with asyncio.timeout(_BEAT_S):
                await stop.wait()
        except TimeoutError:
            pass


def _of(section: GatewayConfig) -> SmallGateway:
    engines = [RoutedTo(EngineId(routed.engine), routed.url) for routed in section.engines]
    lanes = [LaneRule(lane=one.lane, priority=one.priority, max_wait_s=one.max_wait_s) for one in section.lanes]
    return SmallGateway(engines, lanes)


def _tell(event: str, **fields: object) -> None:
    log.info(event, **fields)


def _once(what: str, names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise Rejected(f"{what} {', '.join(sorted(twice))} is there more than once")
