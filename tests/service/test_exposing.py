"""The HTTP door, asked as Prometheus and as a kubelet ask."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from flyball_core.errors import Fatal, Rejected
from flyball_service.exposing import HttpServer, new_registry, serve_http
from flyball_service.health import Health


class Clock:
    """A clock that stands."""

    now_s = 100.0

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.now_s


@pytest.fixture
def health() -> Health:
    """The health of the service behind the door."""
    return Health()


@pytest.fixture
def clock() -> Clock:
    """The time."""
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    """The service's own numbers."""
    registry = CollectorRegistry()
    Counter("flyball_test_frames", "Frames taken.", registry=registry).inc(3)
    return registry


@pytest.fixture
async def door(health: Health, clock: Clock, registry: CollectorRegistry) -> AsyncIterator[HttpServer]:
    """An open door."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    door = await serve_http("127.0.0.1:0", registry, health, routes=[web.get("/hello", hello)], clock=clock)
    yield door
    await door.close()


async def get(door: HttpServer, path: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{door.port}{path}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def get_json(door: HttpServer, path: str) -> tuple[int, object]:
    """Status and document."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{door.port}{path}") as answer,
    ):
        return answer.status, await answer.json()


async def test_metrics_are_those_of_the_registry(door: HttpServer) -> None:
    """The page holds the given registry in Prometheus' text format, and nothing of the process's default one."""
    status, kind, text = await get(door, "/metrics")

    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "flyball_test_frames_total 3.0" in text
    assert "python_info" not in text


async def test_ready_names_what_is_waited_for(door: HttpServer, health: Health) -> None:
    """503 with what is missing and why; 200 when it is there."""
    health.waits_for("log", "no folder")
    assert await get_json(door, "/ready") == (503, {"ready": False, "waiting_for": {"log": "no folder"}})

    health.has("log")
    assert await get_json(door, "/ready") == (200, {"ready": True, "waiting_for": {}})


async def test_live_names_loops_that_are_overdue(door: HttpServer, health: Health, clock: Clock) -> None:
    """503 with the silent loop and by how much; waiting for a peer is no reason to be restarted."""
    health.waits_for("log", "no folder")
    health.beat("ticks", 100.0, 5.0)
    assert await get_json(door, "/live") == (200, {"live": True, "overdue_s": {}})

    clock.now_s = 107.0
    assert await get_json(door, "/live") == (503, {"live": False, "overdue_s": {"ticks": 2.0}})


async def test_a_service_adds_its_own_pages(door: HttpServer) -> None:
    """Further routes are served beside; what is not there is 404."""
    assert (await get(door, "/hello"))[::2] == (200, "hello")
    assert (await get(door, "/nothing"))[0] == 404


async def test_an_address_that_is_taken_is_said(door: HttpServer, health: Health) -> None:
    """A second door on the same address is `Fatal`, with the address."""
    with pytest.raises(Fatal, match=f"cannot listen on 127.0.0.1:{door.port}"):
        await serve_http(f"127.0.0.1:{door.port}", CollectorRegistry(), health)


async def test_a_malformed_address_is_refused(health: Health) -> None:
    """So is what is no address."""
    with pytest.raises(Rejected, match="HOST:PORT"):
        await serve_http("here", CollectorRegistry(), health)


async def test_a_closed_door_is_closed(health: Health) -> None:
    """After `close` nobody answers, and the address is free for the next."""
    door = await serve_http("127.0.0.1:0", CollectorRegistry(), health)
    await door.close()

    with pytest.raises(aiohttp.ClientConnectionError):
        await get(door, "/live")
    again = await serve_http(f"127.0.0.1:{door.port}", CollectorRegistry(), health)
    await again.close()


def test_no_series_tells_when_it_was_created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and histograms of a new registry have no second series that says since when they count."""
    monkeypatch.setattr("prometheus_client.metrics._use_created", True)  # as a process begins
    registry = new_registry()
    Counter("flyball_test_done", "Done.", ["what"], registry=registry).labels("this").inc()
    Histogram("flyball_test_seconds", "Time.", registry=registry).observe(1.0)

    page = generate_latest(registry).decode()

    assert "flyball_test_done_total" in page
    assert "flyball_test_seconds_bucket" in page
    assert "_created" not in page


async def test_a_new_registry_tells_of_the_process(health: Health) -> None:
    """Memory, CPU time, open files and collections of this process are there without more ado."""
    door = await serve_http("127.0.0.1:0", new_registry(), health)
    _, _, text = await get(door, "/metrics")
    await door.close()

    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "python_info"):
        assert f"\n{name}" in text
