"""Whoever else waits for the event loop has a turn while the pusher hands out many heartbeats."""

import asyncio
from dataclasses import replace
from pathlib import Path

from flyball_controller.pusher import BEATS_AT_ONCE, Message, Pusher
from flyball_core.fencing import Version
from flyball_core.outputs import Heartbeat, compacted_key
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_proto.codec import encode_directive
from harness.odd_logs import QUICK
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, scripted_pool

RECEIVERS = 3 * BEATS_AT_ONCE


class Busy:
    """A link that notes what it is handed; with the first message something else comes to wait for a turn."""

    def __init__(self, order: list[str]) -> None:
        self._order = order

    async def send(self, message: Message) -> None:
        """Note it."""
        del message
        if not self._order:
            asyncio.get_running_loop().call_soon(self._order.append, "ack")
        self._order.append("beat")


async def test_an_ack_waits_for_a_few_heartbeats_only(tmp_path: Path) -> None:
    """What came up with the first heartbeat has its turn after `BEATS_AT_ONCE`; all are sent all the same."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pusher, order = Pusher(log), list[str]()
    attach = scripted_pool(policy="").engines["e0-0"].attach()
    for number in range(RECEIVERS):
        await pusher.attached(Busy(order), replace(attach, target=f"engine-{number}"))
    version = Version(log_id=log.log_id, partition=log.partition_of(POOL), epoch=1, revision=4)
    beat = Heartbeat(pool=POOL, version=version, time_s=0.0, wall_s=WALL_S, hold_s=60.0)
    await log.append(Topic.DIRECTIVES, 0, [Entry(compacted_key(beat).encode(), encode_directive(beat))])

    assert RECEIVERS == await pusher.poll()
    assert BEATS_AT_ONCE == order.index("ack")
    assert RECEIVERS == order.count("beat")
    await log.close()
