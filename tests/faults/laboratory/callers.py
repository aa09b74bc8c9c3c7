"""Those who call a controller: every RPC that there is, and production receivers at its door."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from flyball_agents.attach_stream import grpc_streams
from flyball_agents.attaching import Attacher, AttachLimits, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.gateway_adapter import TableDefaults, TableSurface
from flyball_agents.offers import Target
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.surface import Surface
from flyball_cli.bench_sockets import ScriptedControls
from flyball_core.ids import Incarnation, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, Value
from flyball_proto.v1 import services_pb2
from flyball_service.tls import Tls
from harness.scripted_engine import POOL
from laboratory.receiving import Table

CALL_S = 10.0
"""Longest wait for an answer, whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """One RPC, as the generated descriptors have it."""

    path: str
    request: Any
    answer: Any
    streams_in: bool
    streams_out: bool

    async def call(self, channel: grpc.aio.Channel) -> tuple[grpc.StatusCode, str]:
        """Call it with an empty message; what it came to."""
        coders = {"request_serializer": self.request.SerializeToString, "response_deserializer": self.answer.FromString}
        try:
            async with asyncio.timeout(CALL_S):
                if not self.streams_out:
                    await channel.unary_unary(self.path, **coders)(self.request(), timeout=CALL_S)
                    return grpc.StatusCode.OK, ""
                if self.streams_in:
                    both = channel.stream_stream(self.path, **coders)()
                    await both.write(self.request())
                    answer = await both.read()
                else:
                    answer = await channel.unary_stream(self.path, **coders)(self.request(), timeout=CALL_S).read()
        except grpc.aio.AioRpcError as error:
            return error.code(), str(error.details())
        assert answer is not None
        return grpc.StatusCode.OK, ""


def every_rpc() -> Sequence[Rpc]:
    """All RPCs of all services of the wire contract, whatever they will be."""
    return [
        Rpc(
            path=f"/{service.full_name}/{method.name}",
            request=GetMessageClass(method.input_type),
            answer=GetMessageClass(method.output_type),
            streams_in=method.client_streaming,
            streams_out=method.server_streaming,
        )
        for service in services_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def receiver_of(folder: Path, name: str, kind: TargetKind = TargetKind.ENGINE) -> Receiver:
    """A production receiver with settings in memory; what it holds is in `folder`."""
    target = Target(pool=PoolId(POOL), kind=kind, name=name, incarnation=Incarnation("i0"))
    values: dict[str, Value] = {BATCH_CAP: 16, VARIANT: "graphs"}
    surface: Surface = SettingsSurface(ScriptedControls(values))
    if kind is TargetKind.GATEWAY:
        surface = TableSurface(Table({}, {}), TableDefaults())
    store = ReceiverStore(folder, durable=False)
    return Receiver(target, surface, store, ReceiverLimits(), seed=1, now_s=time.monotonic(), wall_s=time.time())


@asynccontextmanager
async def at_the_door(
    receiver: Receiver, addresses: Sequence[str], tls: Tls | None, limits: AttachLimits | None = None
) -> AsyncIterator[Attacher]:
    """A receiver that is kept attached by the production attacher."""
    around = Surroundings(rng=random.Random(receiver.target.name))
    attacher = Attacher(receiver, addresses, grpc_streams(tls), around, limits or AttachLimits(poll_s=0.1))
    stop = asyncio.Event()
    running = asyncio.create_task(attacher.run(stop))
    try:
        yield attacher
    finally:
        stop.set()
        await running
