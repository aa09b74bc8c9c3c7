"""What a controller keeps while the group sorts itself out, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from flyball_controller.serving.sharing import LOOK_S, Sharing
from flyball_controller.serving.tenure import Tenure
from flyball_log.kafka.group import SESSION_S
from flyball_service.health import Health
from harness.virtual_time import in_virtual_time


@dataclass(slots=True)
class Group:
    """A group that gives what the test says, and nothing while it rebalances."""

    joined: bool = True

    def assigned(self) -> frozenset[int]:
        """The one partition there is."""
        return frozenset({0}) if self.joined else frozenset()

    async def close(self) -> None:
        """Leave."""


class Idle(Tenure):
    """A tenure that does nothing until it is told to end."""

    def __init__(self) -> None:
        self.partition = 0
        self._ending = asyncio.Event()

    async def run(self) -> None:
        """Until then."""
        await self._ending.wait()


def tenures_after_a_rebalance_of(seconds: float) -> list[Idle]:
    """The tenures of a partition that stays ours through a rebalance of this length."""
    made: list[Idle] = []

    def begin(partition: int, ours: Callable[[], bool]) -> Idle:
        del partition, ours
        made.append(Idle())
        return made[-1]

    def main(clock: Callable[[], float]) -> Coroutine[Any, Any, None]:
        del clock

        async def run() -> None:
            group = Group()
            sharing = asyncio.create_task(Sharing(group, Health(), begin).run())
            await asyncio.sleep(2 * LOOK_S)
            group.joined = False
            await asyncio.sleep(seconds)
            group.joined = True
            await asyncio.sleep(2 * LOOK_S)
            sharing.cancel()
            with suppress(asyncio.CancelledError):
                await sharing

        return run()

    in_virtual_time(main)
    return made


@pytest.mark.parametrize(("seconds", "tenures"), [(1.0, 1), (SESSION_S + 2.0, 1), (2.0 * SESSION_S, 2)])
def test_a_rebalance_that_waits_for_a_dead_member_costs_nobody_else_a_claim(seconds: float, tenures: int) -> None:
    """The group stands still until a dead member's session ends; what stays ours is kept so long, but not for ever."""
    assert tenures == len(tenures_after_a_rebalance_of(seconds))
