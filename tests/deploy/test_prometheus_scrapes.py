"""Prometheus itself scrapes the services and finds nothing to say about their pages."""

import time
from itertools import count
from pathlib import Path

import aiohttp
import prometheus_client
import pytest
from aiohttp import web

from all_services import fleet
from flyball_service.exposing import new_registry, serve_http
from flyball_service.health import Health
from prometheus_scraper import Prometheus, pages_of

_STAMPED = "# HELP speed_ratio Speed.\n# TYPE speed_ratio gauge\nspeed_ratio 1 {stamp_ms}\n"


async def test_all_services_are_scraped_without_a_warning(prometheus: Prometheus, tmp_path: Path) -> None:
    """Prometheus takes the pages of controller, agent, gateway and engines, live; promtool has nothing to say of them.

    But for the colons in the names of an engine's page: they are vLLM's, and no agent would find others.
    """
    home = tmp_path / "prometheus"
    home.mkdir()
    async with fleet(tmp_path) as running:
        scraped = await prometheus.scrape(running.pages, home)
        pages = await pages_of(running.pages)
    said = {name: prometheus.promtool("check", "metrics", page=page)[1].splitlines() for name, page in pages.items()}
    of_vllm = {line for lines in said.values() for line in lines if line.startswith("vllm:") and "contain ':'" in line}

    assert {"agent", "chat-0", "chat-1", "controller", "gateway"} == set(scraped.targets)
    assert {} == {name: target.error for name, target in scraped.targets.items() if not target.up}
    assert [] == scraped.complaints
    assert {} == {name: rest for name, lines in said.items() if (rest := [one for one in lines if one not in of_vllm])}
    assert of_vllm.isdisjoint(said["controller"] + said["agent"] + said["gateway"])


async def test_a_page_of_a_service_is_scraped_without_a_warning(prometheus: Prometheus, tmp_path: Path) -> None:
    """The small HTTP door's own page, process metrics included, is one that Prometheus and promtool take."""
    registry = new_registry()
    prometheus_client.Counter("flyball_test_frames_total", "Frames seen.", registry=registry).inc()
    server = await serve_http("127.0.0.1:0", registry, Health())
    try:
        scraped = await prometheus.scrape({"door": f"127.0.0.1:{server.port}"}, tmp_path)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/metrics") as answer:
            page = await answer.text()
    finally:
        await server.close()

    assert scraped.targets["door"].up
    assert [] == scraped.complaints
    assert (0, "") == prometheus.promtool("check", "metrics", page=page)


async def test_a_page_with_a_fault_is_complained_of(prometheus: Prometheus, tmp_path: Path) -> None:
    """The judge can say no: a sample stamped older than the last is a warning in Prometheus' log."""
    stamps_ms = count(int(time.time() * 1000), -1000)

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_STAMPED.format(stamp_ms=next(stamps_ms)))

    app = web.Application()
    app.add_routes([web.get("/metrics", page)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        scraped = await prometheus.scrape({"stamped": f"127.0.0.1:{runner.addresses[0][1]}"}, tmp_path, scrapes=2)
    finally:
        await runner.cleanup()

    assert any("level=warn" in line for line in scraped.complaints), scraped.log


@pytest.mark.parametrize(
    "page",
    [
        "# TYPE requests counter\nrequests 1\n",
        "# HELP delay_milliseconds Delay.\n# TYPE delay_milliseconds gauge\ndelay_milliseconds 1\n",
    ],
    ids=["no help, no _total", "no base unit"],
)
def test_a_page_of_poor_taste_is_refused(prometheus: Prometheus, page: str) -> None:
    """The judge can say no: promtool finds what is not as Prometheus' conventions want it."""
    code, said = prometheus.promtool("check", "metrics", page=page)

    assert code != 0
    assert said
