"""Fault 14, in virtual time: what is kept out, in which order, and that each engine's newest is what gets through."""

import random
from collections import Counter
from pathlib import Path

import pytest

from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import PooledEngine, Reading
from flyball_agents.shipper import Shed, Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits
from flyball_controller.serving.shedding import (
    BACKLOG,
    BEHIND,
    FRAMES_PER_S,
    LIVE_PER_S,
    MAX_SAMPLES_WAITING,
    RATE,
    SHARE,
    Level,
    Shedding,
    Unread,
    level_of,
)
from flyball_core.frames import EngineSample, Frame
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId
from flyball_proto.codec import decode_input, encode_frame

POOL = PoolId("chat")
ENGINES = ("e0", "e1", "e2", "e3")


class Engines:
    """A sampler of four engines."""

    name = "script"

    def sample(self, now_s: float) -> Reading:
        """They all run something."""
        samples = (
            EngineSample(EngineId(name), Incarnation("i"), 0, (), "", requests_running=now_s) for name in ENGINES
        )
        return Reading(now_s, engines=tuple(PooledEngine(POOL, sample) for sample in samples))


class Door:
    """A controller's door that is under this pressure, with the production rules."""

    def __init__(self) -> None:
        self.level = Level.NOTHING
        self.taken: list[Frame] = []
        self.shed: Counter[str] = Counter()
        self._rules = Shedding()

    def take(self, frames: list[Frame], now_s: float) -> None:
        """Append them all, or raise `Shed`."""
        agent = str(frames[0].agent)
        reason = self._rules.unseen(agent, len(frames), self.level, now_s)
        reason = reason or self._rules.seen(
            agent, len(frames), self.level, now_s, backlog=any(frame.backlog for frame in frames)
        )
        if reason:
            self.shed[reason] += len(frames)
            raise Shed(reason)
        self.taken += frames


class Node:
    """A production agent without a loop; `door` is what its shipper meets."""

    def __init__(self, folder: Path, door: Door, spool: SpoolLimits | None = None) -> None:
        self.door, self.now_s = door, 1000.0
        self.spool = Spool(folder, spool)
        self.shipper = Shipper(self.spool, random.Random(14), ShipperLimits())
        self._agent = NodeAgent(
            agent=AgentId("n1"),
            boot=BootId("b1"),
            samplers=(Engines(),),
            spool=self.spool,
            shipper=self.shipper,
            encode=encode_frame,
        )

    def live(self, seconds: int) -> None:
        """So many seconds: a frame each, and whatever can be sent."""
        for _ in range(seconds):
            self.now_s += 1.0
            self._agent.tick(self.now_s, 1.7e9 + self.now_s)
            while (batch := self.shipper.next_batch(self.now_s)) is not None:
                frames = [decode_input(0, shipment.payload).body for shipment in batch.shipments]
                error = None
                try:
                    self.door.take([frame for frame in frames if isinstance(frame, Frame)], self.now_s)
                except Shed as shed:
                    error = shed
                self.shipper.conclude(batch, error, self.now_s)

    @property
    def newest(self) -> float:
        """When the newest frame that was taken was sampled."""
        return max(frame.monotonic_s for frame in self.door.taken)


def accounted(node: Node) -> bool:
    """Promise 5: whatever was sampled or found is delivered, dropped or waits."""
    kept = node.spool.accounting
    return kept.taken + kept.recovered == kept.delivered + kept.dropped.total() + node.spool.waiting


@pytest.mark.parametrize(
    ("waiting", "late_s", "level"),
    [
        (0, 0.0, Level.NOTHING),
        (MAX_SAMPLES_WAITING // 4, 2.0, Level.NOTHING),
        (MAX_SAMPLES_WAITING // 4 + 1, 0.0, Level.ITS_BACKLOG),
        (0, 2.1, Level.ITS_BACKLOG),
        (MAX_SAMPLES_WAITING // 2 + 1, 0.0, Level.BEYOND_ITS_SHARE),
        (0, 4.1, Level.BEYOND_ITS_SHARE),
        (MAX_SAMPLES_WAITING, 0.0, Level.BEYOND_ITS_SHARE),
        (MAX_SAMPLES_WAITING + 1, 0.0, Level.EVERYTHING),
        (0, 8.1, Level.EVERYTHING),
    ],
)
def test_f14_the_more_waits_or_the_later_the_tick_the_more_is_kept_out(
    waiting: int, late_s: float, level: Level
) -> None:
    """First the backlog, then what is beyond an agent's share, then everything."""
    assert level is level_of(waiting, 0, late_s)


def test_f14_the_backlog_goes_first_then_what_is_beyond_the_share_then_all() -> None:
    """An agent of one frame a second is the last to be kept out; one at ten times its rate is kept out at once."""
    rules, steady, fast = Shedding(), Counter[str](), Counter[str]()
    for second in range(30):
        level = Level(second // 10 + 1)
        for tenth in range(10):
            now_s = second + tenth / 10
            for _ in range(int(FRAMES_PER_S)):  # of 1 frame: ten times the rate
                fast[rules.seen("fast", 1, level, now_s, backlog=False)] += 1
        steady[rules.seen("steady", 1, level, float(second), backlog=False)] += 1
        steady[rules.seen("steady", 1, level, float(second), backlog=True)] += 1

    assert {"": 20, BACKLOG: 20, BEHIND: 20} == dict(steady)
    assert fast[RATE] > 0.6 * 10 * 10 * FRAMES_PER_S, "its rate is kept before anything lags"
    assert fast[SHARE] > fast[""] * 0.5
    assert 10 * FRAMES_PER_S <= fast[""] <= 10 * FRAMES_PER_S + 1000 + 10 * LIVE_PER_S + 40


def test_f14_live_frames_go_at_once_and_alone_while_the_backlog_is_kept_out(tmp_path: Path) -> None:
    """After an outage into a controller that lags: every engine's newest is there each second, and all else follows."""
    door = Door()
    node = Node(tmp_path, door)
    door.level = Level.EVERYTHING
    node.live(60)
    door.level = Level.ITS_BACKLOG
    node.live(20)

    assert node.newest == node.now_s
    assert not any(frame.backlog for frame in door.taken)
    assert node.spool.waiting >= 60 - 8 - 5
    assert accounted(node)
    door.level = Level.NOTHING
    node.live(20)

    assert (100, 0) == (node.spool.accounting.delivered, node.spool.waiting)
    assert set(range(100)) == {frame.seq for frame in door.taken}
    assert {BACKLOG, BEHIND} == door.shed.keys()
    assert accounted(node)


def test_f14_at_the_spools_bound_the_newest_of_each_engine_is_what_is_kept(tmp_path: Path) -> None:
    """An hour of nothing taken: the oldest go, by number as many as are counted; the newest come first afterwards."""
    door = Door()
    node = Node(tmp_path, door, SpoolLimits(most_bytes=200_000, segment_bytes=20_000))
    door.level = Level.EVERYTHING
    node.live(3600)
    dropped = node.spool.accounting.dropped["oldest"]

    assert dropped > 2000
    assert accounted(node)
    door.level = Level.NOTHING
    node.live(60)

    assert node.newest == node.now_s
    assert set(range(dropped, 3660)) == {frame.seq for frame in door.taken}
    assert all(ENGINES == tuple(sample.engine for sample in frame.engines) for frame in door.taken)
    assert accounted(node)


def test_f14_what_waits_is_counted_from_the_append_to_its_reading() -> None:
    """Under way, in the log, read: nothing is forgotten between, and nothing is counted twice."""
    unread = Unread()
    unread.under_way += 30
    assert 30 == unread.waiting(0)
    unread.kept(9, 20)
    unread.kept(11, 10)

    assert [30, 30, 10, 10, 0] == [unread.waiting(at) for at in (0, 9, 10, 11, 12)]
    assert 0 == unread.under_way
