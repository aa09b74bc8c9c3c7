"""Which partitions this controller runs: those that the group gives it, each in a tenure of its own.

The group only invites; what decides is the claim in the log. So a partition is kept while the group sorts
itself out, for its next owner's claim ends ours as soon as it is read.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from flyball_controller.serving.tenure import Tenure
from flyball_log.interface import Membership
from flyball_service.health import Health

GROUP = "group"
LOOK_S = 0.2
"""How often the group's share is looked at."""
KEEP_S = 15.0
"""How long partitions are kept while the group rebalances. It waits for members that died until their session ends,
after 10 s with Kafka; to let go earlier would cost everybody else a claim."""
LET_GO_S = 2.0
"""How long a tenure may take to end in good order."""
ALIVE_WITHIN_S = 30.0


class Sharing:
    """Keeps one tenure for each partition that is ours."""

    def __init__(
        self, membership: Membership, health: Health, new_tenure: Callable[[int, Callable[[], bool]], Tenure]
    ) -> None:
        self._membership = membership
        self._health = health
        self._new_tenure = new_tenure
        self._running: dict[int, tuple[Tenure, asyncio.Task[None]]] = {}
        self._until_s: dict[int, float] = {}
        """By partition that is let go, until when in good order."""
        self._joined_s = 0.0

    @property
    def tenures(self) -> list[Tenure]:
        """Those that run."""
        return [tenure for tenure, _ in self._running.values()]

    async def run(self) -> None:
        """Follow the group until cancelled; then end every tenure and leave."""
        self._joined_s = _now_s()
        try:
            while True:
                self._health.beat(GROUP, _now_s(), ALIVE_WITHIN_S)
                self._look()
                await asyncio.sleep(LOOK_S)
        finally:
            await self._end([*self._running])
            await self._membership.close()

    def _look(self) -> None:
        """Begin what is newly ours, end what is no more."""
        joined, assigned = self._membership.joined, self._membership.assigned()
        for partition, (_, task) in list(self._running.items()):
            if task.done():
                del self._running[partition]
                self._until_s.pop(partition, None)
        if joined:
            self._joined_s = _now_s()
            self._health.has(GROUP)
        else:
            self._health.waits_for(GROUP, "its share of the partitions is not known")
        if joined or _now_s() - self._joined_s >= KEEP_S:
            for partition, (tenure, task) in self._running.items():
                if partition not in assigned:
                    self._let_go(partition, tenure, task)
        for partition in assigned - self._running.keys():
            tenure = self._new_tenure(partition, partial(self._ours, partition))
            self._running[partition] = (tenure, asyncio.create_task(tenure.run()))

    def _let_go(self, partition: int, tenure: Tenure, task: "asyncio.Task[None]") -> None:
        """End a tenure in good order, or, if that takes too long, at once."""
        tenure.end()
        if _now_s() >= self._until_s.setdefault(partition, _now_s() + LET_GO_S):
            task.cancel()

    def _ours(self, partition: int) -> bool:
        return partition in self._membership.assigned()

    async def _end(self, partitions: list[int]) -> None:
        for partition in partitions:
            self._running[partition][0].end()
        tasks = [self._running[partition][1] for partition in partitions]
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=LET_GO_S)
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
