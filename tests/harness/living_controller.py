"""A controller in this process, and scripted receivers, agents and operators at its real doors.

They say what a test tells them to over gRPC and keep what they hear; none of them has a mind of its own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from inspect import isawaitable
from pathlib import Path
from typing import Any, cast

import grpc

from flyball_controller.serving import ControllerAddresses, Parts, run_controller
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId
from flyball_core.inputs import Ack, AckStatus, Attach
from flyball_core.outputs import Directive, Heartbeat, RoutingTable
from flyball_proto.codec import Pushed, read_pusher_message, receiver_message
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import channel
from flyball_service.config import Config, ControllerConfig, TlsConfig
from flyball_service.tls import Tls
from harness.controller_calls import (
    PATIENCE_S as PATIENCE_S,
    append as append,
    metric,
    page,
    pin as pin,
    status as status,
    stub as stub,
    target as target,
)
from harness.scripted_engine import POOL, ScriptedEngine

TICK_S = 0.05
"""Ticks of tests: the doors do not care, and nobody waits."""
POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 50ms, longest_wait: 20s}
knobs:
  max_active_requests: {min: 4, max: 128}
"""


def config_for(
    folder: Path,
    *,
    log: str = "",
    name: str = "c1",
    partitions: int = 2,
    tls: TlsConfig | None = None,
    policies: dict[str, str] | None = None,
) -> Config:
    """The configuration of a controller on ports of its own; with a policy for the scripted pool unless told others."""
    files: dict[str, Path] = {}
    for pool, text in (policies if policies is not None else {POOL: POLICY}).items():
        files[pool] = folder / f"{pool}.yaml"
        files[pool].write_text(text)
    own = ControllerConfig(
        name=name, listen="127.0.0.1:0", http="127.0.0.1:0", tick_s=TICK_S, partitions=partitions, policies=files
    )
    return Config(file=folder / "flyball.yaml", log=log or str(folder / "log"), state=folder, tls=tls, controller=own)


@dataclass(slots=True)
class Running:
    """A controller that runs in a task of this process."""

    addresses: ControllerAddresses
    stopping: asyncio.Event
    task: "asyncio.Task[None]"

    async def stop(self) -> float:
        """Stop it; the seconds that took."""
        began_s = time.perf_counter()
        self.stopping.set()
        await asyncio.wait_for(self.task, PATIENCE_S)
        return time.perf_counter() - began_s

    async def ready(self) -> None:
        """Wait until it says so."""
        await eventually(lambda: self.get("/ready"), lambda answer: answer[0] == 200)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of its HTTP door."""
        return await page(self.addresses.http, path)

    async def metric(self, name: str, **labels: str) -> float:
        """One number of its metrics; 0 if it is not there."""
        return await metric(self.addresses.http, name, **labels)


@asynccontextmanager
async def running(config: Config, *, ready: bool = True, parts: Parts | None = None) -> AsyncIterator[Running]:
    """A controller from its start to its stop; `ready` waits until it says that it is."""
    stopping, started = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_controller(config, stopping, started=started.set_result, parts=parts))
    try:
        await asyncio.wait([task, started], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if task.done():
            task.result()
        one = Running(started.result(), stopping, task)
        if ready:
            await one.ready()
        yield one
    finally:
        stopping.set()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE_S)


async def eventually(ask: Callable[[], Any], found: Callable[[Any], bool], within_s: float = PATIENCE_S) -> Any:
    """What `ask` gives once `found` says that it is the answer; fails with the last one otherwise."""
    until = time.monotonic() + within_s
    while True:
        answer = ask()
        answer = await answer if isawaitable(answer) else answer
        if found(answer):
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {within_s} s; the last answer was {answer}")
        await asyncio.sleep(0.01)


@dataclass(slots=True)
class Receiver:
    """A receiver at the end of a stream: applies and answers as the scripted engine does."""

    engine: ScriptedEngine
    heard: list[Pushed] = field(default_factory=list)
    answers: bool = True
    """Whether it answers what it is told."""
    ended: grpc.aio.AioRpcError | None = None
    """How the stream ended, if not by us."""
    _call: Any = None
    _channel: grpc.aio.Channel | None = None
    _reading: "asyncio.Task[None] | None" = None

    async def attach(
        self, address: str, tls: Tls | None = None, *, reads: bool = True, said: Attach | None = None
    ) -> None:
        """Open a stream and attach; `reads` False leaves everything on the wire."""
        self._channel = channel(address, tls)
        self._call = cast("Any", rpc.AttachServiceStub(self._channel)).Attach()
        await self._call.write(receiver_message(said or self.engine.attach()))
        if reads:
            self._reading = asyncio.create_task(self._read())

    async def say(self, said: Attach | Ack) -> None:
        """Say something unasked."""
        await self._call.write(receiver_message(said))

    async def leave(self) -> None:
        """Go without a word."""
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()
        await self.close()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        if self._channel is not None:
            await self._channel.close(None)

    async def end(self, within_s: float = PATIENCE_S) -> grpc.aio.AioRpcError:
        """Wait until the controller ends the stream; with what it ended."""
        assert self._reading is not None
        await asyncio.wait([self._reading], timeout=within_s)
        assert self.ended is not None, "the stream is still open"
        await self.close()
        return self.ended

    async def _read(self) -> None:
        try:
            while True:
                message = await self._call.read()
                if not isinstance(message, pb.PusherMessage):
                    return
                pushed = read_pusher_message(message)
                self.heard.append(pushed)
                if self.answers and isinstance(pushed, Directive):
                    await self.say(self.engine.take(pushed, 0.0, 0.0))
        except grpc.aio.AioRpcError as error:
            self.ended = error

    def directives(self) -> list[Directive]:
        """What it was told to hold, in order."""
        return [one for one in self.heard if isinstance(one, Directive)]

    def heartbeats(self) -> list[Heartbeat]:
        """The heartbeats that reached it."""
        return [one for one in self.heard if isinstance(one, Heartbeat)]

    def tables(self) -> list[RoutingTable]:
        """The routing tables that reached it."""
        return [one for one in self.heard if isinstance(one, RoutingTable)]


def engine(name: str = "e1", incarnation: str = "i0") -> ScriptedEngine:
    """An engine that takes what is newer."""
    return ScriptedEngine(name=name, agent="a0", gpu=0, incarnation=incarnation)


@asynccontextmanager
async def attached(address: str, one: ScriptedEngine | None = None, tls: Tls | None = None) -> AsyncIterator[Receiver]:
    """A receiver that is attached, from its first heartbeat on."""
    receiver = Receiver(one or engine())
    await receiver.attach(address, tls)
    try:
        await eventually(lambda: receiver.heard or receiver.ended, bool)
        yield receiver
    finally:
        await receiver.leave()


def frame(seq: int, *, agent: str = "a0", engines: Sequence[str] = ("e1",), pool: str = POOL) -> Frame:
    """What an agent saw at one second of its own clock."""
    return Frame(
        agent=AgentId(agent),
        boot=BootId("b0"),
        pool=PoolId(pool),
        seq=seq,
        wall_s=1.7e9 + seq,
        monotonic_s=float(seq),
        backlog=False,
        gpus=(GpuSample(gpu_index=0, uuid="GPU-0", hbm_bandwidth_source=BandwidthSource.GPM, throttle_reasons=0),),
        engines=tuple(
            EngineSample(
                engine=EngineId(name),
                incarnation=Incarnation("i0"),
                rank=0,
                gpus=(0,),
                variant="graphs",
                requests_running=10.0,
                requests_waiting=0.0,
                kv_used_ratio=0.5,
                kv_capacity_tokens=4e5,
                generation_tokens_total=1000.0 * seq,
            )
            for name in engines
        ),
        gateways=(),
    )


def nack_of(attach: Attach, directive: Directive) -> Ack:
    """A refusal of a directive."""
    return Ack(
        pool=attach.pool,
        kind=attach.kind,
        target=attach.target,
        incarnation=attach.incarnation,
        version=directive.version,
        status=AckStatus.NACK,
        reason="not today",
    )
