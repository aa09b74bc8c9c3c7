"""What one node's agent costs: a process of its own, read from /proc while it does its work.

The agent reads 8 GPUs through the real pynvml over a driver that stands in, and the pages of 8 engines, of vLLM's
size and changing as engines work, and appends a frame a second to a running controller. What arrived is counted
in the controller's log, so that an agent that read nothing cannot look cheap.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from flyball_cli.processes import Process, Processes, free_port
from flyball_core.frames import BandwidthSource, Frame
from flyball_log import open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input
from flyball_twin.stand_ins.pages import VllmPage

POOL = "bench"
GPUS = 8
ENGINES = 8
MODEL = "meta-llama/Meta-Llama-3.1-8B-Instruct"
"""Stands on every line of a page, so it makes its size."""
REQUESTS_PER_SCRAPE = 5

_CONFIG = """\
log: log
state: state
tls: none
logs: {{level: warning, format: text}}
controller:
  name: bench
  listen: 127.0.0.1:{grpc}
  http: 127.0.0.1:{controller}
agent:
  name: node-0
  http: 127.0.0.1:{agent}
  controllers: ["127.0.0.1:{grpc}"]
  engines:
{engines}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCost:
    """One agent at 1 Hz over one stretch of time."""

    cpu_share: float
    """Of one core, threads included."""
    peak_rss_bytes: int
    """The most it held since it was started."""
    rss_bytes: int
    """What it held in the end."""
    page_bytes: int
    """Of one engine's page, in the end."""
    frames: int
    """Frames that the log took meanwhile."""
    gpu_samples: int
    """GPUs in them whose bandwidth was read."""
    engine_samples: int
    """Engines in them whose running requests were read."""


async def measure_agent(settle_s: float, measure_s: float, folder: Path) -> AgentCost:
    """Run an agent for both times and measure it over the second. Raises `Fatal` or `Retryable` if it cannot run."""
    grpc, controller, agent = free_port(), free_port(), free_port()
    pages = [VllmPage(model=MODEL, started_s=time.time()) for _ in range(ENGINES)]
    file = folder / "flyball.yaml"
    async with _served(pages) as port:
        entries = "\n".join(
            f"    - {{engine: engine-{number}, pool: {POOL}, gpus: [{number}], model: {MODEL}, "
            f'metrics: "http://127.0.0.1:{port}/{number}"}}'
            for number in range(ENGINES)
        )
        file.write_text(_CONFIG.format(grpc=grpc, controller=controller, agent=agent, engines=entries))
        with Processes(folder) as processes:
            its_controller = processes.start("controller", "controller", "--config", str(file))
            await its_controller.ready(f"127.0.0.1:{controller}")
            measured = processes.start("agent", str(file), str(GPUS), module="flyball_cli.bench_agent_process")
            await measured.ready(f"127.0.0.1:{agent}")
            await asyncio.sleep(settle_s)
            return await _measured(measured, measure_s, folder / "log", max(len(page.text()) for page in pages))


async def _measured(agent: Process, measure_s: float, log: Path, page_bytes: int) -> AgentCost:
    began_wall_s, began_s, used_s = time.time(), time.monotonic(), agent.cpu_s()
    await asyncio.sleep(measure_s)
    share = (agent.cpu_s() - used_s) / (time.monotonic() - began_s)
    rss_bytes, peak_rss_bytes = agent.rss_bytes(), agent.peak_rss_bytes()
    frames = await _frames(log, began_wall_s, time.time())
    return AgentCost(
        cpu_share=share,
        peak_rss_bytes=peak_rss_bytes,
        rss_bytes=rss_bytes,
        page_bytes=page_bytes,
        frames=len(frames),
        gpu_samples=sum(one.hbm_bandwidth_source is BandwidthSource.GPM for frame in frames for one in frame.gpus),
        engine_samples=sum(one.requests_running is not None for frame in frames for one in frame.engines),
    )


async def _frames(place: Path, began_s: float, ended_s: float) -> list[Frame]:
    """The frames in the log that were taken between two wall times."""
    log = await open_log(str(place), read_only=True)
    found = []
    try:
        partition = log.partition_of(POOL)
        at = (await log.bounds(Topic.INPUTS, partition)).begin
        while records := await log.read(Topic.INPUTS, partition, at):
            at = records[-1].offset + 1
            bodies = [decode_input(record.offset, record.value).body for record in records]
            found += [body for body in bodies if isinstance(body, Frame) and began_s <= body.wall_s < ended_s]
    finally:
        await log.close()
    return found


@asynccontextmanager
async def _served(pages: list[VllmPage]) -> AsyncIterator[int]:
    """The port at which each page is served at `/NUMBER`; its engine has worked a little since it was asked last."""

    async def page(request: web.Request) -> web.Response:
        asked = pages[int(request.match_info["number"])]
        asked.serve(REQUESTS_PER_SCRAPE)
        return web.Response(body=asked.text(), content_type="text/plain")

    app = web.Application()
    app.router.add_get(r"/{number:\d+}", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
