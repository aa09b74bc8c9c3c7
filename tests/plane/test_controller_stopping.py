"""How a controller stops, and what stands when it comes back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyball_core.errors import InvalidDocument, Rejected
from flyball_core.inputs import Attach, Claim
from flyball_core.knobs import BATCH_CAP
from flyball_log import open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input
from flyball_proto.v1 import services_pb2 as pb, services_pb2_grpc as rpc
from flyball_service.config import ControllerConfig
from harness.odd_logs import records_of
from harness.scripted_engine import POOL
from plane_clients import (
    Receiver,
    attached,
    config_for,
    engine,
    eventually,
    pin,
    running,
    status,
    stub,
    target,
)


async def test_receivers_hear_why_and_their_leaving_is_on_record(tmp_path: Path) -> None:
    """A stop ends streams and whoever follows with a reason, and writes farewells; it takes a moment."""
    config = config_for(tmp_path)
    async with running(config) as controller, stub(rpc.OperatorReadServiceStub, controller.addresses.grpc) as reader:
        receiver = Receiver(engine())
        await receiver.attach(controller.addresses.grpc)
        await eventually(lambda: receiver.heard, bool)
        following = reader.Decisions(pb.DecisionsRequest(pool="chat", follow=True))
        await following.read()

        assert 2.0 > await controller.stop()
        error = await receiver.end()

        assert (grpc.StatusCode.UNAVAILABLE, "controller c1 is stopping") == (error.code(), error.details())
        assert grpc.StatusCode.UNAVAILABLE is await following.code()
        assert "controller c1 is stopping" == await following.details()
    log = await open_log(config.log, read_only=True)
    said = [decode_input(r.offset, r.value).body for r in await records_of(log, Topic.INPUTS, log.partition_of(POOL))]
    farewells = [one for one in said if isinstance(one, Attach) and not one.attached]
    await log.close()

    assert ["e1"] == [one.target for one in farewells]


async def test_what_was_ordered_stands_after_a_restart(tmp_path: Path) -> None:
    """The next controller claims the log anew, keeps the override, and the engine is told again."""
    config = config_for(tmp_path)
    one = engine()
    async with running(config) as first, attached(first.addresses.grpc, one):
        await pin(first.addresses.grpc, 60)
        await eventually(lambda: one.setting[BATCH_CAP], lambda value: value == 60)
    async with running(config) as second, attached(second.addresses.grpc, one) as receiver:
        await eventually(lambda: target(second.addresses.grpc), lambda told: told.told == told.acked and told.attached)
        [pool] = (await status(second.addresses.grpc)).pools

        assert ["o1"] == [override.override_id for override in pool.overrides]
        assert 60 == one.setting[BATCH_CAP]
        assert receiver.ended is None
        await eventually(receiver.heartbeats, lambda beats: len(beats) > 3)
    log = await open_log(config.log, read_only=True)
    said = [decode_input(r.offset, r.value).body for r in await records_of(log, Topic.INPUTS, log.partition_of(POOL))]
    await log.close()

    assert 2 == sum(isinstance(body, Claim) for body in said)


class TestWhatIsWrongInTheFile:
    """A controller does not start with a configuration that cannot work."""

    async def start(self, config: Any) -> None:
        """Start it; it is expected to end at once."""
        async with running(config):
            pass

    async def test_a_policy_that_cannot_be_read(self, tmp_path: Path) -> None:
        """A policy file that is not there is named."""
        config = config_for(tmp_path)
        (tmp_path / "chat.yaml").unlink()
        with pytest.raises(Rejected, match="the policy of pool 'chat' cannot be read"):
            await self.start(config)

    async def test_a_policy_that_is_wrong(self, tmp_path: Path) -> None:
        """Its file, line and what would be right."""
        with pytest.raises(InvalidDocument, match=r"chat\.yaml:2:1: unknown key 'moed'"):
            await self.start(config_for(tmp_path, policies={"chat": "version: 1\nmoed: control\n"}))

    async def test_plaintext_beyond_loopback(self, tmp_path: Path) -> None:
        """Refused before anything listens."""
        config = config_for(tmp_path)
        own = ControllerConfig(listen="0.0.0.0:0", http="127.0.0.1:0")
        with pytest.raises(Rejected, match="beyond loopback"):
            await self.start(replace(config, controller=own))

    async def test_no_section(self, tmp_path: Path) -> None:
        """A file of other services starts no controller."""
        with pytest.raises(Rejected, match="there is no section `controller`"):
            await self.start(replace(config_for(tmp_path), controller=None))


async def test_before_there_is_a_log_the_doors_say_what_is_waited_for(tmp_path: Path) -> None:
    """Callers, /ready and the log lines name what is missing; once it is there, everything goes on by itself."""
    from flyball_log.embedded import EmbeddedLog

    config = config_for(tmp_path)
    assert config.controller is not None
    config = replace(config, controller=replace(config.controller, create_log=False))
    async with running(config, ready=False) as controller:
        code, text = await eventually(lambda: controller.get("/ready"), lambda answer: "first start" in answer[1])

        assert 503 == code
        assert "a controller makes it at its first start" in text
        assert 200 == (await controller.get("/live"))[0]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await status(controller.addresses.grpc)

        assert grpc.StatusCode.UNAVAILABLE is error.value.code()
        assert "controller c1 waits for log: " in str(error.value.details())
        await EmbeddedLog.create(config.log, 2).close()
        await controller.ready()


async def test_a_controller_that_waits_stops_at_once(tmp_path: Path) -> None:
    """Told to stop while it waits for its log, it ends without an error."""
    config = config_for(tmp_path)
    assert config.controller is not None
    config = replace(config, controller=replace(config.controller, create_log=False))
    async with running(config, ready=False) as controller:
        await eventually(lambda: controller.get("/ready"), lambda answer: "first start" in answer[1])

        assert 2.0 > await controller.stop()
