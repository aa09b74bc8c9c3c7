"""One controller, one engine, one agent, one operator, over real sockets."""

import time

from flyball_core.knobs import BATCH_CAP
from flyball_proto.v1 import services_pb2 as pb
from plane_clients import Running, append, attached, eventually, frame, pin, status, target


async def test_an_order_reaches_the_engine_and_its_answer_comes_back(controller: Running) -> None:
    """What an operator pins is taken, told, applied, acknowledged, and seen in the status."""
    address = controller.addresses.grpc
    async with attached(address) as receiver:
        assert [0, 1] != (await append(address, [frame(seq) for seq in (1, 2)]))
        began = time.perf_counter()
        answer = await pin(address, 32)
        print("order", time.perf_counter() - began)

        assert pb.WRITE_OUTCOME_TAKEN == answer.outcome
        assert "ada pins max_active_requests" in answer.summary
        await eventually(lambda: receiver.engine.setting[BATCH_CAP], lambda value: value == 32)
        print("applied", time.perf_counter() - began)
        told = await eventually(lambda: target(address), lambda one: one.effective[BATCH_CAP].integer == 32)
        print("acked", time.perf_counter() - began)

        assert told.attached
        assert told.told == told.acked
        assert "c1" == (await status(address)).controller
