"""Replay: identical where nothing was changed, and where anything was, it says where."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.machine import Seams, features, standard_seams, tick
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.owner import Owner
from flyball_controller.replay import ReplayReport, Verdict, replay_log
from flyball_core.errors import LogCorrupt, LogUnavailable
from flyball_core.ids import OwnerId
from flyball_core.inputs import (
    Body,
    Fingerprint,
    Grant,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Proposal,
    SlowProposal,
    TargetKind,
)
from flyball_core.knobs import BATCH_CAP
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Log, Record, Topic
from flyball_policies.caps_aimd import CapsAimd
from flyball_proto.codec import decode_audit, decode_input, encode_audit
from harness.logged_pool import LoggedPool, logged_pool, owner_of
from harness.odd_logs import QUICK, Beheaded, Failing, Renamed, copied, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import POLICY, PRINT, WALL_S


def asking_seams() -> Seams:
    """One policy inside the tick and one outside, so that every kind of input has its use."""
    return Seams(slots=(PolicySlot(CapsAimd()),), slow=("slow",))


def orders(pool: LoggedPool) -> list[Body]:
    """An order of every kind."""
    pin = OverrideSet(
        pool=POOL,
        override_id="o1",
        target="e0-0",
        knob=BATCH_CAP,
        value=50,
        expires_wall_s=WALL_S + 1e6,
        reason="test",
        author="op",
    )
    wish = Proposal(policy="slow", kind=TargetKind.ENGINE, target="e1-0", knob=BATCH_CAP, value=55, reason="r")
    return [
        pin,
        OverrideClear(pool=POOL, override_id="o2", author="op"),
        PolicyText(pool=POOL, text=POLICY, author="op"),
        Order(pool=POOL, author="op", mode=Mode.CONTROL, paused=False, reason="go"),
        Grant(pool=POOL, name="watts", amount=5.0, expires_wall_s=WALL_S + 1e6),
        SlowProposal(pool=POOL, policy="slow", tick_revision=1, proposals=(wish,)),
    ]


async def record(folder: Path) -> LoggedPool:
    """A short life with two owners and inputs of every kind."""
    log = EmbeddedLog.create(folder, 1, QUICK)
    pool, _ = await logged_pool(log)
    for name in ("c1", "c2"):
        owner = Owner(log, OwnerId(name), asking_seams, PRINT)
        await owner.take(0, WALL_S + pool.now_s)
        await pool.run(owner, 4)
        for body in orders(pool):
            await pool.put(body)
        await pool.run(owner, 4)
    return pool


async def replayed(log: Log) -> ReplayReport:
    """What a replay of such a life finds."""
    return await replay_log(log, asking_seams, PRINT)


async def test_a_recorded_life_is_identical(tmp_path: Path) -> None:
    """Two owners, every kind of input: the replay answers `identical` and compares every record."""
    pool = await record(tmp_path / "log")
    report = await replayed(pool.log)

    assert Verdict.IDENTICAL is report.verdict
    assert len(await records_of(pool.log, Topic.DECISIONS, 0)) == report.records
    assert [] == report.differences
    assert 16 == report.ticks
    await pool.log.close()


async def kinds(log: Log) -> dict[str, int]:
    """Of every kind of input one that stands before the last tick."""
    found: dict[str, int] = {}
    for entry in (await records_of(log, Topic.INPUTS, 0))[:-6]:
        found[type(decode_input(entry.offset, entry.value).body).__name__] = entry.offset
    return found


def flipped(value: bytes, bit: int) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


ALL_KINDS = [
    "Frame",
    "Tick",
    "Claim",
    "Attach",
    "Ack",
    "OverrideSet",
    "OverrideClear",
    "PolicyText",
    "Order",
    "Intent",
    "Grant",
    "SlowProposal",
]


class Changed(Renamed):
    """A log in which one input reads otherwise."""

    def __init__(self, log: Log, offset: int, value: bytes) -> None:
        super().__init__(log, log.log_id)
        self._offset, self._value = offset, value

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """The records, one of them changed."""
        records = await super().read(topic, partition, start, limit=limit, wait_s=wait_s)
        if topic is not Topic.INPUTS:
            return records
        return [r._replace(value=self._value) if r.offset == self._offset else r for r in records]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recorded life, closed."""
    folder = tmp_path_factory.mktemp("life") / "log"

    async def make() -> None:
        pool = await record(folder)
        await pool.log.close()

    asyncio.run(make())
    return folder


@pytest.mark.parametrize("kind", ALL_KINDS)
async def test_one_flipped_bit_of_any_input_is_found_where_it_is(life: Path, kind: str) -> None:
    """Any of a dozen bits of an input of this kind: `different`, and the inputs named enclose it."""
    log = EmbeddedLog.open(life, read_only=True)
    offset = (await kinds(log))[kind]
    [original] = [r.value for r in await records_of(log, Topic.INPUTS, 0) if r.offset == offset and r.value]
    bits = range(0, len(original) * 8, max(1, len(original) * 8 // 12))
    for bit in bits:
        report = await replayed(Changed(log, offset, flipped(original, bit)))
        first, last = report.differences[0].inputs

        assert Verdict.DIFFERENT is report.verdict
        assert first <= offset <= last, (bit, report.differences[0])
    await log.close()


async def test_a_log_rewritten_with_one_bit_changed_is_different(life: Path, tmp_path: Path) -> None:
    """The same through a log on disk, sound in itself, but for one bit of one frame."""
    log = EmbeddedLog.open(life, read_only=True)
    offset = (await kinds(log))["Frame"]

    def change(topic: Topic, record: Record) -> list[Entry]:
        value = record.value
        if topic is Topic.INPUTS and record.offset == offset and value is not None:
            value = flipped(value, 77)
        return [Entry(record.key, value)]

    rewritten = Renamed(await copied(log, str(tmp_path / "other"), change), log.log_id)
    report = await replayed(rewritten)

    assert Verdict.DIFFERENT is report.verdict
    assert report.differences[0].inputs[0] <= offset <= report.differences[0].inputs[1]
    assert "inputs_digest" == report.differences[0].what
    await rewritten.close()
    await log.close()


async def test_a_copy_is_identical(life: Path, tmp_path: Path) -> None:
    """The way in which the test above changes a log changes nothing else."""
    log = EmbeddedLog.open(life, read_only=True)
    copy = Renamed(await copied(log, str(tmp_path / "copy"), lambda _t, r: [Entry(r.key, r.value)]), log.log_id)

    assert Verdict.IDENTICAL is (await replayed(copy)).verdict
    await copy.close()
    await log.close()


async def test_damage_on_disk_is_named(life: Path, tmp_path: Path) -> None:
    """A bit flipped in the file of the inputs: `LogCorrupt` with the record's offset, never a wrong answer."""
    folder = tmp_path / "damaged"
    shutil.copytree(life, folder)
    [segment] = [file for file in (folder / "inputs" / "0").iterdir() if file.stat().st_size > 1000]
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 4
    segment.write_bytes(bytes(content))
    log = EmbeddedLog.open(folder, read_only=True)

    with pytest.raises(LogCorrupt) as damaged:
        await replayed(log)
    assert 0 < damaged.value.offset
    assert str(damaged.value.offset) in str(damaged.value)
    await log.close()


async def test_records_published_twice_are_harmless(life: Path, tmp_path: Path) -> None:
    """Every decision and directive published twice: still identical, the copies counted."""
    log = EmbeddedLog.open(life, read_only=True)

    def change(topic: Topic, record: Record) -> list[Entry]:
        entry = Entry(record.key, record.value)
        return [entry, entry] if topic in (Topic.DECISIONS, Topic.DIRECTIVES) else [entry]

    doubled = Renamed(await copied(log, str(tmp_path / "twice"), change), log.log_id)
    report = await replayed(doubled)

    assert Verdict.IDENTICAL is report.verdict
    assert report.records == report.duplicates == len(await records_of(log, Topic.DECISIONS, 0))
    await doubled.close()
    await log.close()


async def test_a_copy_behind_newer_records_of_its_key_is_harmless(life: Path, tmp_path: Path) -> None:
    """Kafka may write a batch twice, the copy late: an old directive or heartbeat at the end changes nothing."""
    log = EmbeddedLog.open(life, read_only=True)
    made = await copied(log, str(tmp_path / "late"), lambda _topic, record: [Entry(record.key, record.value)])
    told = [record for record in await records_of(log, Topic.DIRECTIVES, 0) if record.value is not None]
    last = {record.key: record for record in told}
    late = [Entry(record.key, record.value) for record in told if last[record.key] is not record]
    assert late
    await made.append(Topic.DIRECTIVES, 0, late)
    renamed = Renamed(made, log.log_id)

    report, plain = await replayed(renamed), await replayed(log)

    assert Verdict.IDENTICAL is report.verdict
    assert 0 < plain.directives == report.directives
    assert plain.notes == report.notes
    await renamed.close()
    await log.close()


@pytest.mark.parametrize("which", ["missing", "changed", "foreign"])
async def test_a_record_that_is_not_what_came_out_is_found(life: Path, tmp_path: Path, which: str) -> None:
    """A decision taken out, changed or slipped in makes the replay different, at that record."""
    log = EmbeddedLog.open(life, read_only=True)
    at = 9

    def change(topic: Topic, record: Record) -> list[Entry]:
        entry = Entry(record.key, record.value)
        if topic is not Topic.DECISIONS or record.offset != at:
            return [entry]
        if which == "missing":
            return []
        strange = replace(decode_audit(record.value or b""), time_s=77.0)
        other = Entry(record.key, encode_audit(strange))
        return [other] if which == "changed" else [entry, other]

    odd = Renamed(await copied(log, str(tmp_path / which), change), log.log_id)
    report = await replayed(odd)

    assert Verdict.DIFFERENT is report.verdict
    assert report.records in (at, at + 1)
    await odd.close()
    await log.close()


async def test_an_owner_killed_before_its_answer_leaves_a_log_that_replays(tmp_path: Path) -> None:
    """A tick whose records never came out, followed by a successor: identical, the records counted as unpublished."""
    log = Failing(EmbeddedLog.create(tmp_path / "log", 1, QUICK))
    pool, first = await logged_pool(log)
    pool.scripted.engines["e0-1"].slowness = 2.5
    await pool.run(first, 20)
    log.refusing = frozenset({Topic.DECISIONS})
    with pytest.raises(LogUnavailable):
        await pool.run(first, 1)
    log.refusing = frozenset()
    second = owner_of(log, "c2")
    await second.take(0, WALL_S + pool.now_s)
    await pool.run(second, 20)
    report = await replay_log(log, standard_seams, PRINT)

    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert 0 < report.unpublished
    await log.close()


async def replayed_with_a_successor(log: Failing, pool: LoggedPool, first: Owner) -> ReplayReport:
    """The replay of a log that took nothing of `first` for a while, had another owner, and then took it after all."""
    log.refusing = frozenset()
    second = owner_of(log, "c2")
    await second.take(0, WALL_S + pool.now_s)
    await pool.run(second, 5)
    await first.poll(0)
    await pool.run(second, 5)
    return await replay_log(log, standard_seams, PRINT)


async def test_a_frozen_owners_late_answers_do_not_spoil_the_replay(tmp_path: Path) -> None:
    """What an owner still publishes after its successor's first tick is found late, not different."""
    log = Failing(EmbeddedLog.create(tmp_path / "log", 1, QUICK))
    pool, first = await logged_pool(log)
    pool.scripted.engines["e0-1"].slowness = 2.5
    await pool.run(first, 20)
    log.refusing = frozenset({Topic.DECISIONS})
    with pytest.raises(LogUnavailable):
        await pool.run(first, 1)
    report = await replayed_with_a_successor(log, pool, first)

    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert 0 == report.unpublished
    await log.close()


async def test_an_owner_that_says_everything_late_does_not_spoil_the_replay(tmp_path: Path) -> None:
    """Its first record may stand behind its successor's: it is older than that one, not than the decisions kept."""
    log = Failing(EmbeddedLog.create(tmp_path / "log", 1, QUICK))
    log.refusing = frozenset({Topic.DECISIONS})
    pool, first = await logged_pool(log)
    with pytest.raises(LogUnavailable):
        await pool.run(first, 1)
    report = await replayed_with_a_successor(log, pool, first)

    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert 0 == report.unpublished
    await log.close()


async def test_another_fingerprint_is_said_and_compared_within_a_tolerance(life: Path) -> None:
    """On another machine equal records are `within tolerance`, and the difference of the machines is named."""
    log = EmbeddedLog.open(life, read_only=True)
    report = await replay_log(log, asking_seams, replace(PRINT, numpy="9.9"))

    assert Verdict.WITHIN_TOLERANCE is report.verdict
    assert "numpy 0, here 9.9" in report.fingerprints[0]
    await log.close()


@pytest.mark.parametrize(
    ("here", "verdict"), [(PRINT, Verdict.DIFFERENT), (replace(PRINT, flyball="0.9"), Verdict.WITHIN_TOLERANCE)]
)
async def test_what_only_another_version_measures_is_not_compared(
    life: Path, monkeypatch: pytest.MonkeyPatch, here: Fingerprint, verdict: Verdict
) -> None:
    """A feature that the record has and this version has not makes a difference under the same version alone."""
    measure = features.pool_features
    monkeypatch.setattr(tick, "pool_features", lambda *said: {**measure(*said), "only_here": 1.0})
    log = EmbeddedLog.open(life, read_only=True)
    report = await replay_log(log, asking_seams, here)

    assert verdict is report.verdict, report.differences
    await log.close()


async def test_the_retained_end_of_a_log_replays_from_its_checkpoint(tmp_path: Path) -> None:
    """With the first inputs gone the replay begins at a checkpoint, and what follows is identical."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    pool.scripted.engines["e0-1"].slowness = 2.5
    await pool.run(owner, 200)
    report = await replay_log(Beheaded(log, 300, keeps_state=True), standard_seams, PRINT)

    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert 0 < report.ticks < 200
    await log.close()
