"""Attaching over real gRPC: streams, refusals, controllers that stop and come back, and the thread for engines."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest

from attached_receiver import LIMITS
from flyball_agents.attach_stream import GrpcStream, grpc_streams
from flyball_agents.attached import AttachedReceiver
from flyball_agents.attaching import Attacher, AttachRefused, AttachState, Place, Surroundings
from flyball_agents.on_the_loop import OnTheLoop
from flyball_agents.surface import capability_hash
from flyball_core.errors import Rejected, Retryable
from flyball_core.ids import EngineId, Incarnation
from flyball_core.inputs import Ack, AckStatus
from flyball_core.outputs import Directive, Heartbeat
from flyball_proto.codec import Pushed, Said, pusher_message, read_receiver_message
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AttachServiceServicer, add_AttachServiceServicer_to_server
from flyball_service.channels import grpc_server
from receiver_bench import POOL, SPECS, Bench, version

DIRECTIVE = Directive(
    pool=POOL,
    engine=EngineId("e1"),
    incarnation=Incarnation(""),
    capability_hash=capability_hash(SPECS),
    version=version(5),
    values={"cap": 40},
    decision="chat@1",
)
BEAT = Heartbeat(pool=POOL, version=version(6), time_s=0.0, wall_s=0.0, hold_s=0.0)


class Controller(AttachServiceServicer):
    """Sends its `pushes`, then waits; `refusal` says how it refuses instead."""

    def __init__(self) -> None:
        self.pushes: list[Pushed] = [DIRECTIVE, BEAT]
        self.said: list[Said] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.streams = 0
        self.port = 0
        self.server: grpc.aio.Server | None = None

    async def start(self, port: int = 0) -> None:
        """Listen."""
        self.server, self.port = await grpc_server(
            f"127.0.0.1:{port}", None, lambda server: add_AttachServiceServicer_to_server(self, server)
        )

    async def stop(self) -> None:
        """Break off."""
        if self.server is not None:
            await self.server.stop(0)

    async def Attach(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[pb.ReceiverMessage], context: grpc.ServicerContext
    ) -> AsyncIterator[pb.PusherMessage]:
        """One stream."""
        self.streams += 1
        if self.refusal is not None:
            await aborted(context, *self.refusal)
        taking = asyncio.create_task(self._take(request_iterator))
        for pushed in self.pushes:
            yield pusher_message(pushed)
        await taking

    async def _take(self, messages: AsyncIterator[pb.ReceiverMessage]) -> None:
        async for message in messages:
            self.said.append(read_receiver_message(message))

    @property
    def acks(self) -> list[Ack]:
        """The answers so far."""
        return [said for said in self.said if isinstance(said, Ack)]


async def aborted(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> None:
    """Abort; the generated type is the blocking server's, the context at run time is not."""
    abort: Callable[[grpc.StatusCode, str], object] = context.abort
    ending = abort(code, details)
    if asyncio.iscoroutine(ending):
        await ending


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    """A controller that listens."""
    started = Controller()
    await started.start()
    yield started
    await started.stop()


async def until(what: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.01)


def attacher(folder: Path, *addresses: str) -> Attacher:
    """The bench's receiver, to be attached to these."""
    around = Surroundings(rng=random.Random(1))
    bench = Bench(folder)
    bench.now_s, bench.wall_s = around.clock(), around.wall_clock()
    bench.receiver = bench.receive()
    return Attacher(bench.receiver, addresses, grpc_streams(None), around, LIMITS)


async def test_it_attaches_over_grpc_from_a_thread(controller: Controller, tmp_path: Path) -> None:
    """A name is looked up, the directive answered, and the thread ends when it is told to."""
    attached = AttachedReceiver(attacher(tmp_path, f"localhost:{controller.port}"))
    attached.start()
    await until(lambda: controller.acks)

    assert AckStatus.APPLIED is controller.acks[0].status
    assert await asyncio.to_thread(attached.stop)
    assert attached.failure is None
    assert AttachState.ATTACHED is attached.attacher.status.state


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("controller", "is not HOST:PORT"),
        ("127.0.0.1:99999", "is not a port"),
        ("controller:7460", "plaintext is refused"),
        ("10.0.0.1:7460", "plaintext is refused"),
    ],
)
def test_addresses_that_may_not_be_are_refused_at_once(tmp_path: Path, address: str, said: str) -> None:
    """A malformed address, or plaintext beyond this machine, is an error where the attacher is made."""
    with pytest.raises(Rejected, match=said):
        attacher(tmp_path, "127.0.0.1:7460", address)


async def test_a_thread_that_fails_says_so_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in the attacher ends its thread, never the engine."""

    async def broken(_: Attacher, __: asyncio.Event) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(Attacher, "run", broken)
    attached = AttachedReceiver(attacher(tmp_path, "127.0.0.1:1"))
    attached.start()
    await until(lambda: attached.failure)

    assert attached.stop()
    assert "a fault" == str(attached.failure)


async def test_a_controller_that_restarts_finds_its_receiver_again(controller: Controller, tmp_path: Path) -> None:
    """After the break it attaches anew and says what it holds; the same directive is answered again, not applied."""
    one, stop = attacher(tmp_path, f"127.0.0.1:{controller.port}"), asyncio.Event()
    running = asyncio.create_task(one.run(stop))
    await until(lambda: controller.acks)
    await controller.stop()
    await until(lambda: one.status.state is AttachState.SEEKING)
    again = Controller()
    await again.start(controller.port)
    await until(lambda: again.acks)
    stop.set()
    await running
    await again.stop()

    assert version(5) == getattr(again.said[0], "held", None)
    assert AckStatus.APPLIED is again.acks[0].status


@pytest.mark.parametrize("code", [grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.PERMISSION_DENIED])
async def test_a_refusal_stays_with_the_controller_that_gave_it(
    controller: Controller, tmp_path: Path, code: grpc.StatusCode
) -> None:
    """A second engine of a name does not go round by another controller."""
    other = Controller()
    await other.start()
    controller.refusal = other.refusal = (code, "e1 is attached by incarnation i0")
    one, stop = attacher(tmp_path, f"127.0.0.1:{controller.port}", f"127.0.0.1:{other.port}"), asyncio.Event()
    running = asyncio.create_task(one.run(stop))
    await until(lambda: one.status.state is AttachState.REFUSED)
    stop.set()
    await running
    await other.stop()

    assert f"{code.name}: e1 is attached by incarnation i0" == one.status.why
    assert 1 == controller.streams + other.streams


async def test_a_stream_says_how_it_ended(controller: Controller) -> None:
    """Refusals are told from all other ends, for reads and for writes, and nobody there is one of the others."""
    message = pb.ReceiverMessage()
    controller.refusal = (grpc.StatusCode.PERMISSION_DENIED, "not yours")
    refused = GrpcStream(f"127.0.0.1:{controller.port}", None)
    with pytest.raises(AttachRefused, match="PERMISSION_DENIED: not yours"):
        await refused.read()
    with pytest.raises(AttachRefused, match="PERMISSION_DENIED: not yours"):
        await refused.write(message)
    await refused.close()
    nobody = GrpcStream("127.0.0.1:1", None)
    with pytest.raises(Retryable, match="UNAVAILABLE"):
        await nobody.read()
    await nobody.close()

    with pytest.raises(Rejected, match="beyond loopback"):
        grpc_streams(None)(Place("10.1.2.3:7460", "elsewhere"))


async def test_calls_from_a_thread_are_made_by_the_loop() -> None:
    """What it returned, what it raised; and one that the loop had no time for is not made late."""
    loop, made = asyncio.get_running_loop(), []
    on_the_loop = OnTheLoop(loop, within_s=5.0)

    assert threading.get_ident() == await asyncio.to_thread(on_the_loop, threading.get_ident)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(on_the_loop, lambda: 1 / 0)
    given_up = threading.Thread(target=lambda: made.append(gave_up(OnTheLoop(loop, within_s=0.01), made)))
    given_up.start()
    given_up.join()  # meanwhile the loop stands still
    await asyncio.sleep(0.05)

    assert ["given up"] == made


def gave_up(on_the_loop: OnTheLoop, made: list[str]) -> str:
    """Ask a loop that stands still."""
    try:
        on_the_loop(lambda: made.append("made late"))
    except TimeoutError:
        return "given up"
    return "answered"
