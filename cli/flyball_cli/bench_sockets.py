"""The scripted pool beside a running controller, over real sockets: what `flyball bench plane` measures with.

Each node appends its frame over gRPC once a second, at a moment of its own; each engine has a real receiver with an
attach stream of its own; no two share a connection. All of them live in this process, so what they wait for each
other is measured as well. Receivers' stores are in memory where that can be had: the engines of a fleet do not share
one disk.
"""

import asyncio
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

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
from flyball_core.ids import Incarnation
from flyball_core.inputs import TargetKind
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_proto.codec import encode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceStub
from flyball_service.channels import channel

if TYPE_CHECKING:
    _Append = grpc.aio.UnaryUnaryMultiCallable[pb.AppendRequest, pb.AppendResponse]

PERIOD_S = 1.0
"""Between two frames of a node, and between two ticks."""
APPEND_S = 5.0
"""Longest wait for one append."""
ATTACH_S = 60.0
"""Longest wait until everybody is attached."""
LAST_ACKS_S = 2.0
"""So long acks are waited for that the last tick measured has caused."""
_LOOK_S = 0.2


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


class Appended(NamedTuple):
    """One append of a frame that went well."""

    node: int
    ended_s: float
    """Wall time at which the agent was told that its frame is durable."""
    took_s: float
    """From the agent's hand to that."""


@dataclass(slots=True, kw_only=True)
class Ran:
    """What the fleet itself saw while it was measured."""

    began_s: float
    """Wall time."""
    ended_s: float = 0.0
    controller_cpu_share: float = 0.0
    """Of one core, of the controller's process."""
    fleet_cpu_share: float = 0.0
    """Of one core, of this process, where all agents and engines live."""
    appends: list[Appended] = field(default_factory=list)
    """Of every frame, in the order in which they ended."""
    failed_appends: int = 0


class SocketFleet:
    """Agents and engines of one scripted pool, at real time, against the controller at `address`."""

    def __init__(self, pool: ScriptedPool, address: str, folder: Path) -> None:
        self._pool = pool
        self._address = address
        self._attachers = [self._attacher(name, folder, number) for number, name in enumerate(pool.engines)]
        self._ran = Ran(began_s=0.0)

    async def run(self, settle_s: float, measure_s: float, cpu_s: Callable[[], float]) -> Ran:
        """Attach, let `settle_s` pass, measure for `measure_s`; `cpu_s` tells the CPU seconds of the controller.

        Raises `Retryable` if not everybody is attached in time.
        """
        stop = asyncio.Event()
        gc.collect()
        gc.freeze()  # as services do; one collection would stop the whole fleet at once, which no real fleet does
        async with asyncio.TaskGroup() as tasks:
            for attacher in self._attachers:
                tasks.create_task(attacher.run(stop))
            try:
                await self._attached()
                began_s = time.monotonic()
                for node in range(self._pool.nodes):
                    tasks.create_task(self._node(node, began_s, stop))
                await asyncio.sleep(settle_s)
                await self._measure(measure_s, cpu_s)
                ran, self._ran = self._ran, Ran(began_s=0.0)
                await asyncio.sleep(LAST_ACKS_S)
            finally:
                stop.set()
                gc.unfreeze()
        return ran

    async def _measure(self, measure_s: float, cpu_s: Callable[[], float]) -> None:
        ran = self._ran = Ran(began_s=time.time())
        began_s, used_s, own_s = time.monotonic(), cpu_s(), time.process_time()
        await asyncio.sleep(measure_s)
        took_s = time.monotonic() - began_s
        ran.controller_cpu_share = (cpu_s() - used_s) / took_s
        ran.fleet_cpu_share = (time.process_time() - own_s) / took_s
        ran.ended_s = time.time()

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
            await asyncio.sleep(_LOOK_S)

    async def _node(self, number: int, began_s: float, stop: asyncio.Event) -> None:
        """One node's agent: a frame a second, at this node's own moment within it."""
        own = channel(self._address, None)
        # The stub's type is the blocking one; on an aio channel it gives aio calls.
        append = cast("_Append", AppendServiceStub(own).Append)
        second = 0
        while not stop.is_set():
            due_s = began_s + (second + number / self._pool.nodes) * PERIOD_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await self._append(append, number, second)
            second += 1
        await own.close(None)

    async def _append(self, append: "_Append", number: int, second: int) -> None:
        frame = self._pool.frame(number, second)._replace(wall_s=time.time(), monotonic_s=time.monotonic())
        request = pb.AppendRequest(entries=[pb.AppendEntry(pool=frame.pool, record=encode_input(frame))])
        began_s = time.monotonic()
        try:
            await append(request, timeout=APPEND_S)
        except grpc.aio.AioRpcError:
            self._ran.failed_appends += 1
            return
        self._ran.appends.append(Appended(number, time.time(), time.monotonic() - began_s))


def _silent(event: str, **fields: object) -> None:
    """Say nothing: the bench reports figures."""
    del event, fields
