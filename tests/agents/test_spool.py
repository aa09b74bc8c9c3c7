"""The spool: bounded, checked, recovered, and counted without a gap."""

import errno
import os
from pathlib import Path

import pytest

from flyball_agents.segments import HEAD_BYTES, decode, encode, scan
from flyball_agents.spool import Spool, SpoolLimits, Ticket, sync_all
from flyball_core.errors import Rejected
from flyball_core.ids import BootId, PoolId
from node_bench import CHAT, CODE

BOOT = BootId("b1")
SMALL = SpoolLimits(most_bytes=4000, segment_bytes=1000, fresh_bytes=500)


def put(spool: Spool, seq: int, *, size: int = 100, pool: PoolId = CHAT, live: bytes | None = None) -> Ticket:
    """Append one frame whose payload tells its number."""
    payload = f"{seq}:".encode().ljust(size, b"x")
    return spool.append(boot=BOOT, pool=pool, seq=seq, now_s=float(seq), wall_s=1e9 + seq, payload=payload, live=live)


def waiting(spool: Spool) -> list[int]:
    """The numbers of all frames that read back whole, oldest first."""
    return [int(payload.split(b":")[0]) for t in spool.oldest(10**6) if (payload := spool.read(t)) is not None]


def exact(spool: Spool) -> None:
    """The account is exact and the disk is as the spool says."""
    account = spool.accounting
    dropped = sum(account.dropped.values())
    assert account.taken + account.recovered == account.delivered + dropped + spool.waiting
    assert spool.bytes_on_disk == sum(p.stat().st_size for p in spool.folder.iterdir()) <= spool.limits.most_bytes
    assert dropped == sum(last - first + 1 for runs in account.ranges.values() for first, last in runs)


def test_what_is_appended_reads_back_in_order(tmp_path: Path) -> None:
    """Payloads come back whole, oldest first, and again after the spool was opened anew."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(20):
        put(spool, seq)
    exact(spool)
    assert waiting(spool) == list(range(20))
    assert [t.key for t in spool.oldest(2)] == [(BOOT, CHAT, 0), (BOOT, CHAT, 1)]
    spool.close()
    again = Spool(tmp_path, SMALL)

    assert waiting(again) == list(range(20))
    assert (again.accounting.recovered, again.accounting.taken) == (20, 0)
    assert [t.stored.wall_s for t in again.oldest(1)] == [1e9]
    exact(again)


def test_a_spool_that_was_never_closed_is_recovered(tmp_path: Path) -> None:
    """A process that died leaves what it wrote."""
    first = Spool(tmp_path, SMALL)
    for seq in range(7):
        put(first, seq)

    assert waiting(Spool(tmp_path, SMALL)) == list(range(7))
    first.close()


def test_delivered_frames_leave_the_disk(tmp_path: Path) -> None:
    """In any order; a segment goes when nothing in it waits, and closing leaves no empty one."""
    spool = Spool(tmp_path, SMALL)
    tickets = [put(spool, seq) for seq in range(20)]
    spool.delivered(tickets[10:])
    spool.delivered(tickets[:10:2])
    exact(spool)
    assert waiting(spool) == [1, 3, 5, 7, 9]
    spool.delivered(tickets[1:10:2])
    spool.delivered(tickets)
    exact(spool)
    assert (spool.accounting.delivered, spool.waiting) == (20, 0)
    spool.close()
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_fresh_segment_goes_once_it_is_worth_it(tmp_path: Path) -> None:
    """Below `fresh_bytes` the active segment stays although all in it is delivered; at it, it goes."""
    spool = Spool(tmp_path, SMALL)
    spool.delivered([put(spool, 0)])
    assert len(list(tmp_path.iterdir())) == 1
    spool.delivered([put(spool, seq) for seq in range(1, 4)])
    assert list(tmp_path.iterdir()) == []
    assert waiting(spool) == []
    put(spool, 4)
    assert waiting(spool) == [4]
    exact(spool)


def test_the_boot_id_must_be_new(tmp_path: Path) -> None:
    """A boot id used twice would give two frames one identity: refused."""
    spool = Spool(tmp_path, SMALL)
    put(spool, 0)
    with pytest.raises(Rejected, match="frame 0 of pool chat in boot b1 is in the spool already"):
        put(spool, 0)
    put(spool, 0, pool=CODE)
    exact(spool)


@pytest.mark.parametrize(
    "limits",
    [SpoolLimits(segment_bytes=HEAD_BYTES), SpoolLimits(most_bytes=100, segment_bytes=101)],
)
def test_absurd_limits_are_rejected(tmp_path: Path, limits: SpoolLimits) -> None:
    """A spool that could hold nothing does not open."""
    with pytest.raises(Rejected, match="segment"):
        Spool(tmp_path, limits)


def test_a_frame_too_large_for_a_segment_is_dropped_and_counted(tmp_path: Path) -> None:
    """Unless it is live: then it is dropped when it no longer is."""
    spool = Spool(tmp_path, SMALL)
    put(spool, 0, size=1000)
    assert spool.accounting.dropped == {"too_large": 1}
    ticket = put(spool, 1, size=1000, live=b"live")
    assert spool.accounting.dropped == {"too_large": 1}
    spool.retire(ticket)
    assert spool.accounting.dropped == {"too_large": 2}
    assert spool.accounting.ranges == {(BOOT, CHAT): [(0, 1)]}
    exact(spool)


def test_a_frame_being_sent_is_dropped_only_when_its_fate_is_known(tmp_path: Path) -> None:
    """Its segment goes at the bound; if the append returns it counts as delivered, else as dropped."""
    spool = Spool(tmp_path, SMALL)
    first, second = put(spool, 0), put(spool, 1)
    first.leased = second.leased = True
    for seq in range(2, 60):
        put(spool, seq)
    assert (first.segment, second.segment) == (None, None)
    assert spool.oldest(1)[0].key[2] > 1
    spool.delivered([first])
    spool.release(second)

    assert spool.accounting.delivered == 1
    assert spool.accounting.ranges[BOOT, CHAT][-1] == (1, 1)
    exact(spool)


def test_old_frames_expire(tmp_path: Path) -> None:
    """By the monotonic clock within a boot, whatever the wall clock does; by the wall clock across boots."""
    limits = SpoolLimits(most_bytes=4000, segment_bytes=200, fresh_bytes=100, most_age_s=10.0)
    spool = Spool(tmp_path, limits)
    for seq in range(5):
        put(spool, seq)
    spool.expire(BOOT, 12.0, 1e12)
    assert waiting(spool) == [2, 3, 4]
    spool.expire(BootId("b2"), 1e12, 1e9 + 13.5)
    assert waiting(spool) == [4]
    assert spool.accounting.dropped == {"age": 4}
    exact(spool)


def test_a_record_damaged_after_it_was_indexed_is_counted(tmp_path: Path) -> None:
    """What no longer reads back is dropped as damaged, the rest goes on."""
    spool = Spool(tmp_path, SMALL)
    tickets = [put(spool, seq) for seq in range(3)]
    path = next(tmp_path.iterdir())
    data = bytearray(path.read_bytes())
    data[tickets[1].stored.offset + 60] ^= 1
    path.write_bytes(data)

    assert waiting(spool) == [0, 2]
    assert spool.accounting.dropped == {"damaged": 1}
    path.unlink()
    assert waiting(spool) == []
    assert spool.accounting.dropped == {"damaged": 3}
    ghost = put(spool, 9, live=b"live")
    ghost.segment = None
    assert spool.read(ghost) is None


def test_a_torn_tail_is_truncated_wherever_it_is_torn(tmp_path: Path) -> None:
    """Cut off at any byte: the whole records before it are kept, and the file ends where they do."""
    spool = Spool(tmp_path / "whole", SMALL)
    tickets = [put(spool, seq, size=30) for seq in range(3)]
    spool.close()
    name = next(spool.folder.iterdir()).name
    whole = (spool.folder / name).read_bytes()
    ends = [t.stored.offset + t.stored.size for t in tickets]
    for cut in range(len(whole)):
        folder = tmp_path / f"{cut}"
        folder.mkdir()
        for tail in (b"", b"\x00" * 40):  # cut off, or a size that reached the disk before its bytes
            if cut + len(tail) > len(whole) or (tail and cut in (0, *ends)):
                continue
            (folder / name).write_bytes(whole[:cut])
            torn = Spool(folder, SMALL)
            kept = sum(end <= cut for end in ends)

            assert waiting(torn) == list(range(kept))
            assert torn.quarantined == []
            assert torn.torn == (cut not in (0, *ends))
            exact(torn)
            put(torn, 7)
            assert waiting(torn) == [*range(kept), 7]
            torn.close()
            for path in folder.iterdir():
                path.unlink()


def test_a_tail_of_zeros_is_a_torn_tail(tmp_path: Path) -> None:
    """A file that grew before its bytes reached the disk lost nothing that was synced."""
    spool = Spool(tmp_path, SMALL)
    put(spool, 0)
    spool.close()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes() + b"\x00" * 77)
    again = Spool(tmp_path, SMALL)

    assert (waiting(again), again.torn, again.quarantined) == ([0], 1, [])
    exact(again)


def test_a_full_disk_drops_the_oldest_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is made by dropping; nothing raises, a half-written record leaves no trace, and it recovers unaided."""
    spool = Spool(tmp_path, SMALL)
    pwrite, capacity = os.pwrite, 2500

    def full(descriptor: int, data: bytes, offset: int) -> int:
        others = sum(p.stat().st_size for p in tmp_path.iterdir()) - os.fstat(descriptor).st_size
        room = capacity - others - offset
        if room <= 0:
            raise OSError(errno.ENOSPC, "no space left")
        return pwrite(descriptor, data[:room], offset)

    monkeypatch.setattr(os, "pwrite", full)
    for seq in range(40):
        put(spool, seq)
        exact(spool)
    kept = waiting(spool)
    assert kept == list(range(kept[0], 40))
    assert spool.accounting.dropped == {"disk_full": kept[0]}
    assert spool.accounting.ranges == {(BOOT, CHAT): [(0, kept[0] - 1)]}
    capacity = 10**9
    put(spool, 40)
    assert waiting(spool)[-1] == 40


def test_a_broken_disk_drops_nothing_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not lack of space costs the new frame, unless it is live, and none of the old."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(3):
        put(spool, seq)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", broken)
        put(spool, 3)
        ticket = put(spool, 4, live=b"live")
        exact(spool)
    put(spool, 5)

    assert waiting(spool) == [0, 1, 2, 5]
    assert (ticket.segment, ticket.loss) == (None, "disk")
    assert spool.accounting.dropped == {"disk": 1}
    spool.delivered([ticket])
    assert spool.accounting.dropped == {"disk": 1}
    exact(spool)


def test_a_disk_with_no_room_at_all_costs_frames_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a file can be made: every frame is counted, live ones when they are no longer live."""
    spool = Spool(tmp_path, SMALL)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "open", full)
    put(spool, 0)
    ticket = put(spool, 1, live=b"live")
    spool.retire(ticket)

    assert spool.accounting.dropped == {"disk": 2}


def test_files_that_cannot_be_removed_still_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If deleting fails the bound holds all the same, and it is tried again."""
    spool = Spool(tmp_path, SMALL)

    def stuck(path: Path, *, missing_ok: bool = False) -> None:
        del path, missing_ok
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", stuck)
        for seq in range(60):
            put(spool, seq)
            exact(spool)
        assert spool.accounting.dropped["disk"] > 0
    put(spool, 60)
    exact(spool)
    assert waiting(spool)[-1] == 60


def test_syncing_is_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appending syncs nothing; what was written since is handed over once, and closed after."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    spool = Spool(tmp_path, SMALL)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for seq in range(8):
        put(spool, seq)
    assert synced == []
    sync_all(spool.unsynced())
    assert synced == ["000000000001.seg", "000000000002.seg", tmp_path.name]
    assert spool.unsynced() == []
    put(spool, 8)
    sync_all(spool.unsynced())
    assert synced[3:] == ["000000000002.seg"]
    spool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_syncing_that_fails_or_is_forgotten_costs_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptors are closed whatever the disk says, and do not pile up if nobody syncs."""

    def broken(_: int) -> None:
        raise OSError("broken")

    monkeypatch.setattr(os, "fsync", broken)
    spool = Spool(tmp_path, SpoolLimits(most_bytes=50_000, segment_bytes=200, fresh_bytes=100))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for seq in range(100):
        put(spool, seq)
    assert before + 10 < len(list(Path("/proc/self/fd").iterdir())) < before + 20
    for seq in range(100, 200):
        spool.delivered([put(spool, seq)])
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20
    for ticket in spool.oldest(1000):
        spool.drop(ticket, "rejected")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    put(spool, 200)
    sync_all(spool.unsynced())
    spool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_frame_counts_as_synced_once_the_disk_said_so(tmp_path: Path) -> None:
    """Not before, not if a file or the folder could not be synced, and not if it left meanwhile; told by name."""
    told: list[tuple[str, int, str]] = []
    spool = Spool(tmp_path, SMALL, lambda what, key, reason: told.append((what, key[2], reason)))
    first, second, third = put(spool, 0), put(spool, 1), put(spool, 2)
    given = spool.unsynced()
    assert ("synced", 0, "") not in told
    spool.delivered([second])
    spool.drop(third, "rejected")
    spool.synced(failed=sync_all(given))
    assert told[3:] == [("dropped", 2, "rejected"), ("synced", 0, "")]
    put(spool, 3)
    spool.synced(failed=0)
    assert ("synced", 3, "") not in told
    spool.unsynced()
    spool.synced(failed=1)

    assert told[5:] == [("made", 3, "")]
    assert (spool.accounting.synced, spool.sync_failures) == (1, 1)
    assert [line[:2] for line in told if line[0] == "made"] == [("made", seq) for seq in range(4)]
    assert spool.waiting == 2
    assert first.segment is not None
    exact(spool)


def test_a_process_without_descriptors_left_syncs_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is given away, nothing counts as synced, and nothing is forgotten."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(8):
        put(spool, seq)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as short:
        short.setattr(os, "dup", none_left)
        assert spool.unsynced() == []
        short.undo()
        short.setattr(os, "open", none_left)
        assert spool.unsynced() == []
    before = len(list(Path("/proc/self/fd").iterdir()))
    spool.synced(failed=sync_all(spool.unsynced()))

    assert spool.accounting.synced == 8
    assert len(list(Path("/proc/self/fd").iterdir())) < before
    spool.close()


def test_a_spool_opened_under_a_smaller_bound_comes_within_it(tmp_path: Path) -> None:
    """The bound holds from the first moment, and what it costs is counted."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(24):
        put(spool, seq)
    spool.close()
    tight = Spool(tmp_path, SpoolLimits(most_bytes=1800, segment_bytes=1000, fresh_bytes=500))

    assert tight.accounting.dropped["oldest"] > 0
    exact(tight)


def test_a_taking_over_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """A salvaged segment whose original is gone takes its place; one whose original is there is redone."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(3):
        put(spool, seq)
    spool.close()
    path = next(tmp_path.iterdir())
    path.rename(path.with_suffix(".new"))
    again = Spool(tmp_path, SMALL)
    assert waiting(again) == [0, 1, 2]
    again.close()
    path.with_suffix(".new").write_bytes(b"half")
    again = Spool(tmp_path, SMALL)
    assert waiting(again) == [0, 1, 2]
    assert not path.with_suffix(".new").exists()
    exact(again)


def test_a_frame_found_twice_is_one_frame(tmp_path: Path) -> None:
    """Two copies of a segment deliver each frame once."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(3):
        put(spool, seq)
    spool.close()
    path = next(tmp_path.iterdir())
    (tmp_path / "000000000007.seg").write_bytes(path.read_bytes())
    again = Spool(tmp_path, SMALL)

    assert (waiting(again), again.accounting.recovered) == ([0, 1, 2], 3)
    put(again, 9)
    assert (tmp_path / "000000000008.seg").exists()
    exact(again)


def test_what_is_not_the_spools_is_left_alone(tmp_path: Path) -> None:
    """Other files in the folder are neither read nor removed."""
    (tmp_path / "README").write_text("mine")
    (tmp_path / "notes.seg").write_text("mine too")
    spool = Spool(tmp_path, SMALL)
    put(spool, 0)

    assert waiting(spool) == [0]
    assert (tmp_path / "README").read_text() + (tmp_path / "notes.seg").read_text() == "minemine too"


def test_runs_of_dropped_frames_are_bounded(tmp_path: Path) -> None:
    """The latest thousand runs of a boot and pool are named; the counts stay exact."""
    spool = Spool(tmp_path, SMALL)
    for seq in range(0, 4000, 2):
        spool.drop(put(spool, seq), "rejected")

    assert spool.accounting.dropped == {"rejected": 2000}
    assert len(spool.accounting.ranges[BOOT, CHAT]) == 1000
    assert spool.accounting.ranges[BOOT, CHAT][-1] == (3998, 3998)


def test_a_record_decodes_to_what_was_encoded() -> None:
    """Names of any script, an empty payload; what is cut or grown is refused."""
    record = encode(BootId("böot"), PoolId("通"), 7, 1.5, 2.5, b"")
    stored, payload = decode(record)
    assert (stored.boot, stored.pool, stored.seq, stored.now_s, stored.wall_s, payload) == (
        "böot",
        "通",
        7,
        1.5,
        2.5,
        b"",
    )
    for wrong in (record[:-1], record + b"x", b"", record[:-1] + b"x", b"XX" + record[2:]):
        with pytest.raises(ValueError, match=r"record|checksum"):
            decode(wrong)


def test_a_scan_goes_on_behind_damage() -> None:
    """A damaged head costs its own record: the next sound head is found."""
    records = [encode(BOOT, CHAT, seq, 0.0, 0.0, b"FS" * 20) for seq in range(3)]
    data = records[0] + b"FS" + records[1][2:5] + b"\xff" + records[1][6:] + records[2]
    found = scan(data)

    assert [record.seq for record in found.records] == [0, 2]
    assert (found.damaged, found.torn_at) == (True, None)
