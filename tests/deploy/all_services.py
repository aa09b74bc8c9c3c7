"""All services in one process, over real sockets: a controller, an agent, a gateway and two small engines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyball_agents.gateway.serving import run_gateway_service
from flyball_agents.node.service import run_agent_service
from flyball_controller.serving.service import run_controller
from flyball_service.config import (
    AgentConfig,
    Config,
    ControllerConfig,
    GatewayConfig,
    GpuSource,
    RoutedEngine,
    ScrapedEngine,
    ScrapedGateway,
    TwinConfig,
    TwinEngineConfig,
)
from flyball_twin.serving.service import run_twin

_ANY = "127.0.0.1:0"
_START_S = 30.0
_STOP_S = 30.0
POLICY = "version: 1\nmode: advise\npools: [chat]\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Where each service serves `/metrics`, as HOST:PORT by name, and where the gateway takes requests."""

    pages: dict[str, str]
    requests: str


class _Starting:
    """Services that were started, to be ended together."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self, run: Callable[..., Awaitable[None]], config: Config) -> Any:
        """Start one service; what it says of its addresses. Raises what it ends with if it ends first."""
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            await run(config, self.stop, started=told.set_result)

        task = asyncio.create_task(serve())
        self.tasks.append(task)
        await asyncio.wait([told, task], timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            await asyncio.wait_for(task, 1.0)  # raises why it ended
            raise AssertionError(f"{run} did not start")
        return told.result()

    async def end(self) -> None:
        """End them all in good order."""
        self.stop.set()
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(*self.tasks)


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """The running fleet; its log and state lie in `folder`."""
    policy = folder / "policy-chat.yaml"
    policy.write_text(POLICY)
    names = ("chat-0", "chat-1")
    base = Config(file=folder / "flyball.yaml", log=str(folder / "log"), state=folder / "state")
    services = _Starting()
    try:
        own = ControllerConfig(name="controller-0", listen=_ANY, http=_ANY, policies={"chat": policy})
        controller = await services.start(run_controller, replace(base, controller=own))
        doors = (controller.grpc,)
        engines = tuple(TwinEngineConfig(engine=name, listen=_ANY) for name in names)
        twin = await services.start(
            run_twin, replace(base, twin=TwinConfig(pool="chat", controllers=doors, engines=engines))
        )
        routed = tuple(RoutedEngine(engine=name, url=f"http://{twin.engines[name]}") for name in names)
        front = GatewayConfig(pool="chat", name="gateway-0", listen=_ANY, http=_ANY, controllers=doors, engines=routed)
        gateway = await services.start(run_gateway_service, replace(base, gateway=front))
        scraped = tuple(
            ScrapedEngine(engine=name, pool="chat", metrics=f"http://{twin.engines[name]}/metrics") for name in names
        )
        page = f"127.0.0.1:{gateway.http}"
        watched = (ScrapedGateway(gateway="gateway-0", pool="chat", metrics=f"http://{page}/metrics"),)
        node = AgentConfig(
            name="agent-0", http=_ANY, gpus=GpuSource.NONE, controllers=doors, engines=scraped, gateways=watched
        )
        agent = await services.start(run_agent_service, replace(base, agent=node))
        pages = {"controller": controller.http, "agent": f"127.0.0.1:{agent.http}", "gateway": page}
        yield Fleet(pages=pages | dict(twin.engines), requests=f"127.0.0.1:{gateway.requests}")
    finally:
        await services.end()
