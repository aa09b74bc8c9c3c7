"""One controller, one engine, one agent, one operator, over real sockets."""

from flyball_core.knobs import BATCH_CAP
from flyball_proto.v1 import services_pb2 as pb
from plane_clients import Running, append, attached, eventually, frame, pin, status, target


async def test_an_order_reaches_the_engine_and_its_answer_comes_back(controller: Running) -> None:
    """What an operator pins is taken, told, applied, acknowledged, and seen in the status beside the telemetry."""
    address = controller.addresses.grpc
    async with attached(address) as receiver:
        await append(address, [frame(seq) for seq in (1, 2)])
        answer = await pin(address, 60)

        assert pb.WRITE_OUTCOME_TAKEN == answer.outcome
        assert "ada pins max_active_requests" in answer.summary
        await eventually(lambda: receiver.engine.setting[BATCH_CAP], lambda value: value == 60)
        told = await eventually(lambda: target(address), lambda one: one.effective[BATCH_CAP].integer == 60)

        assert told.attached
        assert told.told == told.acked
        [pool] = (await status(address, "chat")).pools
        assert 2 == pool.counts["delivered"]
        assert ["a0"] == [agent.agent for agent in pool.agents]
