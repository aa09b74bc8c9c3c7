"""Fault 2: an outage that outlasts the spool costs the oldest frames, exactly as many as are counted."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import PooledEngine, Reading
from flyball_agents.shipper import Shipment, Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import LogUnavailable
from flyball_core.frames import EngineSample, Frame
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId

POOLS = (PoolId("chat"), PoolId("code"))
LIMITS = SpoolLimits(most_bytes=40_000, segment_bytes=4_000, fresh_bytes=2_000)


class Engines:
    """One engine in each pool; the second pool is seen at every third tick only."""

    name = "engines"

    def __init__(self) -> None:
        self.ticks = 0

    def sample(self, now_s: float) -> Reading:
        """A reading of now."""
        self.ticks += 1
        pools = POOLS if self.ticks % 3 == 0 else POOLS[:1]
        return Reading(
            now_s, (), tuple(PooledEngine(p, EngineSample(EngineId(p), Incarnation("i"), 0, (), "v")) for p in pools)
        )


def encode(frame: Frame) -> tuple[bytes, bytes]:
    """About as long as in life, and not always equally long."""
    written = f"{frame.pool}:{frame.seq}".encode().ljust(150 + frame.seq % 70, b".")
    return written, written


class Fleet:
    """One agent against a log that comes and goes, with what was sampled and what arrived."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder, LIMITS)
        self.shipper = Shipper(self.spool, random.Random(7), ShipperLimits(backlog_per_s=100))
        self.agent = NodeAgent(
            agent=AgentId("n"),
            boot=BootId("b"),
            samplers=(Engines(),),
            spool=self.spool,
            shipper=self.shipper,
            encode=encode,
        )
        self.now_s = 0.0
        self.sampled: set[tuple[PoolId, int]] = set()
        self.arrived: list[Shipment] = []
        self.most_bytes = 0

    def run(self, seconds: int, *, log_up: bool) -> None:
        """So many beats at 1 Hz, with the bound checked at each."""
        for _ in range(seconds):
            self.now_s += 1.0
            frames = self.agent.tick(self.now_s, 1e9 + self.now_s)
            self.sampled |= {(frame.pool, frame.seq) for frame in frames}
            batch = self.shipper.next_batch(self.now_s)
            if batch is not None:
                self.shipper.conclude(batch, self.append(batch.shipments, log_up=log_up), self.now_s)
            size = sum(path.stat().st_size for path in self.spool.folder.iterdir())
            self.most_bytes = max(self.most_bytes, size)
            assert size == self.spool.bytes_on_disk <= LIMITS.most_bytes

    def append(self, shipments: Sequence[Shipment], *, log_up: bool) -> Exception | None:
        """What the log says."""
        if not log_up:
            return LogUnavailable("outage")
        self.arrived.extend(shipments)
        return None

    def missing(self) -> set[tuple[PoolId, int]]:
        """Frames that were sampled and never arrived."""
        return self.sampled - {(shipment.pool, shipment.seq) for shipment in self.arrived}

    def counted(self) -> set[tuple[PoolId, int]]:
        """Frames that the agent names as dropped."""
        return {
            (pool, seq)
            for (_, pool), runs in self.spool.accounting.ranges.items()
            for first, last in runs
            for seq in range(first, last + 1)
        }


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncing is not what is tested here."""
    monkeypatch.setattr("os.fsync", lambda _: None)


def test_f02_the_oldest_are_dropped_and_the_counter_equals_what_is_missing(tmp_path: Path) -> None:
    """An outage of ten times the bound: the missing frames are the counted ones, and the oldest of the outage."""
    fleet = Fleet(tmp_path)
    fleet.run(60, log_up=True)
    before = {pool: max(seq for p, seq in fleet.sampled if p == pool) for pool in POOLS}
    fleet.run(2000, log_up=False)
    assert fleet.most_bytes > 0.8 * LIMITS.most_bytes
    fleet.run(120, log_up=True)
    missing = fleet.missing()

    assert fleet.spool.waiting == 0
    assert len(missing) == fleet.spool.accounting.dropped["oldest"] == sum(fleet.spool.accounting.dropped.values())
    assert missing == fleet.counted()
    for pool in POOLS:
        lost = sorted(seq for p, seq in missing if p == pool)
        assert lost == list(range(before[pool] + 1, before[pool] + 1 + len(lost)))
    assert len(missing) > 1000


def test_f02_everything_that_arrives_late_is_marked_and_live_frames_come_first(tmp_path: Path) -> None:
    """After the outage the newest frame is in the first batch; what follows from the spool is backlog."""
    fleet = Fleet(tmp_path)
    fleet.run(300, log_up=False)
    fleet.run(12, log_up=True)  # pauses end after 8 s at most
    live = [shipment for shipment in fleet.arrived if not shipment.backlog]
    late = [shipment for shipment in fleet.arrived if shipment.backlog]

    assert not fleet.arrived[0].backlog
    assert [s.seq for s in live if s.pool == "chat"] == sorted({s.seq for s in live if s.pool == "chat"})
    assert {s.seq for s in late} & {s.seq for s in live if s.pool == "chat"} <= {
        s.seq for s in late if s.pool == "code"
    }
    assert late


def test_f02_a_restart_within_the_outage_loses_nothing_more(tmp_path: Path) -> None:
    """What the next life finds is delivered as backlog, and both lives' accounts add up."""
    fleet = Fleet(tmp_path)
    fleet.run(500, log_up=False)
    lost = fleet.counted()
    fleet.spool.close()
    spool = Spool(tmp_path, LIMITS)
    shipper = Shipper(spool, random.Random(7), ShipperLimits(backlog_per_s=100))
    arrived: list[Shipment] = []
    for second in range(60):
        batch = shipper.next_batch(float(second))
        if batch is not None:
            arrived.extend(batch.shipments)
            shipper.sent(batch)

    assert all(shipment.backlog for shipment in arrived)
    assert {(s.pool, s.seq) for s in arrived} == fleet.sampled - lost
    assert spool.accounting.recovered == spool.accounting.delivered == len(arrived)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(spells=st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=8))
def test_f02_however_often_the_log_comes_and_goes_the_account_is_exact(
    tmp_path_factory: pytest.TempPathFactory, spells: list[tuple[int, bool]]
) -> None:
    """Any sequence of outages: missing equals counted once the backlog is drained, and no frame comes from nowhere."""
    fleet = Fleet(tmp_path_factory.mktemp("spool"))
    for seconds, log_up in spells:
        fleet.run(seconds, log_up=log_up)
    fleet.run(60, log_up=True)

    assert fleet.spool.waiting == 0
    assert fleet.missing() == fleet.counted()
    assert {(s.pool, s.seq) for s in fleet.arrived} <= fleet.sampled
    fleet.spool.close()
