"""Who may open which folder, and what readers beside the writer see."""

import asyncio
import json
import sys
import uuid
from pathlib import Path

import pytest

from embedded_folders import QUICK, entry, everything, segments
from flyball_core.errors import Fatal, LogUnavailable, NotALog, Rejected
from flyball_log import Entry, Topic, fold, open_log
from flyball_log.embedded import EmbeddedLog, EmbeddedSettings, Retention


async def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """While one writer lives another is refused with the first one's process, and let in afterwards."""
    log = EmbeddedLog.create(tmp_path / "log", 1)

    with pytest.raises(Fatal, match="has a writer already"):
        EmbeddedLog.open(tmp_path / "log")
    await log.close()

    await EmbeddedLog.open(tmp_path / "log").close()


async def test_a_killed_writer_holds_no_lock(tmp_path: Path) -> None:
    """A writer that was killed keeps nobody out."""
    await EmbeddedLog.create(tmp_path / "log", 1).close()
    code = "import os, sys, flyball_log.embedded as e; e.EmbeddedLog.open(sys.argv[1]); os.kill(os.getpid(), 9)"
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path / "log"))
    assert -9 == await killed.wait()

    await EmbeddedLog.open(tmp_path / "log").close()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "holds no log"),
        ("", "not that of a log"),
        ("[]", "not that of a log"),
        ('{"format": 1}', "not that of a log"),
        (json.dumps({"format": 1, "log_id": "x", "partitions": 1}), "not that of a log"),
        (json.dumps({"format": 1, "log_id": str(uuid.UUID(int=1)), "partitions": "1"}), "not that of a log"),
        (json.dumps({"format": 1, "log_id": str(uuid.UUID(int=1)), "partitions": 0}), "not that of a log"),
    ],
)
async def test_what_is_no_log_is_refused(tmp_path: Path, text: str | None, why: str) -> None:
    """A folder that holds no log is named, with what is wrong, and nothing is made in it."""
    folder = tmp_path / "other"
    folder.mkdir()
    if text is not None:
        (folder / "meta.json").write_text(text)

    for read_only in (True, False):
        with pytest.raises(NotALog, match=why):
            await open_log(str(folder), read_only=read_only)

    assert {"meta.json"} >= {path.name for path in folder.iterdir()}


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that is not there, or is a file, is said to be so."""
    (tmp_path / "file").write_text("x")

    with pytest.raises(NotALog, match="nowhere does not exist"):
        await open_log(str(tmp_path / "nowhere"))
    with pytest.raises(NotALog, match="file is no folder"):
        await open_log(str(tmp_path / "file"))


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A log written by a later version is not touched."""
    await EmbeddedLog.create(tmp_path / "log", 1).close()
    said = json.loads((tmp_path / "log/meta.json").read_text())
    (tmp_path / "log/meta.json").write_text(json.dumps(said | {"format": 2}))

    with pytest.raises(Fatal, match="format 2"):
        EmbeddedLog.open(tmp_path / "log")


def test_a_log_is_not_made_over_something_else(tmp_path: Path) -> None:
    """Neither another log nor foreign files are overwritten, and wrong numbers are refused."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "log").mkdir()
    (tmp_path / "log/meta.json").write_text("{}")

    with pytest.raises(Rejected, match="precious"):
        EmbeddedLog.create(tmp_path / "full")
    with pytest.raises(Rejected, match="already holds a log"):
        EmbeddedLog.create(tmp_path / "log")
    with pytest.raises(LogUnavailable, match="cannot make a log here"):
        EmbeddedLog.create(tmp_path / "file/log")
    for partitions in (0, 1025):
        with pytest.raises(Rejected, match="1 to 1024"):
            EmbeddedLog.create(tmp_path / "new", partitions)


@pytest.mark.parametrize("where", ["http://x/y", "s3://bucket/log"])
async def test_an_unknown_kind_of_log_is_refused(where: str) -> None:
    """A name with a scheme that is no log's says which there are."""
    with pytest.raises(Rejected, match="a folder or kafka://"):
        await open_log(where)


async def test_a_reader_follows_through_segments_and_compactions(tmp_path: Path) -> None:
    """A reader beside the writer sees each record once and in order while segments come and go."""
    settings = EmbeddedSettings(segment_bytes=800, compact_bytes=2000, durability=QUICK.durability)
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    reader = EmbeddedLog.open(tmp_path / "log", read_only=True, settings=settings)
    seen: list[int] = []
    for number in range(120):
        await log.append(Topic.INPUTS, 0, [entry(number)])
        await log.append(Topic.STATE, 0, [Entry(b"k%d" % (number % 3), b"%d" % number * 20)])
        if number % 7 == 0:
            seen += [record.offset for record in await reader.read(Topic.INPUTS, 0, len(seen))]
            assert await fold(log, Topic.STATE, 0) == await fold(reader, Topic.STATE, 0)

    seen += [record.offset for record in await reader.read(Topic.INPUTS, 0, len(seen))]

    assert list(range(120)) == seen
    await reader.close()
    await log.close()


async def test_a_reader_is_told_what_retention_took(tmp_path: Path) -> None:
    """Segments removed under a reader are no error of files but an offset that is gone."""
    kept = Retention(max_bytes=2000, max_age_s=1e9)
    settings = EmbeddedSettings(segment_bytes=800, retention={Topic.INPUTS: kept}, durability=QUICK.durability)
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    await log.append(Topic.INPUTS, 0, [entry(0)])
    reader = EmbeddedLog.open(tmp_path / "log", read_only=True, settings=settings)
    for number in range(1, 200):
        await log.append(Topic.INPUTS, 0, [entry(number)])

    with pytest.raises(Rejected, match="no longer kept"):
        await reader.read(Topic.INPUTS, 0, 0)
    assert (await log.bounds(Topic.INPUTS, 0)) == (await reader.bounds(Topic.INPUTS, 0))
    await reader.close()
    await log.close()


async def test_a_reader_without_a_writer_sees_all_that_is_intact(tmp_path: Path) -> None:
    """Read from a copy or after a crash: everything up to a torn tail, and the files are not changed."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    await log.append(Topic.INPUTS, 0, [entry(0), entry(1)])
    await log.close()
    with segments(tmp_path / "log")[0].open("ab") as file:
        file.write(b"torn tail")
    before = {path: path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file()}

    reader = EmbeddedLog.open(tmp_path / "log", read_only=True)

    assert [0, 1] == [record.offset for record in await everything(reader)]
    await reader.close()
    assert before == {path: path.read_bytes() for path in (tmp_path / "log").rglob("*") if path.is_file()}


async def test_a_reader_notices_the_writers_death(tmp_path: Path) -> None:
    """When the writer is gone, a reader sees what it wrote without having said so, once it asks again."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    await log.append(Topic.INPUTS, 0, [entry(0)])
    mark = tmp_path / "log/inputs/0/synced"
    old = mark.read_bytes()
    await log.append(Topic.INPUTS, 0, [entry(1)])
    mark.write_bytes(old)
    reader = EmbeddedLog.open(tmp_path / "log", read_only=True)
    assert [0] == [record.offset for record in await reader.read(Topic.INPUTS, 0, 0)]

    await log.close()
    mark.write_bytes(old)

    async with asyncio.timeout(10):
        assert [1] == [record.offset for record in await reader.read(Topic.INPUTS, 0, 1, wait_s=9)]
    await reader.close()


async def test_a_reader_and_writers_take_turns(tmp_path: Path) -> None:
    """Writers that come and go beside a reader are never kept out by it."""
    await EmbeddedLog.create(tmp_path / "log", 1, QUICK).close()
    reader = EmbeddedLog.open(tmp_path / "log", read_only=True)
    for number in range(20):
        log = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
        await log.append(Topic.INPUTS, 0, [entry(number)])
        assert number == (await reader.read(Topic.INPUTS, 0, number))[0].offset
        await log.close()

    assert 20 == len(await reader.read(Topic.INPUTS, 0, 0))
    await reader.close()
