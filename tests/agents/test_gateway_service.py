"""The small gateway as a service: governed by whoever it can reach, serving all the same, counted for all to see."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import grpc
import pytest

from flyball_agents.gateway.serving import GatewayAddresses, run_gateway_service
from flyball_core.errors import Fatal, Rejected
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, PoolId
from flyball_core.inputs import AckStatus, Attach
from flyball_core.outputs import Heartbeat, LaneRule, Route, RoutingTable
from flyball_service.config import Config, GatewayConfig, LaneConfig, RoutedEngine
from receiver_bench import version
from small_pool import SmallEngine
from test_attaching_grpc import Controller, until

LANES = (LaneConfig(lane="realtime"), LaneConfig(lane="bulk", priority=10))


def table(of: Version, weight: int, cap: int) -> RoutingTable:
    """A table for the one engine."""
    return RoutingTable(
        pool=PoolId("chat"),
        gateway=GatewayId("g"),
        version=of,
        routes=(Route(engine=EngineId("a"), weight=weight, in_flight_cap=cap),),
        lanes=(LaneRule(lane="bulk", priority=5, max_wait_s=9.0),),
        decision="chat@1",
    )


@dataclass(slots=True)
class Served:
    """A gateway that serves, the engine behind it, and a client."""

    engine: SmallEngine
    ports: GatewayAddresses
    client: aiohttp.ClientSession

    async def ask(self) -> int:
        """A request to its end; the status."""
        async with self.client.post(f"http://127.0.0.1:{self.ports.requests}/v1/completions", data=b"{}") as answer:
            await answer.read()
            return answer.status

    async def page(self, path: str) -> tuple[int, str]:
        """A page of the service's own door."""
        async with self.client.get(f"http://127.0.0.1:{self.ports.http}/{path}") as answer:
            return answer.status, await answer.text()

    async def shows(self, line: str) -> None:
        """Wait until the metrics have that line."""
        async with asyncio.timeout(10.0):
            while line not in (page := (await self.page("metrics"))[1]).splitlines():
                await asyncio.sleep(0.02)
        assert page


@asynccontextmanager
async def served(folder: Path, controller: str) -> AsyncIterator[Served]:
    """A gateway over one engine, with that controller, until the end of the block."""
    engine = SmallEngine("a")
    engine.gate.set()
    await engine.start()
    config = configured(folder, f"http://127.0.0.1:{engine.port}", controller)
    stop = asyncio.Event()
    started: list[GatewayAddresses] = []
    running = asyncio.create_task(run_gateway_service(config, stop, started=started.append))
    await until(lambda: started or running.done())
    async with aiohttp.ClientSession() as client:
        yield Served(engine, started[0], client)
    stop.set()
    await asyncio.wait_for(running, 10.0)
    await engine.stop()


def configured(folder: Path, url: str, controller: str) -> Config:
    """The configuration of such a gateway."""
    section = GatewayConfig(
        pool="chat",
        name="g",
        listen="127.0.0.1:0",
        http="127.0.0.1:0",
        controllers=(controller,),
        engines=(RoutedEngine(engine="a", url=url),),
        lanes=LANES,
    )
    return Config(file=folder / "flyball.yaml", state=folder / "state", gateway=section)


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    """A controller that pushes two tables, the second beyond what a gateway takes, and a heartbeat."""
    started = Controller()
    beat = Heartbeat(pool=PoolId("chat"), version=version(9), time_s=0.0, wall_s=0.0, hold_s=0.0)
    started.pushes = [table(version(5), 50, 7), table(version(6), 300, 7), beat]
    await started.start()
    yield started
    await started.stop()


async def test_a_table_is_applied_and_answered(controller: Controller, tmp_path: Path) -> None:
    """The gateway attaches with its engines and lanes as knobs, takes the table, refuses the mad one, and says so."""
    async with served(tmp_path, f"127.0.0.1:{controller.port}") as gateway:
        await until(lambda: len(controller.acks) == 2)
        attach = controller.said[0]

        assert isinstance(attach, Attach)
        assert ("gateway", "g") == (attach.kind.value, attach.target)
        assert {"weight:a", "cap:a", "priority:bulk", "max_wait_s:realtime"} < {knob.name for knob in attach.knobs}
        assert [AckStatus.APPLIED, AckStatus.NACK] == [ack.status for ack in controller.acks]
        assert (50, 7, 5) == tuple(controller.acks[0].effective[n] for n in ("weight:a", "cap:a", "priority:bulk"))
        await gateway.shows('flyball_gateway_engine_weight{engine="a"} 50.0')
        await gateway.shows('flyball_gateway_engine_cap{engine="a"} 7.0')
        await gateway.shows('flyball_receiver_attach_state{state="attached",target="g"} 1.0')
        await gateway.shows('flyball_receiver_acks_total{status="nack",target="g"} 1.0')
        assert 200 == await gateway.ask()


async def test_it_takes_up_its_table_after_a_restart(controller: Controller, tmp_path: Path) -> None:
    """The last table holds again before any controller is heard, and its version is reported."""
    async with served(tmp_path, f"127.0.0.1:{controller.port}"):
        await until(lambda: len(controller.acks) == 2)
    await controller.stop()
    async with served(tmp_path, f"127.0.0.1:{controller.port}") as gateway:
        await gateway.shows('flyball_gateway_engine_weight{engine="a"} 50.0')


async def test_a_second_gateway_of_a_name_is_refused_and_serves_on(controller: Controller, tmp_path: Path) -> None:
    """The refusal is on its page; requests do not notice."""
    controller.refusal = (grpc.StatusCode.ALREADY_EXISTS, "g is attached by incarnation i0")
    async with served(tmp_path, f"127.0.0.1:{controller.port}") as gateway:
        await gateway.shows('flyball_receiver_attach_state{state="refused",target="g"} 1.0')

        assert 200 == await gateway.ask()
        assert (200, True) == ((ready := await gateway.page("ready"))[0], '"ready": true' in ready[1])


async def test_it_serves_without_any_controller_and_says_what_it_waits_for(tmp_path: Path) -> None:
    """Ready depends on engines alone: with none up it is not, and says so; live all the while."""
    async with served(tmp_path, "127.0.0.1:1") as gateway:
        assert 200 == await gateway.ask()
        await gateway.engine.stop()
        await until_page(gateway, 503, "none of them answers")
        assert 200 == (await gateway.page("live"))[0]
        await gateway.engine.start(gateway.engine.port)
        await until_page(gateway, 200, "")


async def until_page(gateway: Served, status: int, naming: str) -> None:
    """Wait until `/ready` says so."""
    async with asyncio.timeout(10.0):
        while (page := await gateway.page("ready"))[0] != status:
            await asyncio.sleep(0.05)
    assert naming in page[1]


async def test_the_page_has_what_agents_read_and_is_well_formed(tmp_path: Path) -> None:
    """Requests, queue and in-flight by lane under their agreed names; promtool finds nothing wrong."""
    async with served(tmp_path, "127.0.0.1:1") as gateway:
        await gateway.ask()
        await gateway.shows('flyball_gateway_requests_total{lane="realtime"} 1.0')
        page = (await gateway.page("metrics"))[1]

        for line in (
            'flyball_gateway_requests_queued{lane="bulk"} 0.0',
            'flyball_gateway_requests_in_flight{lane="realtime"} 0.0',
            'flyball_gateway_queue_seconds_count{lane="realtime"} 1.0',
            'flyball_gateway_engine_up{engine="a"} 1.0',
            'flyball_gateway_engine_in_flight{engine="a"} 0.0',
            'flyball_gateway_engine_responses_total{code="2xx",engine="a"} 1.0',
        ):
            assert line in page.splitlines()
        assert 'flyball_gateway_queue_seconds_sum{lane="realtime"} ' in page
        assert 'flyball_gateway_info{gateway="g",incarnation="' in page
    if promtool := shutil.which("promtool"):
        found = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert (0, "") == (found.returncode, found.stdout + found.stderr)


async def test_what_is_wrong_in_the_file_ends_it(tmp_path: Path) -> None:
    """No section, no engine, an address that cannot be listened on: one sentence each."""
    config = configured(tmp_path, "http://127.0.0.1:1", "127.0.0.1:1")
    assert config.gateway is not None
    busy = SmallEngine("busy")
    await busy.start()
    for wrong, error, why in (
        (replace(config, gateway=None), Rejected, "no section `gateway`"),
        (replace(config, gateway=replace(config.gateway, engines=())), Rejected, "at least one engine"),
        (replace(config, gateway=replace(config.gateway, controllers=("nowhere",))), Rejected, "not HOST:PORT"),
        (replace(config, gateway=replace(config.gateway, listen=f"127.0.0.1:{busy.port}")), Fatal, "cannot listen"),
        (replace(config, gateway=replace(config.gateway, http=f"127.0.0.1:{busy.port}")), Fatal, "cannot listen"),
    ):
        with pytest.raises(error, match=why):
            await run_gateway_service(wrong, asyncio.Event())
    await busy.stop()
