"""`flyball twin serve`: several small engines in one process, each with its doors, until told to stop.

Engines serve from the first moment, with or without a controller. One event loop carries all of them, so
what one engine is late, the others are too: a process is meant for a handful.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import structlog
from aiohttp import web

from flyball_agents.attach_metrics import AttachMetrics
from flyball_agents.attach_stream import grpc_streams
from flyball_core.addresses import split_address
from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_service.config import Config, TwinConfig, TwinEngineConfig
from flyball_service.tls import Tls
from flyball_twin.engine.engine import Engine
from flyball_twin.physics import ENGINE_MODEL
from flyball_twin.serving.alarm import LoopAlarm
from flyball_twin.serving.attachment import Attachment, Seat
from flyball_twin.serving.http_door import HttpDoor
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.page import EnginePage

CLOSE_S = 2.0
"""Longest wait for answers that are on their way when the process ends."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinAddresses:
    """Where the engines serve."""

    engines: Mapping[EngineId, str]
    """HOST:PORT of each engine's HTTP door, with the port that it has where 0 was asked for."""


async def run_twin(
    config: Config, stop: asyncio.Event, *, started: Callable[[TwinAddresses], None] | None = None
) -> None:
    """Serve the engines of the section `twin` until `stop` is set; `started` is told where, once all of them serve.

    Raises `Rejected` for a section that makes no sense, `Fatal` if an address cannot be listened on or
    certificates cannot be read.
    """
    twin = config.twin
    if twin is None:
        raise Rejected(f"{config.file} has no section `twin`")
    if not twin.engines:
        raise Rejected(f"the section `twin` of {config.file} names no engines")
    engines = [SmallEngine(config, twin, one) for one in twin.engines]
    async with AsyncExitStack() as open_doors:
        addresses: dict[EngineId, str] = {}
        for engine in engines:
            addresses[engine.id] = await engine.open()
            open_doors.push_async_callback(engine.close)
        if started is not None:
            started(TwinAddresses(engines=addresses))
        async with asyncio.TaskGroup() as tasks:
            for engine in engines:
                tasks.create_task(engine.attachment.run(stop))


class SmallEngine:
    """One engine with its HTTP door and its receiver. Raises `Rejected` if it cannot be as configured."""

    def __init__(self, config: Config, twin: TwinConfig, one: TwinEngineConfig) -> None:
        self.id = EngineId(one.engine)
        self._listen = one.listen
        self._alarm = LoopAlarm()
        model = replace(ENGINE_MODEL, cold_start_s=twin.relaunch_s)
        engine = Engine(self.id, model, one.variant, life=f"{time.time_ns():x}-{os.getpid():x}")
        engine.set_bandwidth_factor(one.speed)
        self.paced = PacedEngine(engine, self._alarm.clock, self._alarm.at, time.time, self._turned)
        tls = None if config.tls is None else Tls(config.tls, role="engine", name=one.engine)
        self.attachment = Attachment(
            self.paced,
            Seat(
                pool=PoolId(twin.pool),
                controllers=twin.controllers,
                folder=config.state / "receivers" / one.engine,
                open_stream=grpc_streams(tls),
            ),
        )
        page = EnginePage(self.paced, twin.model, lambda: AttachMetrics(self.attachment.attachers).collect())
        door = HttpDoor(self.paced, page, twin.model, time.time).application()
        door.on_shutdown.append(self._cut_off)
        self._runner = web.AppRunner(
            door, access_log=None, handle_signals=False, handler_cancellation=True, shutdown_timeout=CLOSE_S
        )

    async def open(self) -> str:
        """Serve; returns HOST:PORT. Raises `Fatal` if the address cannot be listened on."""
        host, port = split_address(self._listen)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise Fatal(f"{self.id} cannot listen on {self._listen}: {error.strerror or error}") from error
        address = f"{self._listen.rpartition(':')[0]}:{self._runner.addresses[0][1]}"
        log.info("engine_serving", engine=self.id, address=address, incarnation=self.paced.incarnation)
        return address

    async def close(self) -> None:
        """Stop serving; what still runs is told so, and cut off."""
        await self._runner.cleanup()
        self._alarm.stop()

    async def _cut_off(self, _: web.Application) -> None:
        self.paced.cut_off(f"{self.id} is shutting down")

    def _turned(self) -> None:
        if self.paced.ready:
            log.info("engine_relaunched", engine=self.id, incarnation=self.paced.incarnation)
        else:
            log.info("engine_relaunching", engine=self.id, lost_requests=self.paced.lost)
        self.attachment.turned()
