"""The agent numbers what it samples without a hole, and its beat waits for nothing."""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flyball_agents.agent_loop import BeatCounts, Pace, run_agent
from flyball_agents.sampling import PooledEngine, PooledGateway
from flyball_agents.shipper import Shipment
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import Rejected
from flyball_core.frames import Frame
from harness.virtual_time import in_virtual_time
from node_bench import CHAT, CODE, FakeLog, Node, chat_source, engine, gateway
from receiver_bench import odd

SMALL = SpoolLimits(most_bytes=50_000, segment_bytes=5_000, fresh_bytes=2_000)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a small spool."""
    return Node(tmp_path, spool=SMALL)


def test_a_tick_makes_one_frame_per_pool(node: Node) -> None:
    """A frame carries who, when by both clocks, and what was read."""
    node.source.engines += (PooledEngine(CODE, engine("e2", ())),)
    node.source.gateways = (PooledGateway(CODE, gateway()),)
    frames = node.agent.tick(7.0, 1e9)

    assert frames == (
        Frame(odd("n1"), odd("b1"), CHAT, 0, 1e9, 7.0, False, node.source.gpus, (node.source.engines[0].sample,)),  # noqa: FBT003
        Frame(odd("n1"), odd("b1"), CODE, 0, 1e9, 7.0, False, (), (engine("e2", ()),), (gateway(),)),  # noqa: FBT003
    )


def test_sequence_numbers_have_no_hole_per_pool(node: Node) -> None:
    """A pool that is not seen for a while goes on where it stopped."""
    seen: dict[str, list[int]] = {}
    for tick in range(12):
        extra = (PooledEngine(CODE, engine("e2")),) if tick % 3 == 0 else ()
        node.source.engines = (*chat_source().engines, *extra)
        node.source.broken = tick == 5
        for frame in node.agent.tick(float(tick), 0.0):
            seen.setdefault(frame.pool, []).append(frame.seq)

    assert seen == {"chat": list(range(11)), "code": list(range(4))}
    assert node.agent.ticks == 12
    assert node.agent.sampling.troubles == {("source", "raised"): 1}


def test_a_full_disk_does_not_stop_the_live_frames(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that cannot be spooled are sent from memory; only what then cannot be sent is dropped, and counted."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "pwrite", full)
    node.tick(20)
    assert node.log.seqs == list(range(20))
    node.log.down = True
    node.tick(20)
    node.log.down = False
    node.tick(10)

    dropped = node.spool.accounting.dropped["disk"]
    assert dropped == 50 - len(node.log.seqs) > 0
    assert not any(shipment.backlog for shipment in node.log.got)


def test_a_boot_id_used_twice_is_an_error_at_once(node: Node, tmp_path: Path) -> None:
    """Two lives under one boot id would share identities."""
    node.log.down = True
    node.tick(3)
    again = Node(tmp_path, spool=SMALL)
    with pytest.raises(Rejected, match="in the spool already"):
        again.agent.tick(1.0, 1.0)


def test_frames_too_old_are_dropped_at_the_tick(tmp_path: Path) -> None:
    """The age bound is kept while the log is away."""
    node = Node(tmp_path, spool=SpoolLimits(most_bytes=50_000, segment_bytes=600, fresh_bytes=500, most_age_s=30))
    node.log.down = True
    node.tick(100)

    assert 30 <= node.spool.waiting <= 34
    assert node.spool.accounting.dropped == {"age": 100 - node.spool.waiting}


async def at_once(act: Callable[[], None]) -> None:
    """Sync without a thread."""
    act()


class SlowLog(FakeLog):
    """A log that takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Take a while, then append."""
        await asyncio.sleep(self.seconds)
        self.take(shipments)


@pytest.mark.parametrize("period_s", [1.0, 0.1])
def test_the_beat_is_kept_whatever_the_log_does(node: Node, period_s: float) -> None:
    """At 1 Hz and at 10 Hz, over an append of 30 s and an outage: a sample on every beat, none skipped."""
    node.log = SlowLog(30.0)
    times: list[float] = []

    async def main(clock: Callable[[], float]) -> None:
        tick = node.agent.tick

        def watched(now_s: float, wall_s: float) -> tuple[Frame, ...]:
            times.append(now_s)
            return tick(now_s, wall_s)

        odd(node.agent).tick = watched
        stop = asyncio.Event()
        pace = Pace(clock=clock, wall_clock=lambda: 1e9 + clock(), period_s=period_s, aside=at_once)
        running = asyncio.create_task(run_agent(node.agent, node.shipper, node.spool, node.log, stop=stop, pace=pace))
        await asyncio.sleep(60 * period_s - period_s / 2)
        stop.set()
        counts = await running
        assert counts == BeatCounts(beats=60, skipped=0)

    in_virtual_time(main)
    assert times == pytest.approx([beat * period_s for beat in range(60)])
    node.check()


def test_an_outage_in_real_order_loses_nothing(node: Node) -> None:
    """Up, down, up: every frame arrives, and the account is exact at the end."""

    async def main(clock: Callable[[], float]) -> None:
        stop = asyncio.Event()
        pace = Pace(clock=clock, wall_clock=clock, aside=at_once)
        running = asyncio.create_task(run_agent(node.agent, node.shipper, node.spool, node.log, stop=stop, pace=pace))
        await asyncio.sleep(10.5)
        node.log.down = True
        await asyncio.sleep(60)
        node.log.down = False
        await asyncio.sleep(20)
        stop.set()
        await running

    in_virtual_time(main)
    node.check()
    assert sorted(node.log.seqs) == list(range(91))
    assert node.spool.waiting == 0


def test_beats_that_could_not_be_kept_are_counted_and_not_made_up(node: Node) -> None:
    """A tick that takes 3.5 periods skips three beats and goes on in the old rhythm."""
    times: list[float] = []

    async def main(clock: Callable[[], float]) -> None:
        delay = [0.0]
        tick = node.agent.tick

        def slow(now_s: float, wall_s: float) -> tuple[Frame, ...]:
            times.append(now_s)
            if now_s == 2.0:
                delay[0] = 3.5
            return tick(now_s, wall_s)

        odd(node.agent).tick = slow

        def late() -> float:
            return clock() + delay[0]

        stop = asyncio.Event()
        counts = BeatCounts()
        pace = Pace(clock=late, wall_clock=clock, aside=at_once)
        running = asyncio.create_task(
            run_agent(node.agent, node.shipper, node.spool, node.log, stop=stop, pace=pace, counts=counts)
        )
        await asyncio.sleep(4.6)
        stop.set()
        await running
        assert counts == BeatCounts(beats=6, skipped=3)

    in_virtual_time(main)
    assert times == pytest.approx([0.0, 1.0, 2.0, 6.0, 7.0, 8.0])


def test_what_is_written_is_synced_about_once_a_second_and_at_the_end(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that could not be delivered reach the disk within a second of being sampled."""
    synced: list[float] = []

    async def main(clock: Callable[[], float]) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(clock()))
        node.log.down = True
        stop = asyncio.Event()
        pace = Pace(clock=clock, wall_clock=clock, period_s=0.1, aside=at_once)
        running = asyncio.create_task(run_agent(node.agent, node.shipper, node.spool, node.log, stop=stop, pace=pace))
        await asyncio.sleep(5.55)
        stop.set()
        await running

    in_virtual_time(main)
    assert sorted({round(second, 1) for second in synced}) == [1.0, 2.0, 3.0, 4.0, 5.0, 5.6] or len(set(synced)) == 6
    assert len(Spool(node.spool.folder, SMALL).oldest(100)) == 56


async def test_in_real_time_a_thread_syncs_and_stopping_is_quick(node: Node) -> None:
    """The runner's defaults work: a few beats on the real clock, and it ends within a beat."""
    stop = asyncio.Event()
    pace = Pace(clock=time.monotonic, wall_clock=time.time, period_s=0.02)
    running = asyncio.create_task(run_agent(node.agent, node.shipper, node.spool, node.log, stop=stop, pace=pace))
    while len(node.log.got) < 3:
        await asyncio.sleep(0.01)
    stop.set()
    counts = await asyncio.wait_for(running, 5)

    assert counts.beats >= 3
    node.check()


async def test_a_broken_encoder_ends_the_agent_loudly(node: Node) -> None:
    """A programming error is not swallowed by the loop."""

    def broken(_: Frame) -> bytes:
        raise ValueError("no such field")

    odd(node.agent)._encode = broken  # noqa: SLF001
    pace = Pace(clock=time.monotonic, wall_clock=time.time)
    with pytest.raises(ExceptionGroup) as caught:
        await run_agent(node.agent, node.shipper, node.spool, node.log, stop=asyncio.Event(), pace=pace)

    assert caught.group_contains(ValueError, match="no such field")
