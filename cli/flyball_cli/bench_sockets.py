"""The scripted pool beside a running controller, over real sockets: what `flyball bench plane` measures with.

Each node appends its frame over gRPC once a second, at a moment of its own; each engine has a real receiver with an
attach stream of its own. A follower reads the log that the controller writes and notes when ticks and acks
stand in it. Receivers' stores do not wait for the disk: the engines of a fleet do not share one.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from flyball_agents.attach_stream import grpc_streams
from flyball_agents.attaching import Attacher, AttachState, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_cli.bench_fleet import KNOBS, ScriptedPool
from flyball_core.errors import Rejected, Retryable
from flyball_core.frames import Frame
from flyball_core.ids import Incarnation
from flyball_core.inputs import Ack, TargetKind, Tick
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_log import open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input, encode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceStub
from flyball_service.channels import channel

PERIOD_S = 1.0
APPEND_S = 5.0
"""Longest wait for one append."""
ATTACH_S = 60.0
"""Longest wait until everybody is attached."""
LOOK_S = 0.2


class ScriptedControls:
    """`EngineControls` of one engine of a scripted pool."""

    def __init__(self, values: dict[str, Value]) -> None:
        self._values = values

    def knobs(self) -> tuple[KnobSpec, ...]:
        """The pool's knobs."""
        return KNOBS

    def read(self) -> Setting:
        """The values that hold."""
        return dict(self._values)

    def set(self, name: str, value: Value) -> None:
        """Set one; it holds from the next frame on."""
        self._values[name] = value

    def restart(self, values: Setting) -> None:
        """Refuse: scripted engines do not relaunch."""
        raise Rejected(f"no relaunch here for {', '.join(sorted(values))}")


@dataclass(slots=True)
class Seen:
    """What was measured, in seconds."""

    append_s: list[float] = field(default_factory=list)
    """From an agent's hand to durable, of every frame."""
    tick_to_ack_s: list[float] = field(default_factory=list)
    """From the wall time of the tick that decided to the ack standing in the log, of every ack."""
    frame_to_ack_s: list[float] = field(default_factory=list)
    """The same with the append of the newest frame of the engine's node before it."""
    nacks: int = 0
    failures: int = 0
    """Appends that failed."""


class SocketFleet:
    """Agents and engines of one scripted pool, at real time, against the controller at `address`."""

    def __init__(self, pool: ScriptedPool, address: str, log: str, folder: Path) -> None:
        self._pool = pool
        self._address = address
        self._log = log
        self._attachers = [self._attacher(name, folder, number) for number, name in enumerate(pool.engines)]
        self._last_append_s: dict[str, float] = {}
        self.seen = Seen()

    async def run(self, settle_s: float, measure_s: float, cpu_s: Callable[[], float]) -> float:
        """Attach, let `settle_s` pass, measure for `measure_s`; the share of a core that `cpu_s` grew by meanwhile.

        Raises `Retryable` if not everybody is attached in time.
        """
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for attacher in self._attachers:
                tasks.create_task(attacher.run(stop))
            try:
                await self._attached()
                samplers = tasks.create_task(self._sample(stop))
                await asyncio.sleep(settle_s)
                self.seen = Seen()
                follower = tasks.create_task(self._follow(stop))
                began_s, used_s = time.monotonic(), cpu_s()
                await asyncio.sleep(measure_s)
                share = (cpu_s() - used_s) / (time.monotonic() - began_s)
            finally:
                stop.set()
            await follower
            await samplers
        return share

    def _attacher(self, name: str, folder: Path, number: int) -> Attacher:
        engine = self._pool.engines[name]
        receiver = Receiver(
            Target(pool=self._pool.pool, kind=TargetKind.ENGINE, name=name, incarnation=Incarnation("start-1")),
            SettingsSurface(ScriptedControls(engine.values)),
            ReceiverStore(folder / f"engine-{number}", durable=False),
            ReceiverLimits(),
            seed=1,
            now_s=time.monotonic(),
            wall_s=time.time(),
        )
        around = Surroundings(rng=random.Random(number), tell=_silent)
        return Attacher(receiver, (self._address,), grpc_streams(None), around)

    async def _attached(self) -> None:
        until_s = time.monotonic() + ATTACH_S
        while missing := [a for a in self._attachers if a.status.state is not AttachState.ATTACHED]:
            if time.monotonic() > until_s:
                said = f"{len(missing)} of {len(self._attachers)} receivers are not attached after {ATTACH_S:g} s"
                raise Retryable(f"{said}: {missing[0].status.why}")
            await asyncio.sleep(LOOK_S)

    async def _sample(self, stop: asyncio.Event) -> None:
        """One frame per node and second, the nodes spread over the second as independent agents are."""
        own = channel(self._address, None)
        append = AppendServiceStub(own).Append
        began_s = time.monotonic()
        second = 0
        async with asyncio.TaskGroup() as tasks:
            while not stop.is_set():
                frames = self._pool.frames(second)
                for number, frame in enumerate(frames):
                    due_s = began_s + (second + number / len(frames)) * PERIOD_S
                    await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                    tasks.create_task(self._append(append, frame))
                second += 1
        await own.close(None)

    async def _append(
        self, append: "grpc.UnaryUnaryMultiCallable[pb.AppendRequest, pb.AppendResponse]", frame: Frame
    ) -> None:
        placed = frame._replace(wall_s=time.time(), monotonic_s=time.monotonic())
        request = pb.AppendRequest(entries=[pb.AppendEntry(pool=placed.pool, record=encode_input(placed))])
        began_s = time.monotonic()
        try:
            await append(request, timeout=APPEND_S)
        except grpc.aio.AioRpcError:
            self.seen.failures += 1
            return
        took_s = time.monotonic() - began_s
        self.seen.append_s.append(took_s)
        for engine in placed.engines:
            self._last_append_s[engine.engine] = took_s

    async def _follow(self, stop: asyncio.Event) -> None:
        """Read the log's end as it grows: when each ack stands there, and which tick it answers."""
        log = await open_log(self._log, read_only=True)
        partition = log.partition_of(self._pool.pool)
        at = (await log.bounds(Topic.INPUTS, partition)).end
        ticks: dict[int, float] = {}
        while not stop.is_set():
            records = await log.read(Topic.INPUTS, partition, at, wait_s=LOOK_S)
            now_s = time.time()
            for record in records:
                at = record.offset + 1
                body = decode_input(record.offset, record.value).body
                if isinstance(body, Tick):
                    ticks[record.offset] = body.wall_s
                elif isinstance(body, Ack):
                    self._take(body, ticks, now_s)
        await log.close()

    def _take(self, ack: Ack, ticks: dict[int, float], now_s: float) -> None:
        self.seen.nacks += ack.status.value == "nack"
        ticked_s = ticks.get(ack.version.revision)
        append_s = self._last_append_s.get(ack.target)
        if ticked_s is None or append_s is None:
            return  # decided before the measurement began
        self.seen.tick_to_ack_s.append(now_s - ticked_s)
        self.seen.frame_to_ack_s.append(now_s - ticked_s + append_s)


def _silent(event: str, **fields: object) -> None:
    """Say nothing: the bench reports figures."""
    del event, fields
