"""Small engines as a service, governed over real gRPC streams by a controller of a few lines."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from flyball_core.errors import Fatal, Rejected
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, Incarnation, LogId, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, Value
from flyball_core.outputs import Directive
from flyball_proto.codec import pusher_message, read_receiver_message
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import grpc_server
from flyball_service.config import Config, TwinConfig, TwinEngineConfig
from flyball_twin.serving.service import run_twin

POOL = PoolId("demo")
LOG = LogId("5a3f0c1e-0000-4000-8000-000000000000")


@dataclass(slots=True)
class PlainController(rpc.AttachServiceServicer):
    """Takes every attach and keeps what receivers say; `tell` pushes a directive to the newest stream of an engine."""

    attaches: list[Attach] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    revision: int = 0
    streams: dict[str, asyncio.Queue[pb.PusherMessage]] = field(default_factory=dict)

    async def Attach(  # noqa: N802 - the name of the call
        self, request_iterator: AsyncIterator[pb.ReceiverMessage], context: object
    ) -> AsyncIterator[pb.PusherMessage]:
        """One receiver's stream."""
        del context
        queue: asyncio.Queue[pb.PusherMessage] = asyncio.Queue()

        async def listen() -> None:
            async for message in request_iterator:
                said = read_receiver_message(message)
                if isinstance(said, Attach):
                    self.attaches.append(said)
                    self.streams[said.target] = queue
                else:
                    self.acks.append(said)

        listening = asyncio.ensure_future(listen())
        try:
            while True:
                yield await queue.get()
        finally:
            listening.cancel()

    def tell(self, engine: str, values: Mapping[str, Value]) -> None:
        """Push a directive."""
        attach = next(one for one in reversed(self.attaches) if one.target == engine)
        self.revision += 1
        directive = Directive(
            pool=POOL,
            engine=EngineId(engine),
            incarnation=attach.incarnation if VARIANT in values else Incarnation(""),
            capability_hash=attach.capability_hash,
            version=Version(log_id=LOG, partition=0, epoch=1, revision=self.revision),
            values=values,
            decision=f"demo@{self.revision}",
        )
        self.streams[engine].put_nowait(pusher_message(directive))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """What runs."""

    controller: PlainController
    addresses: Mapping[EngineId, str]
    session: aiohttp.ClientSession

    async def complete(self, engine: str, tokens: int) -> int:
        """The tokens of one streamed completion."""
        address = self.addresses[EngineId(engine)]
        body = {"prompt": "x", "max_tokens": tokens, "stream": True}
        async with self.session.post(f"http://{address}/v1/completions", json=body) as answer:
            assert 200 == answer.status
            return (await answer.read()).count(b"data: {")


async def until(so: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until `so()` is true; fails if it does not become so."""
    end_s = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.01)


def config_of(folder: Path, *engines: TwinEngineConfig, controllers: tuple[str, ...] = ()) -> Config:
    """A configuration of small engines that relaunch quickly."""
    twin = TwinConfig(pool=POOL, controllers=controllers, engines=engines, relaunch_s=0.3)
    return Config(file=folder / "flyball.yaml", state=folder / "state", twin=twin)


@asynccontextmanager
async def running(folder: Path, *names: str) -> AsyncIterator[Plane]:
    """Engines of these names on loopback, attached to a plain controller."""
    controller = PlainController()
    server, port = await grpc_server(
        "127.0.0.1:0", None, lambda server: rpc.add_AttachServiceServicer_to_server(controller, server)
    )
    stop: asyncio.Event = asyncio.Event()
    started: asyncio.Future[Mapping[EngineId, str]] = asyncio.get_running_loop().create_future()
    engines = [TwinEngineConfig(engine=name, listen="127.0.0.1:0") for name in names]
    config = config_of(folder, *engines, controllers=(f"127.0.0.1:{port}",))
    serving = asyncio.ensure_future(run_twin(config, stop, started=lambda found: started.set_result(found.engines)))
    try:
        async with aiohttp.ClientSession() as session:
            addresses = await asyncio.wait_for(started, 5.0)
            await until(lambda: {one.target for one in controller.attaches} == set(names))
            yield Plane(controller=controller, addresses=addresses, session=session)
            stop.set()
            await asyncio.wait_for(serving, 10.0)
    finally:
        stop.set()
        await asyncio.gather(serving, return_exceptions=True)
        await server.stop(None)


async def test_engines_attach_with_their_knobs(tmp_path: Path) -> None:
    """Each says who it is, what it can do and what it holds."""
    async with running(tmp_path, "e0", "e1") as plane:
        attach = next(one for one in plane.controller.attaches if one.target == "e1")

    assert {BATCH_CAP, TOKEN_BUDGET, VARIANT} == {knob.name for knob in attach.knobs}
    assert (POOL, {BATCH_CAP: 256, TOKEN_BUDGET: 8192, VARIANT: "graphs"}) == (attach.pool, attach.effective)
    assert attach.held is None


async def test_a_directive_is_applied_while_streams_run(tmp_path: Path) -> None:
    """The setting is read back and acknowledged before the stream ends, and the stream loses nothing."""
    async with running(tmp_path, "e0") as plane:
        stream = asyncio.ensure_future(plane.complete("e0", 120))
        plane.controller.tell("e0", {BATCH_CAP: 7, TOKEN_BUDGET: 512})
        await until(lambda: plane.controller.acks)
        (ack,) = plane.controller.acks

        assert not stream.done()
        assert (AckStatus.APPLIED, 7, 512) == (ack.status, ack.effective[BATCH_CAP], ack.effective[TOKEN_BUDGET])
        assert 120 == await stream
        plane.controller.tell("e0", {BATCH_CAP: 0})
        await until(lambda: len(plane.controller.acks) == 2)
        assert AckStatus.NACK is plane.controller.acks[1].status


async def test_a_directive_for_another_variant_relaunches_the_engine(tmp_path: Path) -> None:
    """It answers that it will, goes down, and comes back as a new incarnation that holds the directive."""
    async with running(tmp_path, "e0") as plane:
        controller = plane.controller
        before = controller.attaches[-1].incarnation
        controller.tell("e0", {BATCH_CAP: 9, VARIANT: "splitkv"})
        await until(lambda: controller.attaches[-1].incarnation != before)
        attach = controller.attaches[-1]

        assert [AckStatus.PENDING_RESTART] == [ack.status for ack in controller.acks]
        assert {BATCH_CAP: 9, TOKEN_BUDGET: 8192, VARIANT: "splitkv"} == attach.effective
        assert attach.held is not None
        assert 3 == await plane.complete("e0", 3)


async def test_what_a_receiver_holds_outlives_the_process(tmp_path: Path) -> None:
    """The next start says what it holds, sets it before anybody asks, and is another incarnation."""
    async with running(tmp_path, "e0") as plane:
        plane.controller.tell("e0", {BATCH_CAP: 33})
        await until(lambda: plane.controller.acks)
        first = plane.controller.attaches[-1].incarnation
    async with running(tmp_path, "e0") as plane:
        attach = plane.controller.attaches[0]

    assert (33, 1) == (attach.effective[BATCH_CAP], attach.held.revision if attach.held else None)
    assert first != attach.incarnation


async def test_the_page_tells_of_the_receiver(tmp_path: Path) -> None:
    """Answers and the state of the attach stand beside the engine's own numbers."""
    async with running(tmp_path, "e0") as plane:
        plane.controller.tell("e0", {BATCH_CAP: 33})
        await until(lambda: plane.controller.acks)
        async with plane.session.get(f"http://{plane.addresses[EngineId('e0')]}/metrics") as answer:
            page = await answer.text()

    assert 'flyball_receiver_acks_total{status="applied",target="e0"} 1.0' in page
    assert 'flyball_receiver_attach_state{state="attached",target="e0"} 1.0' in page


async def test_engines_serve_without_any_controller(tmp_path: Path) -> None:
    """Nobody listens where controllers should be; requests are served all the same."""
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    config = config_of(
        tmp_path, TwinEngineConfig(engine="e0", listen="127.0.0.1:0", speed=0.4), controllers=("127.0.0.1:1",)
    )
    serving = asyncio.ensure_future(run_twin(config, stop, started=started.set_result))
    address = (await asyncio.wait_for(started, 5.0)).engines["e0"]
    async with aiohttp.ClientSession() as session:
        body = {"prompt": "x", "max_tokens": 4}
        async with session.post(f"http://{address}/v1/completions", json=body) as answer:
            document = await answer.json()
    stop.set()
    await asyncio.wait_for(serving, 10.0)

    assert 4 == document["usage"]["completion_tokens"]


async def test_what_cannot_be_served_is_said_at_the_start(tmp_path: Path) -> None:
    """No section, no engines, an unknown variant, an address in use: each is an error that says so."""
    stop = asyncio.Event()
    with pytest.raises(Rejected, match="no section `twin`"):
        await run_twin(Config(file=tmp_path / "f"), stop)
    with pytest.raises(Rejected, match="names no engines"):
        await run_twin(config_of(tmp_path), stop)
    beyond = config_of(tmp_path, TwinEngineConfig(engine="e0", listen="127.0.0.1:0"), controllers=("10.0.0.1:7460",))
    with pytest.raises(Rejected, match="plaintext is refused"):
        await run_twin(beyond, stop)
    with pytest.raises(Rejected, match="graphs, splitkv"):
        await run_twin(config_of(tmp_path, TwinEngineConfig(engine="e0", listen="127.0.0.1:0", variant="x")), stop)
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(Fatal, match=f"e0 cannot listen on 127.0.0.1:{port}"):
        await run_twin(config_of(tmp_path, TwinEngineConfig(engine="e0", listen=f"127.0.0.1:{port}")), stop)
    taken.close()
    await taken.wait_closed()
