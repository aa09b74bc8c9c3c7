"""The loops that read directives and push them: one for each partition, woken by what is new.

They decide nothing and know no receiver; a loop that fails goes on after a pause, for as long as the
controller runs.
"""

import asyncio
from random import Random

import structlog

from flyball_controller.pusher import Pusher
from flyball_controller.serving.measures import Measures
from flyball_core.errors import FlyballError
from flyball_log.interface import Log
from flyball_service.channels import Backoff
from flyball_service.health import Health

log = structlog.get_logger()

WAIT_S = 10.0
"""Longest wait for news before the loop turns."""
ALIVE_WITHIN_S = 60.0
_RETRY_S = (0.25, 10.0)


class Pushing:
    """Keeps a pusher reading every partition of its log."""

    def __init__(self, log_: Log, pusher: Pusher, health: Health, measures: Measures) -> None:
        self._log = log_
        self._pusher = pusher
        self._health = health
        self._measures = measures
        self._behind = set(range(log_.partitions))

    @property
    def caught_up(self) -> bool:
        """Whether what the directives held when reading began has been read, in every partition."""
        return not self._behind

    async def run(self) -> None:
        """Read and push until cancelled."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._log.partitions):
                group.create_task(self._follow(partition))

    async def _follow(self, partition: int) -> None:
        name, backoff = f"directives of partition {partition}", Backoff(Random(), *_RETRY_S)
        self._health.waits_for(name, "they are being read")
        while True:
            self._health.beat(name, asyncio.get_running_loop().time(), ALIVE_WITHIN_S)
            try:
                await self._pusher.follow(partition, WAIT_S if partition not in self._behind else 0.0)
            except FlyballError as error:
                self._health.waits_for(name, str(error))
            except Exception:  # the boundary of this loop: one partition must not take the others down
                log.exception("pushing_failed", partition=partition)
                self._health.waits_for(name, "reading them failed and begins anew")
            else:
                self._behind.discard(partition)
                self._health.has(name)
                backoff.reset()
                continue
            self._measures.failed("push")
            await asyncio.sleep(backoff.next_s())
