"""Fault 12, at the doors: messages too large, packed small, cut off or no protobuf, at every RPC of a controller."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from flyball_core.frames import Frame
from flyball_proto.codec import decode_input
from flyball_proto.v1 import services_pb2 as pb
from harness.controller_calls import append
from laboratory.fleet import Fleet
from laboratory.flooding import first_frame
from laboratory.processes import Actor, Actors, until
from laboratory.scale import report

MIB = 2**20
TEN_MIB = bytes(10 * MIB)
GROWTH_BYTES = 32 * MIB
CALL_S = 20.0
UP_S = 60.0

METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

NESTED = b"\x0b" * 10_000
"""Groups within groups, ten thousand deep, each an unknown field."""
CUT_OFF = pb.AppendRequest(entries=[pb.AppendEntry(pool="chat", record=b"x" * 100)]).SerializeToString()[:-40]
GARBAGE = {
    "no protobuf": b"\xff" * 1_000,
    "cut off": CUT_OFF,
    "nested deep": NESTED,
    "a length of 4 GiB": b"\x0a\xff\xff\xff\xff\x0f",
}


def as_is(message: bytes) -> bytes:
    """What is sent is bytes."""
    return message


async def call(own: grpc.aio.Channel, method: str, message: bytes) -> grpc.StatusCode:
    """How a call with these bytes for a message ends."""
    kind = METHODS[method]
    making: dict[tuple[bool, bool], Callable[..., Any]] = {
        (False, False): own.unary_unary,
        (False, True): own.unary_stream,
        (True, True): own.stream_stream,
    }
    ask = making[kind.client_streaming, kind.server_streaming](method, as_is, as_is)
    try:
        if kind.client_streaming:
            stream = ask(timeout=CALL_S)
            await _heard(stream.write(message))
            await stream.read()
        elif kind.server_streaming:
            await ask(message, timeout=CALL_S).read()
        else:
            await ask(message, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def _heard(writing: Awaitable[None]) -> None:
    """Write; a call that is over already says so when it is read."""
    try:
        await writing
    except asyncio.InvalidStateError:
        return


async def at_each_rpc(
    address: str, message: bytes, compression: grpc.Compression | None = None
) -> dict[str, grpc.StatusCode]:
    """How a call of every RPC ends, two in turn on one connection."""
    options = (("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options, compression=compression) as own:
        return {method: await call(own, method, message) for method in METHODS for _ in range(2)}


def test_f12_every_service_of_the_contract_is_tried() -> None:
    """Ten RPCs of four services today; a new one is tried without anybody thinking of it."""
    assert {"AppendService", "AttachService", "OperatorReadService", "OperatorWriteService"} <= {
        method.split(".")[-1].split("/")[0] for method in METHODS
    }
    assert len(METHODS) >= 10


@pytest.mark.timeout(240)
async def test_f12_10_mib_and_malformed_messages_at_every_rpc_are_refused_with_rss_growth_below_32_mib(
    tmp_path: Path,
) -> None:
    """RESOURCE_EXHAUSTED before anything is made of it; what is no message is refused; the doors stay open."""
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, "log")
        controller = fleet.controller("c1")
        controller.start()
        await until("a tick", lambda: ticks(fleet), UP_S)
        address = fleet.doors["c1"][0]
        await at_each_rpc(address, b"\xff")  # what is loaded at the first call of all is not growth
        before, peak = controller.rss_bytes(), Peak(controller)
        watching = asyncio.create_task(peak.watch())
        large = await at_each_rpc(address, TEN_MIB)
        packed = await at_each_rpc(address, bytes(100 * MIB), grpc.Compression.Gzip)
        odd = {what: await at_each_rpc(address, message) for what, message in GARBAGE.items()}
        watching.cancel()
        growth = peak.bytes - before
        ticked = await ticks(fleet)
        await append(address, [a_frame()])
        await until("more ticks, and the frame", lambda: later(fleet, ticked), UP_S)
        lines = controller.lines

    report("f12 grpc", growth_mib=round(growth / MIB, 1), rpcs=len(METHODS))
    assert dict.fromkeys(METHODS, grpc.StatusCode.RESOURCE_EXHAUSTED) == large
    assert dict.fromkeys(METHODS, grpc.StatusCode.RESOURCE_EXHAUSTED) == packed
    allowed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNKNOWN}
    assert {} == {what: ended for what, ended in odd.items() if not allowed.issuperset(ended.values())}
    assert growth < GROWTH_BYTES
    assert "call_failed" not in lines, "what a stranger sends is no failure of ours"


def a_frame() -> Frame:
    """A sound frame."""
    body = decode_input(0, first_frame("a0", "chat", backlog=False).SerializeToString()).body
    assert isinstance(body, Frame)
    return body


async def ticks(fleet: Fleet) -> float:
    """How many ticks there were; 0 while nobody answers."""
    if await fleet.waits_for("c1") is None:
        return 0.0
    return await fleet.metric("c1", "flyball_controller_tick_seconds_count")


async def later(fleet: Fleet, ticked: float) -> bool:
    """Whether it has ticked on and read the frame."""
    pool = await fleet.pool()
    return await ticks(fleet) > ticked + 2 and pool is not None and pool.counts["delivered"] == 1


class Peak:
    """The most memory that a process holds while it is watched."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self.bytes = actor.rss_bytes()

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            self.bytes = max(self.bytes, self._actor.rss_bytes())
            await asyncio.sleep(0.02)
