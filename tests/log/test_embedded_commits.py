"""Commits of the embedded log: when they count, how they are bundled, and what a failing disk does."""

import asyncio
import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from embedded_folders import QUICK, entry, everything, segments
from flyball_core.errors import LogUnavailable
from flyball_log import Bounds, Topic
from flyball_log.embedded import EmbeddedLog, EmbeddedSettings, Retention, files


class SlowDisk:
    """Stands for `files.sync`: every sync waits until it is let through."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.asked = threading.Event()
        self.threads: list[int] = []

    def __call__(self, fd: int) -> None:
        """Wait, then sync."""
        self.threads.append(threading.get_ident())
        self.asked.set()
        assert self.may_go.wait(20)
        os.fdatasync(fd)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    """A disk that syncs when the test says so."""
    disk = SlowDisk()
    monkeypatch.setattr(files, "sync", disk)
    return disk


async def test_only_synced_records_are_seen(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """A record written but not yet synced is in no read and in no bounds, here or in another reader."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    reader = EmbeddedLog.open(tmp_path / "log", read_only=True)

    appending = asyncio.create_task(log.append(Topic.INPUTS, 0, [entry(0)]))
    await asyncio.to_thread(slow_disk.asked.wait)
    written = segments(tmp_path / "log")[0].stat().st_size
    seen = [[await each.read(Topic.INPUTS, 0, 0), await each.bounds(Topic.INPUTS, 0)] for each in (log, reader)]
    done_before = appending.done()
    slow_disk.may_go.set()

    assert [0] == await appending
    assert written
    assert not done_before
    assert [[[], Bounds(0, 0)]] * 2 == seen
    assert [[0], [0]] == [[r.offset for r in await each.read(Topic.INPUTS, 0, 0, wait_s=5)] for each in (log, reader)]
    await reader.close()
    await log.close()


async def test_appends_that_wait_share_a_sync(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """While one commit is being synced, all that arrive go into the next one; none syncs on the event loop."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    first = asyncio.create_task(log.append(Topic.INPUTS, 0, [entry(0)]))
    await asyncio.to_thread(slow_disk.asked.wait)
    others = [asyncio.create_task(log.append(Topic.INPUTS, 0, [entry(number)])) for number in range(1, 100)]
    await asyncio.sleep(0)
    slow_disk.may_go.set()

    offsets = [answer for (answer,) in await asyncio.gather(first, *others)]

    assert list(range(100)) == offsets
    assert 2 == len(slow_disk.threads)
    assert threading.get_ident() not in slow_disk.threads
    await log.close()


async def test_partitions_do_not_wait_for_each_other(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """While one partition waits for the disk, another is written."""
    log = EmbeddedLog.create(tmp_path / "log", 2)
    tasks = [asyncio.create_task(log.append(Topic.INPUTS, partition, [entry(0)])) for partition in range(2)]
    async with asyncio.timeout(10):
        while len(slow_disk.threads) < 2:
            await asyncio.sleep(0.01)
    slow_disk.may_go.set()

    assert [[0], [0]] == await asyncio.gather(*tasks)
    await log.close()


async def test_a_caller_that_gives_up_harms_nobody(tmp_path: Path, slow_disk: SlowDisk) -> None:
    """Cancelling one append leaves the others of its group their own offsets."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    tasks = [asyncio.create_task(log.append(Topic.INPUTS, 0, [entry(number)])) for number in range(4)]
    await asyncio.to_thread(slow_disk.asked.wait)
    tasks[2].cancel()
    slow_disk.may_go.set()

    offsets = await asyncio.gather(*tasks, return_exceptions=True)

    assert [[0], [1], [3]] == [offsets[at] for at in (0, 1, 3)]
    assert 4 == len(await everything(log))
    await log.close()


@pytest.mark.parametrize("name", ["write_at", "sync"])
async def test_a_failing_disk_appends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """When writing or syncing fails half-way the append is refused, and the next one is as if it had not been."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    await log.append(Topic.INPUTS, 0, [entry(0)])

    def full(fd: int, data: bytes = b"", position: int = 0) -> None:
        os.pwrite(fd, data[: len(data) // 2], position)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, name, full)
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="No space left on device"):
                await log.append(Topic.INPUTS, 0, [entry(1), entry(2)])
        assert Bounds(0, 1) == await log.bounds(Topic.INPUTS, 0)
        assert 1 == len(await everything(log))

    assert [1] == await log.append(Topic.INPUTS, 0, [entry(3)])
    await log.close()
    again = EmbeddedLog.open(tmp_path / "log")
    assert [entry(0), entry(3)] == [record[1:] for record in await everything(again)]
    assert () == again.recovered
    await again.close()


async def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The kernel's own refusal to write is `LogUnavailable`; when there is room again the log goes on by itself."""
    log = EmbeddedLog.create(tmp_path / "log", 1)
    await log.append(Topic.INPUTS, 0, [entry(0)])
    size = segments(tmp_path / "log")[0].stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(LogUnavailable, match="File too large"):
            await log.append(Topic.INPUTS, 0, [entry(1, 100)])
        assert size == segments(tmp_path / "log")[0].stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert [1] == await log.append(Topic.INPUTS, 0, [entry(1, 100)])
    assert [entry(0), entry(1, 100)] == [record[1:] for record in await everything(log)]
    await log.close()


async def test_a_full_disk_prevents_neither_opening_nor_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no space for a new segment the log still opens, reads, and removes what is out of retention."""
    now = [1000.0]
    settings = EmbeddedSettings(
        segment_bytes=300,
        retention={Topic.INPUTS: Retention(max_bytes=10_000, max_age_s=100)},
        durability=QUICK.durability,
        clock=lambda: now[0],
    )
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    for number in range(20):
        await log.append(Topic.INPUTS, 0, [entry(number)])
    await log.close()
    before = len(segments(tmp_path / "log"))
    with segments(tmp_path / "log")[-1].open("ab") as file:
        file.write(b"torn")

    def full(path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "create", full)
        again = EmbeddedLog.open(tmp_path / "log", settings=settings)
        assert 20 == len(await everything(again))
        with pytest.raises(LogUnavailable, match="No space left"):
            await again.append(Topic.INPUTS, 0, [entry(20)])
        now[0] += 1000
        with pytest.raises(LogUnavailable, match="No space left"):
            await again.append(Topic.INPUTS, 0, [entry(20)])
        assert len(segments(tmp_path / "log")) < before

    (offset,) = await again.append(Topic.INPUTS, 0, [entry(20)])
    assert offset >= 20
    assert [offset] == [record.offset for record in await again.read(Topic.INPUTS, 0, offset)]
    await again.close()


async def test_promising_only_the_operating_system_needs_no_thread(tmp_path: Path) -> None:
    """With durability "os" appends and reads run where they are called, so a simulation stays deterministic."""
    before = threading.active_count()
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    for number in range(10):
        await log.append(Topic.INPUTS, 0, [entry(number)])

    assert 10 == len(await everything(log))
    assert before == threading.active_count()
    await log.close()
