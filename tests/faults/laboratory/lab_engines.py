"""Many engines in one process, each with a production receiver and an attach stream of its own, that write the record.

The engines are scripted: settings in memory, at launch at their safe values. Everything between controller and
setting is the product's: attacher, conversation, receiver, store. Started again on the same folder it is a new
incarnation of each engine, with what that engine had persisted. With `--frames` it is their node agents too,
without a spool: load, and something to decide on.

    --controllers HOST:PORT,...  --engines e0,e1,... | --count N --prefix e  --pool chat  --state FOLDER
    --record FOLDER  [--name engines]  [--http HOST:PORT]  [--gateway gw0]  [--tls FOLDER]  [--hold SECONDS]
    [--pause SECONDS] [--frames]  [--no-fsync]

GET `/engines` tells of each engine (and of the gateway under its name) what `told` says, GET `/summary` how many are
attached and what versions they hold, `/appends` when which node's frames were taken; `/ready` is 200 once all are
attached. POST `/break` breaks all connections to controllers, as a switch that restarts, and answers how many.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
from aiohttp import web

from flyball_agents.attach_stream import grpc_streams
from flyball_agents.attaching import Attacher, AttachLimits, AttachState, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import TableDefaults, TableSurface
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.surface import Surface
from flyball_cli.bench_fleet import ScriptedPool
from flyball_cli.bench_sockets import ScriptedControls
from flyball_core.addresses import split_address
from flyball_core.fencing import Version
from flyball_core.ids import BootId, Incarnation, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import Value
from flyball_proto.codec import encode_input
from flyball_proto.v1 import services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceStub
from flyball_service.channels import channel
from flyball_service.config import TlsConfig
from flyball_service.tls import Tls
from laboratory.receiving import Table, TellingStore
from laboratory.record import Applied, Recorder

if TYPE_CHECKING:
    _Append = grpc.aio.UnaryUnaryMultiCallable[pb.AppendRequest, pb.AppendResponse]

PER_NODE = 8
"""Engines whose telemetry comes in one frame."""
FRAME_S = 1.0
MOST_APPENDS = 100_000
APPEND_S = 5.0
"""Longest wait for one append; a frame that is not taken by then is dropped, and counted."""


class LabEngines:
    """The engines that the arguments name, attached for as long as `run` runs."""

    def __init__(self, arguments: argparse.Namespace, recorder: Recorder) -> None:
        self._arguments = arguments
        self._recorder = recorder
        self._incarnation = Incarnation(uuid.uuid4().hex[:12])
        names = arguments.engines or [f"{arguments.prefix}{number}" for number in range(arguments.count)]
        nodes = -(-len(names) // PER_NODE)
        self._scripted = ScriptedPool(
            arguments.pool,
            nodes=nodes,
            per_node=PER_NODE,
            node=f"{arguments.name}-node",
            names=names,
            incarnation=self._incarnation,
        )
        self._names: tuple[str, ...] = tuple(names)
        self.frames: Counter[str] = Counter()
        """Frames by what became of them: `delivered`, `dropped`."""
        self.appends: deque[tuple[int, float, float]] = deque(maxlen=MOST_APPENDS)
        """Of each frame that was taken: its node's number, the wall time of the answer, the seconds it took."""
        self.attachers = {name: self._engine(name) for name in self._names}
        if arguments.gateway:
            self.attachers[arguments.gateway] = self._gateway(arguments.gateway)

    async def run(self, stop: asyncio.Event) -> None:
        """Stay attached, and tell whoever asks, until `stop`."""
        http = await self._serve()
        try:
            async with asyncio.TaskGroup() as tasks:
                for attacher in self.attachers.values():
                    tasks.create_task(attacher.run(stop))
                if self._arguments.frames:
                    for node in range(self._scripted.nodes):
                        tasks.create_task(self._node(node, stop))
        finally:
            await http.cleanup()

    def told(self, name: str) -> dict[str, Any]:
        """What an engine is, holds and has met, in plain data."""
        attacher = self.attachers[name]
        receiver, status = attacher.conversation.receiver, attacher.status
        held = receiver.held
        return {
            "incarnation": receiver.target.incarnation,
            "state": status.state.value,
            "controller": status.controller,
            "why": status.why,
            "streams": status.streams,
            "silences": status.silences,
            "refusals": status.refusals,
            "phase": attacher.conversation.phase.value,
            "lease_s": round(attacher.lease_s(), 3),
            "held": _plain(held.version),
            "log_id": held.log_id,
            "refused": _plain(held.refused),
            "refusal": held.refusal,
            "eased": held.eased,
            "values": dict(receiver.attach().effective),
            "acks": {status.value: count for status, count in attacher.conversation.counts.acks.items()},
            "renewals": attacher.conversation.counts.renewals,
            "trouble": receiver.trouble or status.trouble,
        }

    def summary(self) -> dict[str, Any]:
        """How many there are and are attached, frames by what became of them, and versions held, by EPOCH/REVISION."""
        held = [attacher.conversation.receiver.held.version for attacher in self.attachers.values()]
        return {
            "engines": len(self.attachers),
            "attached": self._attached(),
            "streams": sum(attacher.status.streams for attacher in self.attachers.values()),
            "frames": dict(self.frames),
            "held": dict(Counter("" if one is None else f"{one.epoch}/{one.revision}" for one in held)),
        }

    def _attached(self) -> int:
        return sum(attacher.status.state is AttachState.ATTACHED for attacher in self.attachers.values())

    def _engine(self, name: str) -> Attacher:
        controls = ScriptedControls(self._scripted.engines[name].values)
        return self._attacher(TargetKind.ENGINE, name, SettingsSurface(controls))

    def _gateway(self, name: str) -> Attacher:
        controls = Table(dict.fromkeys(self._names, 100), dict.fromkeys(self._names, 0))
        return self._attacher(TargetKind.GATEWAY, name, TableSurface(controls, TableDefaults()))

    def _attacher(self, kind: TargetKind, name: str, surface: Surface) -> Attacher:
        arguments = self._arguments
        target = Target(pool=PoolId(arguments.pool), kind=kind, name=name, incarnation=self._incarnation)
        taken = partial(self._taken, target)
        store = TellingStore(arguments.state / name, taken, durable=arguments.fsync)
        limits = ReceiverLimits(hold_s=arguments.hold)
        receiver = Receiver(target, surface, store, limits, seed=1, now_s=time.monotonic(), wall_s=time.time())
        around = Surroundings(rng=random.Random(f"{self._incarnation} {name}"), tell=_silent)
        patience = AttachLimits(most_pause_s=arguments.pause)
        return Attacher(receiver, arguments.controllers, grpc_streams(self._tls(kind.value, name)), around, patience)

    def _taken(self, target: Target, version: Version, values: Mapping[str, Value]) -> None:
        applied = Applied(
            at_s=time.time(),
            target=target.name,
            kind="gateway" if target.kind is TargetKind.GATEWAY else "engine",
            incarnation=target.incarnation,
            version=version,
            values=dict(values),
        )
        self._recorder.write(applied)

    def _tls(self, role: str, name: str) -> Tls | None:
        folder = self._arguments.tls
        return None if folder is None else Tls(TlsConfig(folder=folder), role=role, name=name)

    async def _serve(self) -> web.AppRunner:
        async def engines(_: web.Request) -> web.Response:
            return web.json_response({name: self.told(name) for name in self.attachers})

        async def summary(_: web.Request) -> web.Response:
            return web.json_response(self.summary())

        async def appends(_: web.Request) -> web.Response:
            return web.json_response({"appends": list(self.appends), "node_of": self._scripted.node_of})

        async def break_all(_: web.Request) -> web.Response:
            return web.json_response({"broken": broken_connections(self._arguments.controllers)})

        async def ready(_: web.Request) -> web.Response:
            return web.json_response(self.summary(), status=200 if self._attached() == len(self.attachers) else 503)

        app = web.Application()
        app.add_routes([web.get("/engines", engines), web.get("/summary", summary), web.get("/ready", ready)])
        app.add_routes([web.get("/appends", appends), web.post("/break", break_all)])
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, *split_address(self._arguments.http)).start()
        return runner

    async def _node(self, number: int, stop: asyncio.Event) -> None:
        """One node's agent: a frame each second, at a moment of its own, to the controller that takes it."""
        boot, turn, second = BootId(self._incarnation), 0, 0
        own = self._append_channel(turn, number)
        began_s = time.monotonic() + FRAME_S * number / self._scripted.nodes
        try:
            while not await _stopped(stop, began_s + second * FRAME_S):
                frame = self._scripted.frame(number, second)
                frame = frame._replace(boot=boot, wall_s=time.time(), monotonic_s=time.monotonic())
                second += 1
                request = pb.AppendRequest(entries=[pb.AppendEntry(pool=frame.pool, record=encode_input(frame))])
                # The stub's type is the blocking one; on an aio channel it gives aio calls.
                append = cast("_Append", AppendServiceStub(own).Append)
                asked_s = time.monotonic()
                try:
                    await append(request, timeout=APPEND_S)
                    self.frames["delivered"] += 1
                    self.appends.append((number, time.time(), time.monotonic() - asked_s))
                except grpc.aio.AioRpcError:
                    self.frames["dropped"] += 1
                    turn += 1
                    await own.close(None)
                    own = self._append_channel(turn, number)
        finally:
            await own.close(None)

    def _append_channel(self, turn: int, number: int) -> grpc.aio.Channel:
        controllers = self._arguments.controllers
        return channel(controllers[turn % len(controllers)], self._tls("agent", self._scripted.node_name(number)))


def main(words: Sequence[str] | None = None) -> None:
    """Run until a signal ends it."""
    arguments = _parsed(words)
    with Recorder(arguments.record, arguments.name) as recorder:
        asyncio.run(_until_signalled(LabEngines(arguments, recorder)))


async def _until_signalled(engines: LabEngines) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await engines.run(stop)


def _parsed(words: Sequence[str] | None) -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser()
    parser.add_argument("--controllers", type=listed, required=True)
    parser.add_argument("--engines", type=listed)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--prefix", default="e")
    parser.add_argument("--pool", default="chat")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--name", default="engines", help="of its file in the record, and of its nodes")
    parser.add_argument("--http", default="127.0.0.1:0")
    parser.add_argument("--gateway")
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--hold", type=float, default=1800.0)
    parser.add_argument("--pause", type=float, default=AttachLimits().most_pause_s, help="longest before a next try")
    parser.add_argument("--frames", action="store_true")
    parser.add_argument("--no-fsync", dest="fsync", action="store_false", help="kills lose nothing; power cuts would")
    return parser.parse_args(words)


def broken_connections(addresses: Sequence[str]) -> int:
    """Break every connection of this process to these; how many there were. Their owners find out as they would."""
    ports = {split_address(address)[1] for address in addresses}
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, or not connected
            if not str(fd.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(fd.name))) as one:
                if one.family != socket.AF_UNIX and one.getpeername()[1] in ports:
                    one.shutdown(socket.SHUT_RDWR)
                    count += 1
    return count


async def _stopped(stop: asyncio.Event, until_s: float) -> bool:
    """Whether `stop` was set before that monotonic time."""
    try:
        async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def _plain(version: Version | None) -> list[str | int] | None:
    return None if version is None else [version.log_id, version.partition, version.epoch, version.revision]


def _silent(event: str, **fields: object) -> None:
    """Say nothing: whoever wants to know asks."""
    del event, fields
