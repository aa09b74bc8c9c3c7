"""The agent as a service: it samples whatever is missing, says what it waits for, and loses nothing meanwhile."""

import asyncio
import errno
import re
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from append_stub import AppendStub, append_door
from flyball_agents.node.life import one_life
from flyball_agents.node.service import AgentAddresses, run_agent_service
from flyball_core.errors import Fatal, Rejected
from flyball_core.frames import Frame
from flyball_core.ids import UNASSIGNED
from flyball_log import Topic, open_log
from flyball_log.kafka import create_topics, settings_for
from flyball_proto.codec import decode_input
from flyball_service.config import AgentConfig, Config, GpuSource, ScrapedEngine
from flyball_twin.stand_ins.nvml import ERROR_CODES, StandInGpu, StandInNvml, installed
from flyball_twin.stand_ins.pages import MODEL, VllmPage
from served_pages import serving

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "agent.md"
PERIOD_S = 0.1
PATIENCE_S = 8.0


@pytest.fixture
def library() -> Iterator[StandInNvml]:
    """Two GPUs below pynvml."""
    fake = StandInNvml(StandInGpu(), StandInGpu(uuid=b"GPU-1"))
    with installed(fake):
        yield fake


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def engine_page() -> AsyncIterator[tuple[VllmPage, str]]:
    """A vLLM page that goes on serving, and its URL."""
    page = VllmPage()

    async def metrics(_: web.Request) -> web.Response:
        page.serve(1)
        return web.Response(body=page.text())

    async with serving(metrics) as url:
        yield page, url


def config_of(folder: Path, *controllers: str, log: str = "log", **changes: Any) -> Config:
    """An agent's configuration, without engines and GPUs unless told so."""
    section = AgentConfig(
        name="node-1", http="127.0.0.1:0", period_s=PERIOD_S, controllers=controllers, gpus=GpuSource.NONE
    )
    return Config(file=folder / "agent.yaml", log=log, state=folder / "state", agent=replace(section, **changes))


class Running:
    """An agent that runs, and what it says of itself."""

    def __init__(self, addresses: AgentAddresses, session: aiohttp.ClientSession) -> None:
        self._base = f"http://127.0.0.1:{addresses.http}"
        self._session = session

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its pages."""
        async with self._session.get(self._base + path) as response:
            return response.status, await response.text()

    async def ready(self) -> bool:
        """Whether it calls itself ready."""
        return (await self.get("/ready"))[0] == 200

    async def numbers(self) -> dict[tuple[str, ...], float]:
        """Its own metrics, by name and label values in the order of the labels' names."""
        _, text = await self.get("/metrics")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(one.name, *one.labels.values()): one.value for one in samples if one.name.startswith("flyball_agent")}


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Running]:
    """An agent until the end of the block; it has to end by itself within seconds."""
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_agent_service(config, stop, started=started.set_result))
    await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        async with aiohttp.ClientSession() as session:
            yield Running(started.result(), session)
    finally:
        stop.set()
        async with asyncio.timeout(4.0):
            await task


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def seqs(frames: list[Frame], pool: str = "chat") -> list[int]:
    """Sequence numbers of a pool's frames, in order of arrival, each once."""
    return list(dict.fromkeys(frame.seq for frame in frames if frame.pool == pool))


async def test_gpus_and_engines_come_to_the_log_in_one_frame(tmp_path: Path, library: StandInNvml) -> None:
    """GPUs go to the pool of the engine on them, the others nowhere; each page is in one frame."""
    stub = AppendStub()
    async with engine_page() as (_, url), append_door(stub) as door:
        engine = ScrapedEngine(engine="e1", pool="chat", metrics=url, gpus=(1,), model=MODEL)
        async with running(config_of(tmp_path, door, engines=(engine,), gpus=GpuSource.NVML)) as agent:
            await until(lambda: len(seqs(stub.frames)) > 5)
            assert await agent.ready()
    frames = [frame for frame in stub.frames if frame.pool == "chat"]

    assert (frames[-1].agent, frames[-1].backlog) == ("node-1", False)
    assert [gpu.uuid for gpu in frames[-1].gpus] == ["GPU-1"]
    assert 0.625 in {frame.gpus[0].hbm_bandwidth_ratio for frame in frames if frame.gpus}
    assert {gpu.uuid for frame in stub.frames if frame.pool == UNASSIGNED for gpu in frame.gpus} >= {"GPU-00000000"}
    assert seqs(frames) == list(range(len(seqs(frames))))
    prompts = [engine.prompt_tokens_total for frame in frames for engine in frame.engines]
    assert len(prompts) > 3
    assert len(set(prompts)) == len(prompts)
    assert (library.open, library.samples) == (0, {})


async def test_an_agent_that_starts_before_its_controller_loses_nothing(tmp_path: Path) -> None:
    """It samples at once, is alive and not ready, names the controller, and sends everything when it is there."""
    stub, address = AppendStub(), f"127.0.0.1:{free_port()}"
    async with engine_page() as (_, url):
        engine = ScrapedEngine(engine="e1", pool="chat", metrics=url)
        async with running(config_of(tmp_path, address, engines=(engine,))) as agent:
            kept = 0.0
            async with asyncio.timeout(PATIENCE_S):
                while kept < 5:
                    await asyncio.sleep(PERIOD_S)
                    kept = (await agent.numbers())["flyball_agent_spool_frames",]
            status, said = await agent.get("/ready")
            assert (status, address in said, "UNAVAILABLE" in said) == (503, True, True)
            assert (await agent.get("/live"))[0] == 200
            async with append_door(stub, address):
                await until(lambda: len(seqs(stub.frames)) > kept)
                async with asyncio.timeout(PATIENCE_S):
                    while not await agent.ready():
                        await asyncio.sleep(0.01)

    assert sorted(seqs(stub.frames)) == list(range(len(seqs(stub.frames))))


async def test_what_was_not_sent_is_sent_in_the_next_life(tmp_path: Path) -> None:
    """Under the boot that it was sampled in, as backlog; the new life counts from zero."""
    stub = AppendStub()
    async with engine_page() as (_, url), append_door(stub) as door:
        engine = ScrapedEngine(engine="e1", pool="chat", metrics=url)
        config = config_of(tmp_path, f"127.0.0.1:{free_port()}", engines=(engine,))
        async with running(config) as agent:
            async with asyncio.timeout(PATIENCE_S):
                while (await agent.numbers())["flyball_agent_spool_frames",] < 3:
                    await asyncio.sleep(PERIOD_S)
        async with running(config_of(tmp_path, door, engines=(engine,))):
            await until(lambda: {frame.boot[:2] for frame in stub.frames} == {"1-", "2-"})
            await until(lambda: len([frame for frame in stub.frames if frame.boot.startswith("1-")]) >= 3)

    old = [frame for frame in stub.frames if frame.boot.startswith("1-")]
    assert all(frame.backlog for frame in old)
    assert sorted({frame.seq for frame in old}) == list(range(len({frame.seq for frame in old})))
    assert {frame.seq for frame in stub.frames if frame.boot.startswith("2-")} >= {0}


async def test_an_agent_with_nothing_to_send_is_ready_all_the_same(tmp_path: Path) -> None:
    """It asks whether it could."""
    stub = AppendStub()
    async with append_door(stub) as door, running(config_of(tmp_path, door)) as agent:
        async with asyncio.timeout(PATIENCE_S):
            while not await agent.ready():
                await asyncio.sleep(0.01)

    assert (stub.calls, stub.entries) == (1, [])


async def test_its_numbers_say_where_everything_went(tmp_path: Path, library: StandInNvml) -> None:
    """Frames, sources, scrapes, missing values and NVML's errors, all under `flyball_agent_`, with help texts."""
    library.gpus[0].errors = {"nvmlDeviceGetPowerUsage": ERROR_CODES["NO_PERMISSION"]}
    stub = AppendStub()
    async with engine_page() as (page, url), append_door(stub) as door:
        engines = (
            ScrapedEngine(engine="e1", pool="chat", metrics=url),
            ScrapedEngine(engine="gone", pool="chat", metrics=f"http://127.0.0.1:{free_port()}/metrics"),
        )
        page.registry.unregister(page.gauges["num_requests_waiting"])
        async with running(config_of(tmp_path, door, engines=engines, gpus=GpuSource.NVML)) as agent:
            await until(lambda: len(seqs(stub.frames)) > 3)
            numbers, (_, text) = await agent.numbers(), await agent.get("/metrics")

    assert numbers["flyball_agent_frames_sampled_total",] >= numbers["flyball_agent_frames_delivered_total",] > 3
    assert numbers["flyball_agent_source_up", "engine e1"] == numbers["flyball_agent_source_up", "nvml"] == 1
    assert numbers["flyball_agent_source_up", "engine gone"] == 0
    assert numbers["flyball_agent_scrape_failures_total", "gone", "engine", "unreachable"] > 3
    assert numbers["flyball_agent_value_missing", "e1", "engine", "absent", "requests_waiting"] == 1
    assert numbers["flyball_agent_values_missed_total", "e1", "engine", "requests_waiting"] > 3
    assert numbers["flyball_agent_nvml_errors_total", "nvmlDeviceGetPowerUsage", "NO_PERMISSION"] > 3
    assert numbers["flyball_agent_gpu_value_missing", "0", "NO_PERMISSION", "power_w"] == 1
    assert numbers["flyball_agent_gpus", "read"] == 2
    assert numbers["flyball_agent_beat_seconds_count",] == numbers["flyball_agent_beats_total",] > 3
    families = [family for family in text_string_to_metric_families(text) if family.name.startswith("flyball_")]
    assert all(re.fullmatch(r"flyball_agent_[a-z_]+", family.name) for family in families)
    assert all(family.documentation.endswith(".") for family in families)
    page_of_names = DOCUMENT.read_text()
    named = {family.name.removesuffix("_created") for family in families}
    assert [] == sorted(name for name in named if f"`{name}" not in page_of_names)


async def test_it_ends_at_once_whatever_hangs(tmp_path: Path) -> None:
    """A page that never ends and a controller that says nothing do not keep it."""
    hang = asyncio.Event()

    async def hanging(_: web.Request) -> web.Response:
        await hang.wait()
        return web.Response()

    app = web.Application()
    app.router.add_get("/metrics", hanging)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub = AppendStub()
    stub.silent = True
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    engine = ScrapedEngine(engine="e1", pool="chat", metrics=url)
    async with append_door(stub) as door:
        async with running(config_of(tmp_path, door, engines=(engine,), scrape_timeout_s=60.0)):
            await until(lambda: stub.calls > 0)
            began_s = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began_s < 2.0
    hang.set()
    await runner.cleanup()


async def test_through_kafka_it_waits_for_the_topics(tmp_path: Path, kafka_broker: str) -> None:
    """Frames go into the topics themselves; before these are made, the agent says so and keeps what it sampled."""
    where = f"kafka://{kafka_broker}/agent-{uuid.uuid4().hex[:12]}"
    async with engine_page() as (_, url):
        engine = ScrapedEngine(engine="e1", pool="chat", metrics=url)
        async with running(config_of(tmp_path, log=where, engines=(engine,))) as agent:
            async with asyncio.timeout(PATIENCE_S):
                while "topics create" not in (await agent.get("/ready"))[1]:
                    await asyncio.sleep(0.05)
            await create_topics(settings_for(where), partitions=2, replication=1, dev=True)
            async with asyncio.timeout(30.0):
                while not await agent.ready() or not (await agent.numbers())["flyball_agent_frames_delivered_total",]:
                    await asyncio.sleep(0.05)
    log = await open_log(where)
    records = await log.read(Topic.INPUTS, log.partition_of("chat"), 0, wait_s=5.0)
    await log.close()

    frames = [decode_input(0, record.value or b"").body for record in records]
    assert {frame.agent for frame in frames if isinstance(frame, Frame)} == {"node-1"}


async def test_what_no_waiting_heals_ends_it(tmp_path: Path) -> None:
    """No section, a name twice, a port that is taken, a folder in use."""
    config = config_of(tmp_path, "127.0.0.1:1")
    assert config.agent is not None
    engine = ScrapedEngine(engine="e1", pool="chat", metrics="http://127.0.0.1:1/metrics")
    stop = asyncio.Event()
    with pytest.raises(Rejected, match="no section `agent`"):
        await run_agent_service(replace(config, agent=None), stop)
    with pytest.raises(Rejected, match="engine e1 is there more than once"):
        await run_agent_service(config_of(tmp_path, "127.0.0.1:1", engines=(engine, engine)), stop)
    with pytest.raises(Rejected, match="controllers"):
        await run_agent_service(config_of(tmp_path), stop)
    async with append_door(AppendStub()) as door:
        with pytest.raises(Fatal, match="cannot listen"):
            await run_agent_service(config_of(tmp_path, door, http=door), stop)
        async with running(config):
            with pytest.raises(Fatal, match="used by another agent already"):
                await run_agent_service(config, stop)


def test_no_boot_is_used_twice(tmp_path: Path) -> None:
    """Boots count up, and where the count was lost they are new all the same."""
    boots = []
    for spoil in (None, "12\n", "nonsense", "\x00", None):
        if spoil is not None:
            (tmp_path / "boot").write_text(spoil)
        with one_life(tmp_path) as boot:
            boots.append(boot)

    assert [boot.partition("-")[0] for boot in boots] == ["1", "13", "1", "1", "2"]
    assert len(set(boots)) == 5


def test_a_full_disk_does_not_keep_it_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number stays what it was; the boot is a new one all the same."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with one_life(tmp_path) as first:
        pass
    monkeypatch.setattr("flyball_agents.node.life.replace_atomically", full)
    boots = [first]
    for _ in range(2):
        with one_life(tmp_path) as boot:
            boots.append(boot)

    assert [boot.partition("-")[0] for boot in boots] == ["1", "2", "2"]
    assert len(set(boots)) == 3


def test_a_folder_that_cannot_be_written_ends_it(tmp_path: Path) -> None:
    """A file in its place, or a folder of somebody else's in the place of the count."""
    (tmp_path / "file").write_text("")
    (tmp_path / "boot.tmp").mkdir()

    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(Fatal, match="cannot"), one_life(folder):
            pass
