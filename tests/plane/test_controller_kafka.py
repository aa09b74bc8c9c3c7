"""Controllers over a real Kafka: started before their topics, sharing partitions, pushing for each other."""

import asyncio
import uuid
from pathlib import Path

import grpc
import pytest

from flyball_core.knobs import BATCH_CAP
from flyball_log.kafka import create_topics, settings_for
from flyball_proto.v1 import services_pb2 as pb
from harness.scripted_engine import POOL
from plane_clients import (
    Running,
    append,
    attached,
    config_for,
    eventually,
    frame,
    pin,
    running,
    status,
    target,
)


@pytest.fixture
def where(kafka_broker: str) -> str:
    """A log of this test's own; its topics are not made yet."""
    return f"kafka://{kafka_broker}/test-{uuid.uuid4().hex[:12]}"


async def make_topics(where: str, partitions: int = 2) -> None:
    """What `flyball topics create --dev` does."""
    await create_topics(settings_for(where), partitions=partitions, replication=1, dev=True)


async def owner_of_chat(*controllers: Running) -> Running:
    """The controller that owns the scripted pool."""

    async def owners() -> list[Running]:
        answers = [await status(one.addresses.grpc) for one in controllers]
        return [
            one
            for one, answer in zip(controllers, answers, strict=True)
            if any(pool.pool == POOL for pool in answer.pools)
        ]

    [found] = await eventually(owners, lambda found: len(found) == 1)
    assert isinstance(found, Running)
    return found


async def test_a_controller_may_come_before_its_topics(tmp_path: Path, where: str) -> None:
    """It says which topic is missing and what makes it, and goes on by itself once they are there."""
    async with running(config_for(tmp_path, log=where), ready=False) as controller:
        code, text = await eventually(lambda: controller.get("/ready"), lambda answer: "does not exist" in answer[1])

        assert 503 == code
        assert f"flyball topics create {where}" in text
        await make_topics(where)
        await controller.ready()
        async with attached(controller.addresses.grpc):
            await pin(controller.addresses.grpc, 60)
            await eventually(
                lambda: target(controller.addresses.grpc), lambda one: one.effective[BATCH_CAP].integer == 60
            )


async def test_agents_are_sent_to_kafka(tmp_path: Path, where: str) -> None:
    """With Kafka a controller takes no appends, and says where they go."""
    await make_topics(where)
    async with running(config_for(tmp_path, log=where)) as controller:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await append(controller.addresses.grpc, [frame(1)])

    assert grpc.StatusCode.UNIMPLEMENTED is error.value.code()
    assert f"this log is {where}: agents append there" in str(error.value.details())


async def test_every_controller_pushes_to_any_engine_and_answers_any_operator(tmp_path: Path, where: str) -> None:
    """An engine attached to the controller that does not own its pool is told, and its answer reaches the owner."""
    await make_topics(where)
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    async with (
        running(config_for(tmp_path / "1", log=where, name="c1")) as first,
        running(config_for(tmp_path / "2", log=where, name="c2")) as second,
    ):
        await eventually(
            lambda: asyncio.gather(status(first.addresses.grpc), status(second.addresses.grpc)),
            lambda answers: [1, 1] == [len(answer.owned) for answer in answers],
        )
        owner = await owner_of_chat(first, second)
        other = second if owner is first else first
        async with attached(other.addresses.grpc) as receiver:
            answer = await pin(other.addresses.grpc, 60)

            assert pb.WRITE_OUTCOME_TAKEN == answer.outcome
            await eventually(lambda: receiver.engine.setting[BATCH_CAP], lambda value: value == 60)
            told = await eventually(
                lambda: target(owner.addresses.grpc), lambda one: one.effective[BATCH_CAP].integer == 60
            )

            assert told.told == told.acked
            assert 1 == await other.metric("flyball_controller_streams", kind="engine")
            await eventually(receiver.heartbeats, lambda beats: len(beats) > 3)

            # The owner goes; the other takes the pool over and the engine stays attached to it.
            epochs = receiver.heartbeats()[-1].version.epoch
            await owner.stop()
            await eventually(lambda: status(other.addresses.grpc), lambda now: len(now.owned) == 2)
            await eventually(receiver.heartbeats, lambda beats: beats[-1].version.epoch > epochs)

            assert receiver.ended is None
            assert 60 == receiver.engine.setting[BATCH_CAP]
            assert ["o1"] == [one.override_id for one in (await status(other.addresses.grpc, POOL)).pools[0].overrides]
