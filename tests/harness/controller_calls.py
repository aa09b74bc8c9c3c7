"""What agents and operators ask of a controller's doors, in one call each; for tests of whatever kind of controller."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import prometheus_client.parser

from flyball_core.frames import Frame
from flyball_core.knobs import BATCH_CAP
from flyball_proto.codec import encode_input
from flyball_proto.v1 import common_pb2, inputs_pb2, services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import channel
from flyball_service.tls import Tls
from harness.scripted_engine import POOL

PATIENCE_S = 20.0
"""Longest wait of a test for what must come."""


async def page(http: str, path: str) -> tuple[int, str]:
    """Status and text of a page of an HTTP door."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{http}{path}") as answer:
        return answer.status, await answer.text()


async def metric(http: str, name: str, **labels: str) -> float:
    """One number of `/metrics`; 0 if it is not there."""
    _, text = await page(http, "/metrics")
    for family in prometheus_client.parser.text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


@asynccontextmanager
async def stub(kind: Callable[[grpc.aio.Channel], Any], address: str, tls: Tls | None = None) -> AsyncIterator[Any]:
    """A stub of a service of the controller at `address`."""
    own = channel(address, tls)
    try:
        yield kind(own)
    finally:
        await own.close(None)


async def append(address: str, frames: Sequence[Frame], tls: Tls | None = None) -> list[int]:
    """Append frames as an agent does; their offsets."""
    entries = [pb.AppendEntry(pool=one.pool, record=encode_input(one)) for one in frames]
    async with stub(rpc.AppendServiceStub, address, tls) as agents:
        answer = await agents.Append(pb.AppendRequest(entries=entries))
    return list(answer.offsets)


async def status(
    address: str, pool: str = "", tls: Tls | None = None, within_s: float = PATIENCE_S
) -> pb.StatusResponse:
    """What the controller says of itself and its pools."""
    async with stub(rpc.OperatorReadServiceStub, address, tls) as operator:
        answer = await operator.Status(pb.StatusRequest(pool=pool), timeout=within_s)
    assert isinstance(answer, pb.StatusResponse)
    return answer


async def target(address: str, name: str = "e1") -> pb.TargetStatus:
    """What is known of one target; an empty one if nothing is."""
    for pool in (await status(address)).pools:
        for one in pool.targets:
            if one.target == name:
                return one
    return pb.TargetStatus()


async def pin(  # noqa: PLR0913 - each says another thing of the order
    address: str,
    value: int,
    *,
    author: str = "ada",
    tls: Tls | None = None,
    pool: str = POOL,
    engine: str = "",
    override_id: str = "o1",
    within_s: float = PATIENCE_S,
) -> pb.WriteResponse:
    """Pin the batch cap of one engine, or of all of the pool."""
    order = inputs_pb2.OverrideSet(
        pool=pool,
        override_id=override_id,
        knob=BATCH_CAP,
        value=common_pb2.Value(integer=value),
        target=engine,
        expires_wall_s=time.time() + 7200.0,
        reason="a test",
        author=author,
    )
    async with stub(rpc.OperatorWriteServiceStub, address, tls) as operator:
        answer = await operator.SetOverride(order, timeout=within_s)
    assert isinstance(answer, pb.WriteResponse)
    return answer


async def apply_policy(
    address: str, text: str, *, pool: str = POOL, author: str = "ada", within_s: float = PATIENCE_S
) -> pb.WriteResponse:
    """Put a policy document in force."""
    order = inputs_pb2.PolicyText(pool=pool, text=text, author=author)
    async with stub(rpc.OperatorWriteServiceStub, address) as operator:
        answer = await operator.ApplyPolicy(order, timeout=within_s)
    assert isinstance(answer, pb.WriteResponse)
    return answer
