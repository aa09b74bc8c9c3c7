"""What is sent, in which order, how fast, and what becomes of it."""

import itertools
import random
from pathlib import Path

import pytest

from flyball_agents.shipper import Shipment, Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.ids import BootId
from node_bench import CHAT, FakeLog, Node
from receiver_bench import odd

SMALL = SpoolLimits(most_bytes=50_000, segment_bytes=5_000, fresh_bytes=2_000)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a small spool."""
    return Node(tmp_path, spool=SMALL)


def test_in_quiet_times_every_frame_goes_out_live_at_its_tick(node: Node) -> None:
    """One frame a tick, in order, none marked, nothing left on disk but the active segment."""
    node.tick(50)

    assert node.log.seqs == list(range(50))
    assert not any(shipment.backlog for shipment in node.log.got)
    assert (node.spool.waiting, node.spool.accounting.delivered, node.shipper.attempts) == (0, 50, 50)


def test_a_shipment_says_whose_it_is(node: Node) -> None:
    """Identity travels beside the payload, which is the encoder's."""
    node.tick()

    assert [(s.boot, s.pool, s.seq, s.backlog) for s in node.log.got] == [("b1", CHAT, 0, False)]
    assert node.log.got[0].payload.startswith(b'["n1", "b1", "chat", 0,')
    assert b"false" in node.log.got[0].payload


def test_after_an_outage_live_frames_go_first_and_the_backlog_beside_them(node: Node) -> None:
    """Older than five seconds is backlog, marked inside and out, sent oldest first at a bounded rate."""
    node.log.down = True
    node.tick(100)
    node.log.down = False
    node.tick(8)
    first = [s for s in node.log.got if s.seq <= node.log.seqs[0]]
    live = [s for s in node.log.got if not s.backlog]
    late = [s for s in node.log.got if s.backlog]

    assert not first[0].backlog
    assert [s.seq for s in live] == list(range(live[0].seq, 108))
    assert [s.seq for s in late] == list(range(live[0].seq))
    assert all(b"true" in s.payload for s in late)
    assert node.spool.waiting == 0


def test_live_frames_are_late_by_one_append_at_most_while_a_backlog_drains(tmp_path: Path) -> None:
    """Each tick's frame is in the batch of that tick, however much backlog there is."""
    node = Node(tmp_path, spool=SMALL, shipper=ShipperLimits(backlog_per_s=3, most_pause_s=0.1))
    node.log.down = True
    node.tick(60)
    node.log.down = False
    node.tick(1)
    for _ in range(15):
        before = len(node.log.got)
        node.tick(1)
        fresh = node.log.got[before:]
        assert not fresh[0].backlog
        assert len(fresh) == 4
        assert [s.backlog for s in fresh] == [False, True, True, True]


def test_the_backlogs_rate_is_bounded_over_any_second(tmp_path: Path) -> None:
    """However often it is asked, no more than the allowance goes out, a second's worth at once at most."""
    node = Node(tmp_path, spool=SMALL, shipper=ShipperLimits(backlog_per_s=10, live_s=0.5, most_pause_s=0.1))
    node.log.down = True
    node.tick(80)
    node.log.down = False
    node.now_s += 60
    sent = []
    for _ in range(40):
        node.now_s += 0.1
        node.ship()
        sent.append(len(node.log.got))

    assert sent[0] == 10
    assert all(later - earlier <= 11 for earlier, later in zip(sent, sent[10:], strict=False))
    assert sent[-1] in (48, 49, 50)


def test_frames_of_an_earlier_boot_are_backlog(tmp_path: Path) -> None:
    """They survive the restart and arrive beside the new boot's live frames."""
    first = Node(tmp_path, spool=SMALL)
    first.log.down = True
    first.tick(10)
    first.spool.close()
    second = Node(tmp_path, boot="b2", spool=SMALL)
    second.tick(2)

    assert [(s.boot, s.seq, s.backlog) for s in second.log.got] == [
        ("b2", 0, False),
        ("b2", 1, False),
        *(("b1", seq, True) for seq in range(10)),
    ]


def test_a_failed_append_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    """Pauses double to their bound, each shortened by chance by up to a half, and end when one works."""
    node = Node(tmp_path, spool=SMALL)
    node.tick(ship=False)
    node.log.down = True
    pauses = []
    for _ in range(9):
        assert node.ship() is not None
        assert node.ship() is None
        pause_s = node.shipper.wait_s(node.now_s)
        pauses.append(pause_s)
        node.now_s += pause_s * 0.999
        assert node.shipper.next_batch(node.now_s) is None
        node.now_s += pause_s * 0.001 + 1e-9
    longest = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]

    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert len(set(pauses)) == 9
    assert node.shipper.failures == 9
    node.log.down = False
    assert node.ship() is not None
    assert (node.shipper.failures, node.spool.waiting) == (0, 0)
    node.log.down = True
    node.tick(ship=False)
    node.ship()
    assert node.shipper.wait_s(node.now_s) <= 0.25


def test_a_way_that_was_opened_ends_the_pause(tmp_path: Path) -> None:
    """What failed before it was there is no reason to wait."""
    node = Node(tmp_path, spool=SMALL)
    node.tick(ship=False)
    node.shipper.failures = 100
    node.log.down = True
    node.ship()
    assert node.shipper.next_batch(node.now_s) is None
    node.log.down = False
    node.shipper.hurry()

    assert node.ship() is not None
    assert (node.shipper.failures, node.spool.waiting) == (0, 0)


def test_pauses_are_bounded_however_long_an_outage_lasts(tmp_path: Path) -> None:
    """Ten thousand failures later the pause is still at its bound."""
    node = Node(tmp_path, spool=SMALL)
    node.tick(ship=False)
    node.shipper.failures = 10_000
    node.log.down = True
    node.ship()

    assert 4.0 <= node.shipper.wait_s(node.now_s) <= 8.0


def test_an_append_of_unknown_outcome_is_sent_again(node: Node) -> None:
    """The log may get a frame twice, under the same identity; it is counted as delivered once."""
    node.log.amnesia = True
    node.tick()
    node.log.amnesia = False
    node.tick(3)

    assert node.log.seqs.count(0) >= 2
    assert set(node.log.seqs) == {0, 1, 2, 3}
    assert (node.spool.accounting.delivered, node.spool.waiting) == (4, 0)
    assert node.shipper.attempts == len(node.log.got)


def test_a_frame_stays_spooled_until_its_append_returned(node: Node) -> None:
    """While a batch is under way nothing else is sent, and a crash then would lose nothing."""
    node.tick(ship=False)
    batch = node.shipper.next_batch(node.now_s)
    assert batch is not None
    node.tick(2)
    assert node.log.got == []
    assert len(Spool(node.spool.folder, SMALL).oldest(10)) == 3
    node.shipper.sent(batch)
    assert node.spool.waiting == 2
    node.ship()
    assert node.log.seqs == [1, 2]


def test_a_frame_the_log_refuses_is_found_and_dropped_alone(node: Node) -> None:
    """The batch around it is sent one by one; the culprit is counted as rejected, the others arrive."""
    node.log.refuses = {3}
    node.log.down = True
    node.tick(7)
    node.log.down = False
    node.tick(30)

    assert sorted(node.log.seqs) == [seq for seq in range(37) if seq != 3]
    assert node.spool.accounting.dropped == {"rejected": 1}
    assert node.spool.accounting.ranges == {("b1", CHAT): [(3, 3)]}
    assert node.spool.waiting == 0
    before = node.shipper.attempts
    node.log.down = True
    node.tick(4)
    node.log.down = False
    node.tick(4)
    assert node.shipper.attempts > before  # and batches are whole again
    assert node.spool.waiting == 0


def test_batches_are_bounded_in_frames_and_bytes(tmp_path: Path) -> None:
    """Neither limit is exceeded by more than the frame that reaches it, and the oldest live frames go first."""
    for limits, sizes in (
        (ShipperLimits(batch_frames=4, live_s=100), [4, 4, 2]),
        (ShipperLimits(batch_bytes=700, live_s=100), [3, 3, 3, 1]),
        (ShipperLimits(batch_bytes=700, live_s=0.1, backlog_per_s=1e6), [3, 3, 3, 1]),
    ):
        node = Node(tmp_path / str(sizes) / str(limits.live_s), spool=SMALL, shipper=limits)
        node.tick(10, ship=False)
        seen = []
        for _ in range(8):
            node.now_s += 1
            batch = node.ship()
            seen += [len(batch.shipments)] if batch else []
        assert seen == sizes
        assert node.log.seqs == list(range(10))


def test_a_frame_damaged_on_disk_costs_itself_alone(node: Node) -> None:
    """The rest of the backlog goes on, and a batch of nothing is none."""
    node.log.down = True
    node.tick(8)
    node.now_s += 20
    for path in node.spool.folder.iterdir():
        path.unlink()
    assert node.shipper.next_batch(node.now_s) is None
    assert node.spool.accounting.dropped == {"damaged": 8}


def test_how_long_there_is_nothing_to_do_is_told(node: Node) -> None:
    """Long if nothing waits, an allowance's worth if something does."""
    assert node.shipper.wait_s(0.0) >= 60
    node.tick(ship=False)
    assert 0 < node.shipper.wait_s(node.now_s) <= 1


@pytest.mark.parametrize(
    ("error", "waits", "dropped"),
    [(None, 0, 0), (LogUnavailable("x"), 1, 0), (RuntimeError("x"), 1, 0), (Rejected("x"), 0, 1)],
)
async def test_an_append_is_accounted_for_by_what_it_raises(
    node: Node, error: Exception | None, waits: int, dropped: int
) -> None:
    """Nothing: delivered. Rejected: dropped. Anything else, also what nobody thought of: tried again."""

    class Log(FakeLog):
        async def append(self, shipments: object) -> None:
            del shipments
            if error is not None:
                raise error

    node.tick(ship=False)
    batch = node.shipper.next_batch(node.now_s)
    assert batch is not None
    met = await node.shipper.ship(odd(Log()), batch)
    node.shipper.conclude(batch, met, node.now_s)

    assert met is error
    assert (node.spool.waiting, sum(node.spool.accounting.dropped.values())) == (waits, dropped)
    node.check()


def test_shipments_are_chosen_alike_for_the_same_seed(tmp_path: Path) -> None:
    """All chance comes from the random generator given."""
    traces = []
    for run in range(2):
        spool = Spool(tmp_path / str(run), SMALL)
        shipper = Shipper(spool, random.Random(5))
        node = Node(tmp_path / f"n{run}", spool=SMALL)
        node.log.down = True
        trace = []
        for _ in itertools.repeat(None, 20):
            node.tick()
            trace.append(node.shipper.wait_s(node.now_s))
        traces.append(trace)
        assert shipper.next_batch(0.0) is None

    assert traces[0] == traces[1]


def test_a_frame_without_a_live_form_waits_on_disk(tmp_path: Path) -> None:
    """What was never live is sent as backlog."""
    spool = Spool(tmp_path, SMALL)
    shipper = Shipper(spool, random.Random(5))
    shipper.add(spool.append(boot=BootId("b"), pool=CHAT, seq=0, now_s=0.0, wall_s=0.0, payload=b"late", live=None))
    assert shipper.next_batch(0.0) is None
    batch = shipper.next_batch(1.0)

    assert batch is not None
    assert batch.shipments == (Shipment(BootId("b"), CHAT, 0, b"late", backlog=True),)
