"""Fault 6: any byte of a spool segment may be wrong; the rest of the spool is delivered all the same."""

from pathlib import Path

import pytest

from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.ids import BootId, PoolId

LIMITS = SpoolLimits(most_bytes=8_000, segment_bytes=400, fresh_bytes=300)
BOOT, POOL = BootId("b"), PoolId("chat")


def payload(seq: int) -> bytes:
    """A payload that tells its number."""
    return f"frame {seq} ".encode() * 4


def filled(folder: Path, frames: int = 12) -> list[Path]:
    """A closed spool of several segments."""
    spool = Spool(folder, LIMITS)
    for seq in range(frames):
        spool.append(boot=BOOT, pool=POOL, seq=seq, now_s=float(seq), wall_s=1e9 + seq, payload=payload(seq), live=None)
    spool.close()
    return sorted(folder.glob("*.seg"))


def delivered(spool: Spool) -> dict[int, bytes]:
    """Everything that can be delivered, and the account closed on it."""
    tickets = spool.oldest(1000)
    found = {ticket.key[2]: body for ticket in tickets if (body := spool.read(ticket)) is not None}
    spool.delivered([ticket for ticket in tickets if ticket.key[2] in found])
    account = spool.accounting
    assert account.taken + account.recovered == account.delivered + sum(account.dropped.values())
    return found


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_f06_any_damaged_byte_costs_one_frame_and_the_file_is_set_aside(tmp_path: Path, which: int, flip: int) -> None:
    """For each byte of a segment: start-up succeeds, the file is quarantined, every other frame is delivered whole."""
    segments = filled(tmp_path)
    assert len(segments) > 2
    originals = {path: path.read_bytes() for path in segments}
    target = segments[which]
    for place in range(len(originals[target])):
        for path in tmp_path.iterdir():
            path.unlink()
        for path, data in originals.items():
            path.write_bytes(data)
        damaged = bytearray(originals[target])
        damaged[place] ^= flip
        target.write_bytes(damaged)
        spool = Spool(tmp_path, LIMITS)

        assert spool.quarantined == [target.name]
        assert target.with_suffix(".bad").read_bytes() == damaged
        found = delivered(spool)
        assert len(found) == 11
        assert all(body == payload(seq) for seq, body in found.items())
        spool.close()


def test_f06_a_segment_of_garbage_is_set_aside(tmp_path: Path) -> None:
    """Nothing of it is whole: the others are delivered, and the next start finds nothing left to do."""
    segments = filled(tmp_path)
    lost = Spool(tmp_path, LIMITS)
    in_first = sum(ticket.segment is not None and ticket.segment.path == segments[0] for ticket in lost.oldest(1000))
    lost.close()
    segments[0].write_bytes(bytes(range(1, 200)))
    spool = Spool(tmp_path, LIMITS)
    assert spool.quarantined == [segments[0].name]
    assert len(delivered(spool)) == 12 - in_first
    spool.close()
    again = Spool(tmp_path, LIMITS)

    assert (again.quarantined, again.waiting) == ([], 0)


def test_f06_damage_in_every_segment_is_survived(tmp_path: Path) -> None:
    """Start-up succeeds with nothing whole at all, one damaged file is kept, and new frames are spooled."""
    segments = filled(tmp_path)
    for path in segments:
        path.write_bytes(path.read_bytes()[::-1])
    spool = Spool(tmp_path, LIMITS)

    assert spool.quarantined == [path.name for path in segments]
    assert [path.name for path in tmp_path.iterdir()] == [segments[-1].with_suffix(".bad").name]
    spool.append(boot=BOOT, pool=POOL, seq=99, now_s=0.0, wall_s=0.0, payload=payload(99), live=None)
    assert delivered(spool) == {99: payload(99)}


def test_f06_damaged_files_count_towards_the_bound_and_go_first(tmp_path: Path) -> None:
    """Evidence is kept as long as there is room for it; a spool never exceeds its bound for it."""
    segments = filled(tmp_path)
    segments[0].write_bytes(segments[0].read_bytes()[:-1] + b"?")
    spool = Spool(tmp_path, LIMITS)
    bad = segments[0].with_suffix(".bad")
    assert bad.exists()
    for seq in range(100, 300):
        spool.append(boot=BootId("c"), pool=POOL, seq=seq, now_s=0.0, wall_s=0.0, payload=payload(seq), live=None)
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert size == spool.bytes_on_disk <= LIMITS.most_bytes
        assert not (bad.exists() and spool.accounting.dropped["oldest"])
    assert not bad.exists()
    assert spool.accounting.dropped["oldest"] > 0


def test_f06_no_room_for_the_evidence_keeps_the_frames(tmp_path: Path) -> None:
    """A full spool with a damaged segment keeps the whole frames rather than the damaged file."""
    segments = filled(tmp_path)
    data = segments[0].read_bytes()
    segments[0].write_bytes(data[:-1] + b"?")
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    tight = SpoolLimits(most_bytes=size + 10, segment_bytes=400, fresh_bytes=300)
    spool = Spool(tmp_path, tight)

    assert spool.quarantined == [segments[0].name]
    assert not segments[0].with_suffix(".bad").exists()
    assert len(delivered(spool)) == 11


def test_f06_a_segment_that_cannot_be_set_aside_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk takes no new file, the whole records of the damaged segment are delivered from where they lie."""
    segments = filled(tmp_path)
    segments[0].write_bytes(segments[0].read_bytes()[:-1] + b"?")

    def read_only(*_: object) -> int:
        raise OSError("read-only")

    monkeypatch.setattr(Path, "write_bytes", read_only)
    spool = Spool(tmp_path, LIMITS)

    assert spool.quarantined == [segments[0].name]
    assert len(delivered(spool)) == 11


def test_f06_a_segment_that_cannot_be_read_is_left_and_the_others_delivered(tmp_path: Path) -> None:
    """A folder where a segment should be costs nothing but itself."""
    filled(tmp_path)
    (tmp_path / "000000000099.seg").mkdir()
    spool = Spool(tmp_path, LIMITS)

    assert spool.quarantined == ["000000000099.seg"]
    assert len(delivered(spool)) == 12
