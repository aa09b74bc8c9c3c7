"""Fault 30, at real sockets: one engine's certificate claims 100,000 engine ids, one agent's 100,000 engines and pools.

Against a controller in a process of its own, whose memory is looked at. In every run the attaches and the pools are
fewer, for each is a call or a frame of its own; the engine ids in frames are 100,000 in any case.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from flyball_agents.attaching import AttachLimits
from flyball_core.frames import EngineSample, Frame
from flyball_core.ids import EngineId, Incarnation
from flyball_core.inputs import Attach
from flyball_proto.codec import encode_input, receiver_message
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import channel
from flyball_service.config import TlsConfig
from flyball_service.tls import Tls
from harness.controller_calls import metric, pin, status
from harness.living_controller import engine, eventually, frame
from harness.scripted_engine import POOL
from issued_certificates import certify
from laboratory.callers import at_the_door, receiver_of
from laboratory.fleet import Fleet
from laboratory.processes import Actors
from laboratory.scale import report, scaled

ATTACHES = scaled(1_000, 100_000)
ENGINES = 100_000
POOLS = scaled(1_500, 100_000)
BOUND_BYTES = 32 * 2**20
PER_FRAME = 2_000
PEOPLE = (("controller", "c1"), ("engine", "e2"), ("engine", "liar"), ("agent", "liar"), ("operator", "o1"))


class Liar:
    """Two certificates in one hand: an engine's and an agent's."""

    def __init__(self, address: str, certificates: Path) -> None:
        self._engine = channel(address, Tls(TlsConfig(folder=certificates), role="engine", name="liar"))
        self._agent = channel(address, Tls(TlsConfig(folder=certificates), role="agent", name="liar"))
        # The stubs' types are the blocking ones; on an aio channel they give aio calls.
        self._append = cast("Any", rpc.AppendServiceStub(self._agent).Append)
        self._attach = cast("Any", rpc.AttachServiceStub(self._engine).Attach)
        self.refused = 0

    async def attach(self, number: int) -> grpc.StatusCode:
        """Attach as an engine of another name; what that came to."""
        said: Attach = engine(f"ghost-{number}").attach()
        call = self._attach()
        try:
            await call.write(receiver_message(said))
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        assert answer is not grpc.aio.EOF, "it was let in"
        call.cancel()
        return grpc.StatusCode.OK

    async def append(self, entries: list[pb.AppendEntry]) -> None:
        """Append as an agent that is told to come again comes again."""
        while True:
            try:
                await self._append(pb.AppendRequest(entries=entries), timeout=20.0)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self.refused += 1
                await asyncio.sleep(0.25)
            else:
                return

    async def close(self) -> None:
        """Let go."""
        await self._engine.close(None)
        await self._agent.close(None)


def invented(number: int) -> EngineSample:
    """A sample of an engine that is not there, with numbers that could be true."""
    return EngineSample(
        EngineId(f"ghost-{number}"), Incarnation("i"), 0, (), "graphs", requests_running=90.0, kv_used_ratio=0.9
    )


async def claims_engines(liar: Liar) -> None:
    """100,000 engine ids in the frames of one agent."""
    for seq in range(ENGINES // PER_FRAME):
        samples = tuple(invented(seq * PER_FRAME + i) for i in range(PER_FRAME))
        record = encode_input(frame(seq, agent="liar")._replace(engines=samples, gpus=()))
        await liar.append([pb.AppendEntry(pool=POOL, record=record)])


async def claims_pools(liar: Liar) -> None:
    """Pool after pool, a frame each."""
    for first in range(0, POOLS, 100):
        names = [f"ghosts-{number}" for number in range(first, min(first + 100, POOLS))]
        await liar.append([pb.AppendEntry(pool=name, record=encode_input(_empty(name))) for name in names])


def _empty(pool: str) -> Frame:
    return frame(0, agent="liar", pool=pool, engines=("ghost",))


@pytest.mark.timeout(scaled(120, 3600))
async def test_f30_one_client_claims_100000_engine_ids_and_others_notice_nothing(tmp_path: Path) -> None:
    """Identity from the certificate: 0 ghosts attached, capped engines and pools, < 32 MiB, another engine unmoved."""
    certificates = tmp_path / "certificates"
    for role, name in PEOPLE:
        certify(certificates, role, name)
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, str(tmp_path / "log"))
        controller = fleet.controller("c1")
        file = tmp_path / "c1.yaml"
        file.write_text(file.read_text().replace("tls: none", f"tls: {{folder: {certificates}}}"))
        controller.start()
        address, http = fleet.doors["c1"]
        await controller.process.ready(http)
        operator = Tls(TlsConfig(folder=certificates), role="operator", name="o1")
        receiver = receiver_of(tmp_path / "e2", "e2")
        own = Tls(TlsConfig(folder=certificates), role="engine", name="e2")
        async with at_the_door(receiver, [address], own) as attacher:
            counts = attacher.conversation.counts
            await eventually(lambda: counts.heartbeats, bool)
            await pin(address, 60, tls=operator)
            await eventually(lambda: receiver.held.version, lambda version: version is not None)
            held, settings, before_bytes = receiver.held.version, receiver.attach().effective, controller.rss_bytes()
            liar, longest_s = Liar(address, certificates), 0.0
            attack = asyncio.gather(claims_engines(liar), claims_pools(liar), _attaches(liar))
            heard, at_s = counts.heartbeats, time.monotonic()
            while not attack.done():
                await asyncio.sleep(0.02)
                if counts.heartbeats > heard:
                    longest_s = max(longest_s, time.monotonic() - at_s)
                    heard, at_s = counts.heartbeats, time.monotonic()
            codes = attack.result()[2]
            grown_bytes = controller.rss_bytes() - before_bytes
            refused = await metric(http, "flyball_controller_callers_refused_total", reason="name")
            told = await status(address, tls=operator)
            [chat] = [pool for pool in told.pools if pool.pool == POOL]
            after = receiver.held.version, receiver.attach().effective, attacher.status.streams
            await liar.close()

    assert {grpc.StatusCode.PERMISSION_DENIED} == set(codes)
    assert ATTACHES == len(codes) == refused
    assert (held, settings, 1) == after
    assert ["e2"] == [target.target for target in chat.targets if target.attached]
    assert len(chat.targets) <= 1 + 1_024
    assert len(told.pools) <= 1 + 32
    assert grown_bytes < BOUND_BYTES
    assert longest_s < AttachLimits().silent_s  # else its receiver would have left the controller
    report(
        "f30",
        grown_mib=grown_bytes / 2**20,
        longest_without_heartbeat_s=longest_s,
        attaches=ATTACHES,
        pools=POOLS,
        appends_refused=liar.refused,
    )


async def _attaches(liar: Liar) -> list[grpc.StatusCode]:
    codes: list[grpc.StatusCode] = []
    for first in range(0, ATTACHES, 8):
        codes += await asyncio.gather(*(liar.attach(number) for number in range(first, min(first + 8, ATTACHES))))
    return codes
