"""Appends from other nodes into an embedded log: frames, whole batches, in bounds."""

import asyncio
from collections.abc import Sequence

import grpc
import pytest

from flyball_controller.serving import append_door
from flyball_controller.serving.append_door import MAX_ENTRIES, check_entry
from flyball_controller.serving.refusals import Refusal
from flyball_core.ids import PoolId
from flyball_core.inputs import Order
from flyball_proto.codec import encode_input
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.tls import Identity
from plane_clients import Running, append, eventually, frame, status, stub

PAUSE = Order(pool=PoolId("chat"), author="eve", paused=True)


def entry(seq: int = 1, *, key: str = "chat", pool: str = "chat") -> pb.AppendEntry:
    """A frame of a pool under a key."""
    return pb.AppendEntry(pool=key, record=encode_input(frame(seq, pool=pool)))


async def refused(address: str, entries: Sequence[pb.AppendEntry]) -> grpc.aio.AioRpcError:
    """How an append of these entries is refused."""
    async with stub(rpc.AppendServiceStub, address) as agents:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await agents.Append(pb.AppendRequest(entries=entries))
    return error.value


async def test_offsets_come_back_in_the_order_of_the_entries(controller: Running) -> None:
    """Frames of several pools go to their partitions, and each entry's offset stands in its place."""
    address = controller.addresses.grpc
    pools = [f"p{number % 5}" for number in range(20)]
    offsets = await append(address, [frame(seq, pool=pool) for seq, pool in enumerate(pools)])
    by_pool = {pool: [at for at, its in zip(offsets, pools, strict=True) if its == pool] for pool in set(pools)}

    assert all(found == sorted(set(found)) for found in by_pool.values())
    told = await eventually(lambda: status(address), lambda answer: len(answer.pools) == 6)
    assert 20 == sum(pool.counts["delivered"] for pool in told.pools)
    assert 20 == await controller.metric("flyball_controller_appended_records_total")
    assert 0 < await controller.metric("flyball_controller_appended_bytes_total")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (pb.AppendEntry(pool="chat", record=encode_input(PAUSE)), "Order"),
        (pb.AppendEntry(pool="chat", record=b"\xff\xff"), "not an InputRecord"),
        (pb.AppendEntry(pool="chat", record=b""), "unknown kind of input"),
        (entry(key="bulk"), "a frame of pool 'chat' under the key 'bulk'"),
        (entry(key="", pool=""), "a frame of pool '' under the key ''"),
    ],
)  # fmt: skip
async def test_one_wrong_entry_keeps_the_whole_batch_out(
    controller: Running, wrong: pb.AppendEntry, words: str
) -> None:
    """Agents append nothing but frames, each under its pool; the refusal names the entry, and nothing was appended."""
    address = controller.addresses.grpc
    error = await refused(address, [entry(1), wrong])

    assert grpc.StatusCode.INVALID_ARGUMENT is error.code()
    assert "entry 1: " in str(error.details())
    assert words in str(error.details())
    assert 0 == await controller.metric("flyball_controller_appended_records_total")
    assert 1 == await controller.metric("flyball_controller_appends_refused_total", reason="not_a_frame")


async def test_a_batch_has_bounds(controller: Running) -> None:
    """More entries than are taken at once are refused with the limit; a message beyond the door's bound is cut off."""
    address = controller.addresses.grpc
    one = entry()
    error = await refused(address, [one] * (MAX_ENTRIES + 1))

    assert grpc.StatusCode.INVALID_ARGUMENT is error.code()
    assert "at most 1000" in str(error.details())
    huge = pb.AppendEntry(pool="chat", record=bytes(5 * 1024 * 1024))

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is (await refused(address, [huge])).code()


async def test_a_record_that_the_log_does_not_take_is_refused(controller: Running) -> None:
    """A frame of more than 256 KiB is the agent's to divide: it is told so."""
    address = controller.addresses.grpc
    large = frame(1, engines=[f"engine-{number}-{'x' * 100}" for number in range(2_000)])
    error = await refused(address, [pb.AppendEntry(pool="chat", record=encode_input(large))])

    assert grpc.StatusCode.INVALID_ARGUMENT is error.code()
    assert "the limit is" in str(error.details())


async def test_too_much_at_once_is_told_to_come_again(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many appends at once those beyond the bound are told to come again; the others are taken, none hangs."""
    batches = [
        [pb.AppendEntry(pool="chat", record=encode_input(frame(seq, agent=f"a{agent:02}"))) for seq in range(100)]
        for agent in range(20)
    ]
    size = sum(len(one.record) for one in batches[0])
    monkeypatch.setattr(append_door, "MAX_UNDER_WAY_BYTES", 3 * size)
    async with stub(rpc.AppendServiceStub, controller.addresses.grpc) as agents:
        answers = await asyncio.gather(
            *(agents.Append(pb.AppendRequest(entries=batch)) for batch in batches), return_exceptions=True
        )
    refusals = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]

    assert 0 < len(refusals) < len(answers)
    assert {grpc.StatusCode.RESOURCE_EXHAUSTED} == {one.code() for one in refusals}
    assert len(refusals) == await controller.metric("flyball_controller_appends_refused_total", reason="busy")
    assert 100 * len(refusals) == await controller.metric("flyball_controller_frames_shed_total", reason="busy")


def test_under_tls_an_agent_appends_as_itself_only() -> None:
    """A frame that names another agent than the certificate does is refused, with both named."""
    check_entry(0, entry(), Identity("agent", "a0"))
    with pytest.raises(Refusal, match=r"agent 'a0', and the certificate is of 'a1'") as refusal:
        check_entry(0, entry(), Identity("agent", "a1"))

    assert grpc.StatusCode.PERMISSION_DENIED is refusal.value.code
