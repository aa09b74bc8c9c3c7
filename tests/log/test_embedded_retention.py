"""Retention and compaction of the embedded log."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from embedded_folders import QUICK, copy, entry, everything, segments
from flyball_core.errors import LogCorrupt, OffsetGone
from flyball_log import Entry, Topic, fold
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings, Retention, files

SMALL = EmbeddedSettings(segment_bytes=1000, compact_bytes=3000, durability=Durability.OS)


async def test_retention_by_bytes_removes_whole_old_segments(tmp_path: Path) -> None:
    """A partition stays below its bound plus one segment; the end is never touched."""
    kept = Retention(max_bytes=5000, max_age_s=1e9)
    settings = EmbeddedSettings(segment_bytes=1000, retention={Topic.INPUTS: kept}, durability=Durability.OS)
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    for number in range(300):
        await log.append(Topic.INPUTS, 0, [entry(number)])
        assert sum(path.stat().st_size for path in segments(tmp_path / "log")) <= 6200

    bounds = await log.bounds(Topic.INPUTS, 0)
    records = await everything(log)

    assert 300 == bounds.end
    assert list(range(bounds.begin, 300)) == [record.offset for record in records]
    with pytest.raises(OffsetGone):
        await log.read(Topic.INPUTS, 0, bounds.begin - 1)
    await log.close()


async def test_retention_by_age_uses_the_logs_clock(tmp_path: Path) -> None:
    """Segments go once their last append is too old by the injected clock, also over a restart."""
    now = [1_000_000.0]
    settings = EmbeddedSettings(
        segment_bytes=1000,
        retention={Topic.INPUTS: Retention(max_bytes=10**9, max_age_s=800)},
        durability=Durability.OS,
        clock=lambda: now[0],
    )
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    for number in range(100):
        now[0] += 10
        await log.append(Topic.INPUTS, 0, [entry(number)])
        if number == 60:
            await log.close()
            log = EmbeddedLog.open(tmp_path / "log", settings=settings)

    bounds = await log.bounds(Topic.INPUTS, 0)

    # 80 records are young enough; a segment spans at most an eighth of the age (and one more at the restart).
    assert 0 < bounds.begin <= 20
    assert bounds.begin >= 5
    await log.close()


async def test_compacted_topics_are_not_bound_by_retention(tmp_path: Path) -> None:
    """Directives and state keep their last records however old and many they are."""
    log = EmbeddedLog.create(tmp_path / "log", 1, SMALL)
    for number in range(500):
        await log.append(Topic.STATE, 0, [entry(number)])

    assert 500 == len(await fold(log, Topic.STATE, 0))
    await log.close()


async def test_compaction_keeps_last_records_and_offsets(tmp_path: Path) -> None:
    """Under a long random history the fold equals a dictionary's, offsets never change, and the files stay small."""
    random = Random(7)
    log = EmbeddedLog.create(tmp_path / "log", 1, SMALL)
    expected: dict[bytes, tuple[int, bytes]] = {}
    for number in range(3000):
        key, value = b"key-%d" % random.randrange(20), b"%d" % number * random.randrange(1, 5)
        if random.random() < 0.1:
            await log.append(Topic.DIRECTIVES, 0, [Entry(key, None)])
            expected.pop(key, None)
        else:
            (offset,) = await log.append(Topic.DIRECTIVES, 0, [Entry(key, value)])
            expected[key] = (offset, value)
        if number % 500 == 250:
            await log.close()
            log = EmbeddedLog.open(tmp_path / "log", settings=SMALL)

    folded = await fold(log, Topic.DIRECTIVES, 0)

    assert expected == {key: (record.offset, record.value) for key, record in folded.items()}
    assert sum(path.stat().st_size for path in segments(tmp_path / "log", Topic.DIRECTIVES)) < 10_000
    assert 3000 == (await log.bounds(Topic.DIRECTIVES, 0)).end
    await log.close()


async def _fill(log: EmbeddedLog, rounds: int) -> None:
    """Enough appends to other keys for that many compactions."""
    for number in range(rounds * 60):
        await log.append(Topic.STATE, 0, [Entry(b"busy", b"%d" % number * 20)])


async def test_a_tombstone_outlives_one_compaction(tmp_path: Path) -> None:
    """The round that first meets a tombstone keeps it, the next one drops it; the key never comes back."""
    log = EmbeddedLog.create(tmp_path / "log", 1, SMALL)
    await log.append(Topic.STATE, 0, [Entry(b"gone", b"value"), Entry(b"stays", b"value")])
    (tombstone,) = await log.append(Topic.STATE, 0, [Entry(b"gone", None)])
    seen: list[bool] = []
    last_compacted = ""
    for _ in range(300):
        await log.append(Topic.STATE, 0, [Entry(b"busy", b"x" * 60)])
        compacted = [path.name for path in segments(tmp_path / "log", Topic.STATE) if "-" in path.name]
        if compacted and compacted[-1] != last_compacted:
            last_compacted = compacted[-1]
            seen.append(tombstone in [record.offset for record in await everything(log, Topic.STATE)])
            assert b"gone" not in await fold(log, Topic.STATE, 0)
            assert b"stays" in await fold(log, Topic.STATE, 0)

    assert [True, False, False] == seen[:3]
    await log.close()


class Crash(BaseException):
    """Ends everything at once, like a lost machine."""


async def test_a_crash_at_any_step_of_a_compaction_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a compaction has done when the process dies, the next one finds the same last records."""
    copies: list[Path] = []

    def snapshot() -> None:
        copies.append(copy(tmp_path / "log", tmp_path / f"copy-{len(copies)}"))

    def around(step: Callable[..., object]) -> Callable[..., object]:
        def stepped(*arguments: object, **named: object) -> object:
            snapshot()
            answer = step(*arguments, **named)
            snapshot()
            return answer

        return stepped

    log = EmbeddedLog.create(tmp_path / "log", 1, SMALL)
    await log.append(Topic.STATE, 0, [Entry(b"a", b"1"), Entry(b"b", b"1"), Entry(b"a", b"2"), Entry(b"b", None)])
    await _fill(log, 1)
    expected = {key: record[1:] for key, record in (await fold(log, Topic.STATE, 0)).items()}
    with monkeypatch.context() as patch:
        for owner, name in ((files, "write_at"), (files, "create"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, around(getattr(owner, name)))
        names = {path.name for path in segments(tmp_path / "log", Topic.STATE)}
        for _ in range(100):
            await log.append(Topic.STATE, 0, [Entry(b"busy", expected[b"busy"][1])])
            now = {path.name for path in segments(tmp_path / "log", Topic.STATE) if "-" in path.name}
            if now - names:
                break
        else:
            pytest.fail("no compaction ran")
    await log.close()

    assert len(copies) > 8
    for crashed in copies:
        again = EmbeddedLog.open(crashed, settings=SMALL)
        folded = await fold(again, Topic.STATE, 0)
        assert expected == {key: record[1:] for key, record in folded.items()}
        assert not list(crashed.rglob("*.tmp"))
        await _fill(again, 1)
        assert {b"a", b"busy"} == set(await fold(again, Topic.STATE, 0))
        await again.close()
        shutil.rmtree(crashed)


async def test_damage_is_never_compacted_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A partition with a damaged segment is left as it is, appends go on, and the refusal is not logged each time."""
    log = EmbeddedLog.create(tmp_path / "log", 1, SMALL)
    for number in range(30):
        await log.append(Topic.STATE, 0, [entry(number)])
    first = segments(tmp_path / "log", Topic.STATE)[0]
    data = bytearray(first.read_bytes())
    data[100] ^= 1
    first.write_bytes(data)

    await _fill(log, 4)

    assert first.read_bytes() == data
    assert 1 <= len(caplog.records) <= 5
    with pytest.raises(LogCorrupt):
        await everything(log, Topic.STATE)
    await log.close()


async def test_compaction_leaves_appends_and_reads_alone(tmp_path: Path) -> None:
    """With threads, records read while compactions run are right and none of the last ones is missing."""
    settings = EmbeddedSettings(segment_bytes=2000, compact_bytes=6000)
    log = EmbeddedLog.create(tmp_path / "log", 1, settings)
    for number in range(300):
        await log.append(Topic.STATE, 0, [Entry(b"key-%d" % (number % 5), b"%d" % number * 10)])
        if number % 10 == 9:
            folded = await fold(log, Topic.STATE, 0)
            wanted = {b"key-%d" % (each % 5): each for each in range(number + 1)}
            assert wanted == {key: record.offset for key, record in folded.items()}

    assert any("-" in path.name for path in segments(tmp_path / "log", Topic.STATE))
    await log.close()


async def test_random_histories_read_back(tmp_path: Path) -> None:
    """Random appends, reopenings and segment sizes: every record is where it was, from every start."""
    for seed in range(5):
        random = Random(seed)
        settings = EmbeddedSettings(segment_bytes=random.choice([200, 2000, 40_000]), durability=QUICK.durability)
        log = EmbeddedLog.create(tmp_path / str(seed), 1, settings)
        wanted: list[tuple[int, Entry]] = []
        for _ in range(60):
            batch = [entry(random.randrange(10**6), random.randrange(1, 300)) for _ in range(random.randrange(1, 9))]
            wanted += zip(await log.append(Topic.INPUTS, 0, batch), batch, strict=True)
            if random.random() < 0.05:
                await log.close()
                log = EmbeddedLog.open(tmp_path / str(seed), settings=settings)
        for _ in range(60):
            start, limit = random.randrange(len(wanted)), random.randrange(1, 80)
            got = await log.read(Topic.INPUTS, 0, wanted[start][0], limit=limit)
            assert wanted[start : start + limit] == [(record[0], Entry(*record[1:])) for record in got]
        await log.close()
