"""A paced engine on a clock moved by hand, and one behind its HTTP door on a loopback port."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web

from flyball_core.ids import EngineId
from flyball_twin.engine.engine import Engine
from flyball_twin.physics import ENGINE_MODEL, EngineModel
from flyball_twin.serving.alarm import LoopAlarm
from flyball_twin.serving.http_door import HttpDoor
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.page import EnginePage

MODEL = "flyball-twin"


class HandClock:
    """A clock that a test moves, and the alarm that the engine has set on it."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.due_s = float("inf")
        self.ring: Callable[[], object] = lambda: None

    def clock(self) -> float:
        """The time."""
        return self.now_s

    def alarm(self, when_s: float, ring: Callable[[], object]) -> None:
        """Note when to ring, and whom to call."""
        self.due_s, self.ring = when_s, ring


def paced_engine(clock: HandClock, model: EngineModel = ENGINE_MODEL, variant: str = "graphs") -> PacedEngine:
    """A paced engine that lives by `clock`."""
    return PacedEngine(Engine(EngineId("e0"), model, variant), clock.clock, clock.alarm, lambda: 5e8 + clock.now_s)


def ring(clock: HandClock, until_s: float) -> None:
    """Let time pass up to `until_s`, ringing whenever it was asked for, always a little late."""
    while clock.due_s + 1e-4 <= until_s:
        clock.now_s = max(clock.now_s, clock.due_s + 1e-4)
        clock.ring()
    clock.now_s = until_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An engine that serves, and a client's session at its address."""

    paced: PacedEngine
    port: int
    session: aiohttp.ClientSession

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Status and document of an answer in one piece."""
        async with self.session.post(path, json=body) as answer:
            return answer.status, await answer.json()

    async def events(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The documents of a stream, held to the format of server-sent events and to its end."""
        async with self.session.post(path, json={**body, "stream": True}) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream"), await answer.text()
            parts = (await answer.text()).split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""]
        return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


@asynccontextmanager
async def served(*, cold_start_s: float = 0.05, model: EngineModel = ENGINE_MODEL) -> AsyncIterator[Served]:
    """One engine at real time behind its door."""
    alarm = LoopAlarm()
    engine = Engine(EngineId("e0"), replace(model, cold_start_s=cold_start_s), "graphs", life="t")
    paced = PacedEngine(engine, alarm.clock, alarm.at, time.time)
    door = HttpDoor(paced, EnginePage(paced, MODEL), MODEL, time.time)
    runner = web.AppRunner(door.application(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield Served(paced=paced, port=port, session=session)
    finally:
        await runner.cleanup()
        alarm.stop()
