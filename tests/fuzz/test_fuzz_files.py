"""Files on disk: logs, spools, records of receivers, boots."""

import zlib
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_agents.receiver_store import Held, ReceiverStore
from flyball_agents.spool import Spool
from flyball_log.embedded import EmbeddedLog
from flyball_log.embedded.records import HEADER
from flyball_log.interface import Entry, Topic
from fuzz_files import (
    BOOT,
    POOL,
    QUICK,
    agent_boot,
    everything,
    log_folder,
    log_forged,
    receiver_folder,
    spool_folder,
)
from fuzz_strategies import mutated


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("log_folder"))
def test_log_folder_with_any_bytes(data: bytes) -> None:
    """A damaged log gives back what was appended or nothing, and no offset twice."""
    log_folder(data)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("log_forged"))
def test_log_forged_with_any_bytes(data: bytes) -> None:
    """Segments of somebody else end in an error of ours or in records, in order."""
    log_forged(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("spool_folder"))
def test_spool_folder_with_any_bytes(data: bytes) -> None:
    """A spool opens whatever stands in its folder, and accounts for every frame."""
    spool_folder(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("agent_boot"))
def test_agent_boot_with_any_bytes(data: bytes) -> None:
    """Each start has a boot id of its own."""
    agent_boot(data)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("receiver_folder"))
def test_receiver_folder_with_any_bytes(data: bytes) -> None:
    """A receiver starts with its knobs within bounds, whatever its slots hold."""
    receiver_folder(data)


class _Killed(BaseException):
    """The process ends here."""


async def _killed_while_compacting(folder: Path) -> dict[bytes, bytes | None]:
    """A log whose writer died between naming a compacted segment and removing those it was made from."""
    log = EmbeddedLog.create(folder, 1, QUICK)
    last: dict[bytes, bytes | None] = {}
    unlink = Path.unlink

    def killed(path: Path, *, missing_ok: bool = False) -> None:
        if path.suffix == ".seg":
            raise _Killed
        unlink(path, missing_ok=missing_ok)

    async def write() -> None:
        for number in range(100):
            entry = Entry(b"key-%d" % (number % 3), b"value %d" % number * 10)
            last[entry.key] = entry.value
            await log.append(Topic.STATE, 0, [entry])

    with patch.object(Path, "unlink", killed), pytest.raises(_Killed):
        await write()
    await log.close()
    return last


async def test_a_log_opens_after_a_kill_in_compaction(tmp_path: Path) -> None:
    """Both stand in the folder, under names that begin with the same offset; the compacted one counts."""
    last = await _killed_while_compacting(tmp_path / "log")
    names = [path.stem for path in (tmp_path / "log" / "state" / "0").glob("*.seg")]
    assert ["0" * 20, "0" * 20] == [name[:20] for name in names if int(name[:20]) == 0]
    for read_only in (True, False, True):
        log = EmbeddedLog.open(tmp_path / "log", read_only=read_only, settings=QUICK)
        found = {record.key: record.value for record in await everything(log, Topic.STATE)}
        await log.close()

        assert last == found


async def test_a_block_that_stands_in_a_segment_twice_is_read_once(tmp_path: Path) -> None:
    """A misdirected write leaves whole records at the wrong place: reading stops there, and goes on behind it."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for value in (b"one", b"two" * 200, b"three"):
        await log.append(Topic.INPUTS, 0, [Entry(b"k", value)])
    await log.close()
    first = min((tmp_path / "log" / "inputs" / "0").glob("*.seg"))
    size = HEADER.size + len(b"k") + len(b"one")
    first.write_bytes(first.read_bytes()[:size] + first.read_bytes())
    log = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
    read = await log.read(Topic.INPUTS, 0, 0)
    found = await everything(log, Topic.INPUTS)
    await log.close()

    assert [0] == [record.offset for record in read]
    assert [0, 1, 2] == [record.offset for record in found]


async def test_no_offset_is_used_twice_when_all_segments_are_gone(tmp_path: Path) -> None:
    """The watermark still tells how far the partition was, and so do the versions that receivers hold."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(9):
        await log.append(Topic.INPUTS, 0, [Entry(b"k", b"%d" % number)])
    await log.close()
    for segment in (tmp_path / "log" / "inputs" / "0").glob("*.seg"):
        segment.unlink()
    log = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
    offsets = await log.append(Topic.INPUTS, 0, [Entry(b"k", b"new")])
    found = await everything(log, Topic.INPUTS)
    await log.close()

    assert [9] == offsets
    assert [(9, b"new")] == [(record.offset, record.value) for record in found]


@pytest.mark.parametrize("name", ["\u00b2.seg", "x.seg", "1.seg", "9" * 20 + ".seg"])
@pytest.mark.parametrize("kind", ["file", "folder", "dead link"])
def test_a_spool_opens_beside_odd_files(tmp_path: Path, name: str, kind: str) -> None:
    """What is called as no segment of the spool's own is left alone; what cannot be read is set aside."""
    odd = tmp_path / name
    if kind == "file":
        odd.write_bytes(b"odd")
    elif kind == "folder":
        odd.mkdir()
    else:
        odd.symlink_to("nowhere")
    spool = Spool(tmp_path)
    spool.append(boot=BOOT, pool=POOL, seq=1, now_s=1.0, wall_s=1e9, payload=b"x", live=None)
    [ticket] = spool.oldest(2)

    assert b"x" == spool.read(ticket)
    spool.close()


@pytest.mark.parametrize(
    ("was", "made"),
    [
        (b'"generation": 1', b'"generation": "1"'),
        (b'"wall_s": -Infinity', b'"wall_s": "now"'),
        (b'"values": {}', b'"values": [1]'),
        (b'"version": null', b'"version": ["log-a", 3, 10, -1]'),
        (b'"version": null', b'"version": ["log-a", 3, 1e999, 1]'),
        (b'"eased": false', b'"eased": 0'),
    ],
)
def test_a_record_of_other_types_is_no_record(tmp_path: Path, was: bytes, made: bytes) -> None:
    """Its checksum holds, and still no receiver wrote it: the engine starts as from an empty folder."""
    store = ReceiverStore(tmp_path)
    store.save(Held())
    path = tmp_path / "held-1.json"
    body = path.read_bytes()[9:-1]
    assert was in body
    body = body.replace(was, made)
    path.write_bytes(b"%08x\n%s\n" % (zlib.crc32(body), body))

    assert Held() == ReceiverStore(tmp_path).load()
