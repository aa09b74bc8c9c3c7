"""An agent in real time: one task samples on a monotonic beat, one ships, one syncs the disk.

The beat never waits for the others. A beat that could not be kept is counted and not made up
for: two samples at once would tell nothing new.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flyball_agents.beat import Beat
from flyball_agents.node_agent import NodeAgent
from flyball_agents.shipper import Appender, Shipper
from flyball_agents.spool import Spool, sync_all

_SYNC_S = 1.0


def _unmeasured(_: float) -> None:
    """Nobody wants to know."""


async def _in_a_thread(act: Callable[[], None]) -> None:
    await asyncio.to_thread(act)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often, and by which clocks."""

    clock: Callable[[], float]
    """Monotonic seconds; must pass as the event loop's clock does."""
    wall_clock: Callable[[], float]
    """Unix seconds."""
    period_s: float = 1.0
    aside: Callable[[Callable[[], None]], Awaitable[None]] = _in_a_thread
    """What runs the disk's syncs; anything but a thread only in simulations."""


@dataclass(slots=True)
class BeatCounts:
    """How the beat was kept."""

    beats: int = 0
    skipped: int = 0
    """Beats that passed while an earlier one was still under way."""
    took: Callable[[float], object] = _unmeasured
    """Is told how many seconds each beat took: everything sampled, and spooled."""


async def run_agent(
    agent: NodeAgent,
    shipper: Shipper,
    spool: Spool,
    appender: Appender,
    *,
    stop: asyncio.Event,
    pace: Pace,
    counts: BeatCounts | None = None,
) -> BeatCounts:
    """Sample, ship and sync until `stop` is set; then what waits stays in the spool.

    `counts` may be given to be watched meanwhile. Raises (in an ExceptionGroup or alone) what a
    broken encoder or a reused boot id raises: those are programming errors.
    """
    kept = counts if counts is not None else BeatCounts()
    fresh = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        shipping = tasks.create_task(_ship(shipper, appender, pace, fresh))
        syncing = tasks.create_task(_sync(spool, pace))
        try:
            await _beat(agent, stop, pace, fresh, kept)
        finally:
            shipping.cancel()
            syncing.cancel()
    spool.synced(failed=sync_all(spool.unsynced()))
    return kept


async def _beat(agent: NodeAgent, stop: asyncio.Event, pace: Pace, fresh: asyncio.Event, kept: BeatCounts) -> None:
    beat = Beat(pace.clock(), pace.period_s)
    while not stop.is_set():
        began_s = pace.clock()
        agent.tick(began_s, pace.wall_clock())
        kept.beats += 1
        kept.took(pace.clock() - began_s)
        fresh.set()
        wait_s = beat.next_in_s(pace.clock())
        kept.skipped = beat.skipped
        await wait_for(stop, wait_s)


async def _ship(shipper: Shipper, appender: Appender, pace: Pace, fresh: asyncio.Event) -> None:
    while True:
        fresh.clear()
        batch = shipper.next_batch(pace.clock())
        if batch is None:
            await wait_for(fresh, shipper.wait_s(pace.clock()))
            continue
        error = await shipper.ship(appender, batch)
        shipper.conclude(batch, error, pace.clock())


async def _sync(spool: Spool, pace: Pace) -> None:
    while True:
        await asyncio.sleep(_SYNC_S)
        if descriptors := spool.unsynced():
            spool.synced(failed=await _sync_aside(descriptors, pace))


async def _sync_aside(descriptors: Sequence[int], pace: Pace) -> int:
    """How many of them could not be synced."""
    failed: list[int] = []
    await pace.aside(lambda: failed.append(sync_all(descriptors)))
    return sum(failed)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, at most so long."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        pass
