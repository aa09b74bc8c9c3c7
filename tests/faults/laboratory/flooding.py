"""Agents, all in one process, that send ten times what they may and keep nothing: what came of each frame is counted.

They never send a frame twice, so that what they were told and what the controller counted must agree to the frame.

    --controller HOST:PORT  --pool chat  --agents N  --seconds S  --told FILE

Every second agent says that what it sends is backlog. FILE is written at the end: frames by what was told of them.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc

from flyball_controller.serving.shedding import FRAMES_PER_S
from flyball_proto.v1 import inputs_pb2, services_pb2 as pb
from flyball_proto.v1.services_pb2_grpc import AppendServiceStub
from flyball_service.channels import channel

if TYPE_CHECKING:
    _Append = grpc.aio.UnaryUnaryMultiCallable[pb.AppendRequest, pb.AppendResponse]

MODULE = "laboratory.flooding"
"""What `Actors.start` is told as `module`."""
TIMES = 10
"""How often what an agent may send it does send."""
BATCH = 200
"""Frames of one append."""
SAMPLES = 32
"""Engines of which each frame tells."""
APPEND_S = 10.0
"""Longest wait for one answer."""

DELIVERED = "delivered"
SHED = "shed"
UNKNOWN = "unknown"


@dataclass(slots=True)
class Flooder:
    """One agent of a flood; `frame` is what it sends, over and over, under the next number."""

    frame: inputs_pb2.InputRecord
    told: Counter[str] = field(default_factory=Counter)

    async def flood(self, address: str, until_s: float) -> None:
        """Append batch after batch until that time of the event loop's clock; no answer is waited for in between."""
        clock = asyncio.get_running_loop().time
        own = channel(address, None)
        # The stub's type is the blocking one; on an aio channel it gives aio calls.
        append = cast("_Append", AppendServiceStub(own).Append)
        due_s = clock()
        try:
            async with asyncio.TaskGroup() as sending:
                while clock() < until_s:
                    sending.create_task(self._send(append))
                    due_s = max(due_s + BATCH / (TIMES * FRAMES_PER_S), clock())
                    await asyncio.sleep(max(0.0, due_s - clock()))
        finally:
            await own.close(None)

    async def _send(self, append: "_Append") -> None:
        """Send a batch, and count its frames by what is told of them."""
        request = pb.AppendRequest(entries=[self._next() for _ in range(BATCH)])
        told = DELIVERED
        try:
            await append(request, timeout=APPEND_S)
        except grpc.aio.AioRpcError as error:
            told = SHED if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else UNKNOWN
        self.told[told] += BATCH

    def _next(self) -> pb.AppendEntry:
        frame = self.frame.frame
        entry = pb.AppendEntry(pool=frame.pool, record=self.frame.SerializeToString())
        frame.seq += 1
        frame.monotonic_s = frame.seq / (TIMES * FRAMES_PER_S)
        return entry


def first_frame(agent: str, pool: str, *, backlog: bool) -> inputs_pb2.InputRecord:
    """The first frame of an agent that tells of many engines."""
    record = inputs_pb2.InputRecord()
    frame = record.frame
    frame.agent, frame.boot, frame.pool, frame.backlog = agent, "flood", pool, backlog
    for number in range(SAMPLES):
        frame.engines.add(engine=f"flooded-{number}", incarnation="i", requests_running=1.0 + number)
    return record


async def _flood(arguments: argparse.Namespace) -> None:
    until_s = asyncio.get_running_loop().time() + arguments.seconds
    flooders = [
        Flooder(first_frame(f"flood-{number}", arguments.pool, backlog=number % 2 == 0))
        for number in range(arguments.agents)
    ]
    await asyncio.gather(*(one.flood(arguments.controller, until_s) for one in flooders))
    told = sum((one.told for one in flooders), Counter[str]())
    arguments.told.with_suffix(".new").write_text(json.dumps(told))
    arguments.told.with_suffix(".new").rename(arguments.told)


def main(words: Sequence[str] | None = None) -> None:
    """Flood, and say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--controller", required=True)
    parser.add_argument("--pool", default="chat")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--told", type=Path, required=True)
    asyncio.run(_flood(parser.parse_args(words)))
