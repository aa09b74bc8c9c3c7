"""Fault 28: who passes for a controller towards receivers, agents and operators; and pushes that were captured.

An agent's certificate cannot push, even if a careless authority lets it serve. What a controller once said is of no
use to whoever recorded it, not even with a controller's stolen certificate.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from flyball_agents.attaching import AttachState
from flyball_agents.node.appending import GrpcAppender
from flyball_agents.receiver import Receiver as ProductionReceiver
from flyball_agents.shipper import Shipment
from flyball_cli.operating.connection import Connection
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.refusals import NoAnswer
from flyball_core.errors import LogUnavailable
from flyball_core.fencing import Version
from flyball_core.ids import BootId
from flyball_core.inputs import AckStatus
from flyball_core.knobs import BATCH_CAP, Setting
from flyball_proto.codec import Said, encode_input
from flyball_proto.v1 import inputs_pb2, services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.channels import grpc_server
from flyball_service.config import TlsConfig
from flyball_service.tls import ROLES, Tls
from harness.living_controller import config_for, eventually, frame, pin, running
from issued_certificates import certify, certify_server, tls_of
from laboratory.callers import at_the_door, receiver_of

ADDRESS = "127.0.0.1:0"


class Impostor:
    """Serves as a controller would: takes every attach, frame and question, and pushes what it was given."""

    def __init__(self, pushes: Sequence[bytes] = ()) -> None:
        self.pushes = pushes
        self.heard: list[object] = []

    async def Attach(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802 - the contract's name
        """Hear a receiver out, and push."""
        self.heard.append(await context.read())
        for push in self.pushes:
            await context.write(pb.PusherMessage.FromString(push))
        while (said := await context.read()) is not grpc.aio.EOF:
            self.heard.append(said)

    async def Append(self, request: pb.AppendRequest, _: object) -> pb.AppendResponse:  # noqa: N802 - the contract's name
        """Take frames, and lose them."""
        self.heard.append(request)
        return pb.AppendResponse(offsets=range(len(request.entries)))

    async def Status(self, request: pb.StatusRequest, _: object) -> pb.StatusResponse:  # noqa: N802 - the contract's name
        """Say that all is well."""
        self.heard.append(request)
        return pb.StatusResponse(controller="impostor", ready=True)

    def answers(self) -> list[inputs_pb2.Ack]:
        """What receivers answered to its pushes."""
        return [said.ack for said in self.heard if isinstance(said, pb.ReceiverMessage) and said.HasField("ack")]

    def add(self, server: grpc.aio.Server) -> None:
        """Serve on it."""
        rpc.add_AttachServiceServicer_to_server(cast("rpc.AttachServiceServicer", self), server)
        rpc.add_AppendServiceServicer_to_server(cast("rpc.AppendServiceServicer", self), server)

        async def unanswered(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            del request, context

        for name in ("GetPolicy", "Decisions"):
            setattr(self, name, unanswered)
        rpc.add_OperatorReadServiceServicer_to_server(cast("rpc.OperatorReadServiceServicer", self), server)


@asynccontextmanager
async def serving(impostor: Impostor, tls: Tls) -> AsyncIterator[str]:
    """The impostor at a port of its own, with those credentials; HOST:PORT."""
    server, port = await grpc_server(ADDRESS, tls, impostor.add)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def shipment() -> Shipment:
    """A frame of agent a0 on its way."""
    return Shipment(BootId("b0"), frame(1).pool, 1, encode_input(frame(1)), backlog=False)


@pytest.mark.parametrize("careless", [False, True], ids=["client-only", "may-serve"])
@pytest.mark.parametrize("role", [role for role in ROLES if role != "controller"])
async def test_f28_a_certificate_of_another_role_cannot_push_nor_take_frames_nor_answer(
    tmp_path: Path, role: str, *, careless: bool
) -> None:
    """Receivers, agents and operators refuse it in the handshake: it hears 0 messages and nothing of it is taken."""
    shown = certify_server(tmp_path, role, "x1") if careless else certify(tmp_path, role, "x1")
    impostor = Impostor()
    receiver = receiver_of(tmp_path / "e1", "e1")
    async with serving(impostor, Tls(TlsConfig(folder=shown))) as address:
        async with at_the_door(receiver, [address], tls_of(tmp_path, "engine", "e1")) as attacher:
            await eventually(lambda: attacher.status.failures, lambda failures: failures > 0)
            why = attacher.status.why
        appender = GrpcAppender([address], tls_of(tmp_path, "agent", "a0"), deadline_s=2.0)
        with pytest.raises(LogUnavailable):
            await appender.append([shipment()])
        await appender.close()
        operator = TlsConfig(folder=certify(tmp_path, "operator", "grace"))
        async with Fleet(Connection(addresses=(address,), tls=operator)) as fleet:
            with pytest.raises(NoAnswer):
                await fleet.status()

    assert [] == impostor.heard
    assert "UNAVAILABLE" in why
    assert AttachState.SEEKING is attacher.status.state
    assert 0 == attacher.conversation.counts.heartbeats


async def captured(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], ProductionReceiver]:
    """What a real controller pushed to engine e1, as bytes; and the production receiver that took it."""
    receiver = receiver_of(tmp_path / "e1", "e1")
    tls = Tls(TlsConfig(folder=folder), role="engine", name="e1")
    pushes: list[bytes] = []
    async with running(config_for(tmp_path, tls=TlsConfig(folder=folder))) as controller:
        address = controller.addresses.grpc
        async with at_the_door(receiver, [address], tls) as attacher:
            conversation = attacher.conversation
            hear = conversation.hear

            def overheard(message: pb.PusherMessage, *, now_s: float, wall_s: float) -> tuple[Said, ...]:
                pushes.append(message.SerializeToString())
                return hear(message, now_s=now_s, wall_s=wall_s)

            monkeypatch.setattr(conversation, "hear", overheard)
            await eventually(lambda: conversation.counts.heartbeats, bool)
            await pin(address, 60, tls=tls_of(folder, "operator", "grace"))
            await eventually(lambda: receiver.attach().effective[BATCH_CAP], lambda value: value == 60)
            await eventually(lambda: conversation.counts.acks[AckStatus.APPLIED], bool)
    return pushes, receiver


async def test_f28_a_captured_push_replayed_to_the_same_or_another_engine_moves_0_knobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thief with a controller's certificate: fencing refuses it at the same engine, the target inside at another.

    A replayed heartbeat renews no lease. The answers say why.
    """
    folder = tmp_path / "certificates"
    thief = tls_of(folder, "controller", "c1")
    certify(folder, "engine", "e1")
    certify(folder, "engine", "e2")
    pushes, same = await captured(tmp_path, folder, monkeypatch)
    other = receiver_of(tmp_path / "e2", "e2")
    directives = [push for push in pushes if pb.PusherMessage.FromString(push).HasField("directive")]
    assert 1 <= len(directives) < len(pushes)
    refused = {}
    for receiver in (same, other):
        name, impostor, before = receiver.target.name, Impostor(pushes * 3), state_of(receiver)
        async with serving(impostor, thief) as address:
            tls = Tls(TlsConfig(folder=folder), role="engine", name=name)
            async with at_the_door(receiver, [address], tls) as attacher:
                await eventually(impostor.answers, lambda answers: len(answers) >= 3 * len(directives))
        refused[name] = {(answer.status, answer.reason.partition(":")[0]) for answer in impostor.answers()}
        assert before == state_of(receiver)
        if receiver is same:
            assert 0 == attacher.conversation.counts.renewals

    assert (60, 64) == (same.attach().effective[BATCH_CAP], other.attach().effective[BATCH_CAP])
    # What it holds is acknowledged again and not set again; everything before it is stale.
    assert refused["e1"] <= {(inputs_pb2.ACK_STATUS_APPLIED, ""), (inputs_pb2.ACK_STATUS_NACK, "stale")}
    assert refused["e2"] == {(inputs_pb2.ACK_STATUS_NACK, "meant for e1 of chat, this is e2 of chat")}


def state_of(receiver: ProductionReceiver) -> tuple[Version | None, Setting, Setting]:
    """The version that it holds, with what values, and what is set."""
    held = receiver.held
    return held.version, dict(held.values), dict(receiver.attach().effective)
