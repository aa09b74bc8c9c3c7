"""What a crash or a bad disk leaves behind, and what the embedded log makes of it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedded_folders import QUICK, copy, entry, everything, segments
from flyball_core.errors import LogCorrupt
from flyball_log import Entry, Topic
from flyball_log.embedded import EmbeddedLog, EmbeddedSettings
from flyball_log.embedded.watermark import synced_end


async def test_a_torn_tail_is_cut_off_at_every_byte(tmp_path: Path) -> None:
    """Wherever a killed writer stopped in its last commit, what was synced before is there and nothing else."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    before = copy(tmp_path / "log", tmp_path / "before")
    size = segments(before)[0].stat().st_size
    await log.append(Topic.INPUTS, 0, [entry(3)])
    whole = segments(tmp_path / "log")[0].read_bytes()
    await log.close()

    for end in range(size, len(whole)):
        crashed = copy(before, tmp_path / "crashed")
        segments(crashed)[0].write_bytes(whole[:end])
        again = EmbeddedLog.open(crashed, settings=QUICK)

        assert [entry(number) for number in range(3)] == [record[1:] for record in await everything(again)]
        assert ([end - size] if end > size else []) == [found.torn_bytes for found in again.recovered]
        assert size == segments(crashed)[0].stat().st_size
        (offset,) = await again.append(Topic.INPUTS, 0, [entry(4)])
        assert offset >= 3
        assert [0, 1, 2, offset] == [record.offset for record in await everything(again)]
        await again.close()


async def test_a_commit_torn_in_its_middle_is_cut_off_whole(tmp_path: Path) -> None:
    """Pages of one commit may reach the disk in any order: behind the first hole all of it goes."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    await log.append(Topic.INPUTS, 0, [entry(0)])
    before = copy(tmp_path / "log", tmp_path / "before")
    size = segments(before)[0].stat().st_size
    await log.append(Topic.INPUTS, 0, [entry(number) for number in range(1, 6)])
    data = bytearray(segments(tmp_path / "log")[0].read_bytes())
    await log.close()
    third = size + 2 * (len(data) - size) // 5
    data[third : third + 30] = bytes(30)
    segments(before)[0].write_bytes(data)

    again = EmbeddedLog.open(before, settings=QUICK)

    assert [0, 1, 2] == [record.offset for record in await everything(again)]
    assert [len(data) - third] == [found.torn_bytes for found in again.recovered]
    # None of the offsets that the lost records may have had is given again.
    assert (await again.append(Topic.INPUTS, 0, [entry(9)]))[0] >= 6
    await again.close()


async def test_any_changed_byte_of_a_synced_record_is_noticed(tmp_path: Path) -> None:
    """One flipped bit anywhere: records before are read, then `LogCorrupt` names file, byte and offset."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [entry(number, 3)])
    await log.close()
    data = segments(tmp_path / "log")[0].read_bytes()
    step = len(data) // 3

    for at in range(len(data)):
        damaged = copy(tmp_path / "log", tmp_path / "damaged")
        changed = bytearray(data)
        changed[at] ^= 0x10
        segments(damaged)[0].write_bytes(changed)
        for read_only in (True, False):
            again = EmbeddedLog.open(damaged, read_only=read_only, settings=QUICK)
            bad = at // step
            if bad:
                good = await again.read(Topic.INPUTS, 0, 0)
                assert [entry(number, 3) for number in range(bad)] == [record[1:] for record in good]
            with pytest.raises(LogCorrupt, match=f"{segments(damaged)[0]}.* {bad} .*byte {bad * step}") as corrupt:
                await again.read(Topic.INPUTS, 0, bad)
            assert bad == corrupt.value.offset
            if bad < 2:
                assert 2 == (await again.read(Topic.INPUTS, 0, bad + 1))[-1].offset
            await again.close()
        assert not again.recovered


async def test_a_damaged_log_goes_on(tmp_path: Path) -> None:
    """Damage at the very end neither prevents opening nor lets an offset be used twice."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    await log.close()
    path = segments(tmp_path / "log")[0]
    path.write_bytes(path.read_bytes()[:-1])

    for _ in range(2):
        again = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
        (offset,) = await again.append(Topic.INPUTS, 0, [entry(3)])

        assert offset > 2
        assert [0, 1] == [record.offset for record in await again.read(Topic.INPUTS, 0, 0)]
        with pytest.raises(LogCorrupt, match="record 2"):
            await again.read(Topic.INPUTS, 0, 2)
        assert offset == (await again.read(Topic.INPUTS, 0, offset))[0].offset
        await again.close()


async def test_synced_records_that_vanished_are_missed(tmp_path: Path) -> None:
    """A file cut at a record's edge looks whole; the log still knows that more had been synced."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    await log.close()
    path = segments(tmp_path / "log")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])

    for _ in range(2):
        again = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
        with pytest.raises(LogCorrupt, match="record 1"):
            await again.read(Topic.INPUTS, 0, 1)
        assert (await again.append(Topic.INPUTS, 0, [entry(3)]))[0] >= 3
        await again.close()


async def test_without_a_watermark_damage_is_told_by_later_commits(tmp_path: Path) -> None:
    """After a lost machine: a hole before another commit was synced, so it is damage and nothing is cut off."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(3):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    await log.close()
    (tmp_path / "log/inputs/0/synced").write_bytes(b"")
    path = segments(tmp_path / "log")[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 3 + 30] ^= 1
    path.write_bytes(data)

    again = EmbeddedLog.open(tmp_path / "log", settings=QUICK)

    assert not again.recovered
    with pytest.raises(LogCorrupt, match="record 1"):
        await again.read(Topic.INPUTS, 0, 1)
    assert [2] == [record.offset for record in await again.read(Topic.INPUTS, 0, 2)]
    await again.close()


async def test_a_damaged_old_segment_does_not_prevent_opening(tmp_path: Path) -> None:
    """Damage in a segment of the past is met by who reads there, and by nobody else."""
    settings = EmbeddedSettings(segment_bytes=500, durability=QUICK.durability)
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    for number in range(60):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    await log.close()
    second = segments(tmp_path / "log")[1]
    second.write_bytes(b"rubbish" * 10)
    base, after = int(second.stem), int(segments(tmp_path / "log")[2].stem)

    again = EmbeddedLog.open(tmp_path / "log", settings=settings)

    assert base - 1 == (await again.read(Topic.INPUTS, 0, 0, limit=1000))[-1].offset
    for lost in (base, after - 1):
        with pytest.raises(LogCorrupt, match=second.name):
            await again.read(Topic.INPUTS, 0, lost)
    assert list(range(after, 60)) == [r.offset for r in await again.read(Topic.INPUTS, 0, after, limit=1000)]
    assert [60] == await again.append(Topic.INPUTS, 0, [entry(60)])
    await again.close()


async def test_random_rubbish_at_the_end_never_breaks_opening(tmp_path: Path) -> None:
    """Whatever bytes follow the last synced record, the log opens, reads and appends."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    await log.append(Topic.INPUTS, 0, [entry(0), entry(1)])
    await log.close()
    data = segments(tmp_path / "log")[0].read_bytes()
    tails = [bytes(40), b"\xff" * 100, b"\xf1B" * 50, data[:40], data[5:], os.urandom(5000), data]

    for tail in tails:
        crashed = copy(tmp_path / "log", tmp_path / "crashed")
        segments(crashed)[0].write_bytes(data + tail)
        again = EmbeddedLog.open(crashed, settings=QUICK)
        (offset,) = await again.append(Topic.INPUTS, 0, [entry(2)])

        assert [0, 1, offset] == [record.offset for record in await everything(again)]
        await again.close()


_KILLED_WRITER = """
import asyncio, sys
from flyball_log import Entry, Topic
from flyball_log.embedded import EmbeddedLog

async def append_for_ever(log, writer):
    for number in range(10**9):
        offsets = await log.append(Topic.INPUTS, 0, [Entry(b"%d" % writer, b"%d" % number * 50)] * 3)
        print(writer, number, offsets[0], flush=True)

async def main():
    log = EmbeddedLog.open(sys.argv[1])
    await asyncio.gather(*(append_for_ever(log, writer) for writer in range(4)))

asyncio.run(main())
"""


async def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    """`kill -9` of a writer under load, again and again: every acknowledged record is at its offset."""
    await EmbeddedLog.create(tmp_path / "log", 1).close()
    acknowledged: dict[int, tuple[bytes, bytes]] = {}

    for life in range(4):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED_WRITER, str(tmp_path / "log"), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        lines = [await process.stdout.readline() for _ in range(40 + 13 * life)]
        process.send_signal(signal.SIGKILL)
        lines += (await process.stdout.read()).splitlines(keepends=True)
        await process.wait()
        for line in lines:
            if line.endswith(b"\n"):
                writer, number, offset = line.split()
                for copy_number in range(3):
                    acknowledged[int(offset) + copy_number] = (writer, number * 50)

    log = EmbeddedLog.open(tmp_path / "log")
    there = {record.offset: (record.key, record.value) for record in await everything(log)}
    assert not {offset for offset, what in acknowledged.items() if there.get(offset) != what}
    await log.close()


async def test_the_watermark_is_never_ahead(tmp_path: Path) -> None:
    """What is said to be synced is the end that readers see, and a torn watermark says nothing."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    await log.append(Topic.INPUTS, 0, [Entry(b"k", b"v")] * 7)

    assert 7 == (await log.bounds(Topic.INPUTS, 0)).end == synced_end(tmp_path / "log/inputs/0")
    await log.close()
    mark = tmp_path / "log/inputs/0/synced"
    data = mark.read_bytes()
    for torn in (data[:-1], b"", bytes([data[0] ^ 1]) + data[1:]):
        mark.write_bytes(torn)
        assert 0 == synced_end(mark.parent)


async def test_a_creation_that_was_broken_off_can_be_repeated(tmp_path: Path) -> None:
    """A crash while a log is made leaves no log, and making it again works."""
    log = EmbeddedLog.create(tmp_path / "log", 2)
    await log.close()
    said = json.loads((tmp_path / "log/meta.json").read_text())
    (tmp_path / "log/meta.json").unlink()

    again = EmbeddedLog.create(tmp_path / "log", 2)

    assert said["log_id"] != again.log_id
    await again.close()
