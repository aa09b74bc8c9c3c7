"""Replay: the same `step` over a recorded log, compared with what was recorded.

Nothing here can reach an engine: replay appends nothing and imports no pusher. From
claim to claim it says under which fingerprint the record was made; under the same one
every record must come out bit-equal, under another one equal within a tolerance.
"""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice

from flyball_controller.checkpoints import find_checkpoint
from flyball_controller.fingerprint import difference
from flyball_controller.machine import PartitionState, Seams, step
from flyball_controller.owner import publication
from flyball_core.errors import LogCorrupt, Rejected
from flyball_core.inputs import Claim, Fingerprint, Input
from flyball_core.outputs import DecisionRecord, Output, TickRecord
from flyball_log import scan
from flyball_log.interface import Log, Record, Topic
from flyball_proto.codec import decode_audit, decode_directive, decode_input

TOLERANCE = 1e-6
"""Largest relative difference of a number under another fingerprint."""

MOST_DIFFERENCES = 20


class Verdict(Enum):
    """What a replay found."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within tolerance"
    """Recorded under another fingerprint; every number within `TOLERANCE`, everything else equal."""
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One place where the record and the replay part: what was recorded and what came out."""

    partition: int
    where: str
    """Which record: its pool, kind and the offset of the input that caused it."""
    inputs: tuple[int, int]
    """The inputs between the last tick that agreed and this record, first and last offset."""
    what: str
    recorded: str
    replayed: str
    pool: str = ""
    time_s: float | None = None
    """The machine's time of that record; None where no record could be read."""


@dataclass(slots=True)
class ReplayReport:
    """What a replay of a whole log found."""

    verdict: Verdict = Verdict.IDENTICAL
    inputs: int = 0
    ticks: int = 0
    records: int = 0
    """Decision and tick records compared."""
    directives: int = 0
    """Keys of the compacted topic compared."""
    duplicates: int = 0
    """Records published more than once, which is harmless."""
    unpublished: int = 0
    """Records that came out here only, at the end of an owner: it ended between a tick and its answer."""
    fingerprints: list[str] = field(default_factory=list)
    """In what the fingerprints of claims differ from this process, one entry per such claim."""
    versions: set[str] = field(default_factory=set)
    """The other versions of Flyball that such claims name. What only one of two versions measures is not compared."""
    notes: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Made:
    topic: Topic
    key: bytes
    value: bytes | None
    revision: int
    """The input that had it published."""
    epoch: int
    """Of the owner that published it."""
    tick: bool = False
    """Whether it is a tick's own record: the one that vouches for every input before it."""


async def replay_log(log: Log, new_seams: Callable[[], Seams], own: Fingerprint) -> ReplayReport:
    """Replay every partition and compare. Raises `LogCorrupt` where the log itself is damaged."""
    report = ReplayReport()
    for partition in range(log.partitions):
        if (await log.bounds(Topic.INPUTS, partition)).end == 0:
            continue
        _, start = await _beginning(log, partition)
        made = [item async for item in _replayed(log, partition, new_seams(), own, report)]
        await _compare_audit(log, partition, start, [m for m in made if m.topic is Topic.DECISIONS], report)
        await _compare_directives(log, partition, [m for m in made if m.topic is Topic.DIRECTIVES], report)
    if report.differences:
        report.verdict = Verdict.DIFFERENT
    elif report.fingerprints:
        report.verdict = Verdict.WITHIN_TOLERANCE
    return report


async def stepped(
    log: Log, partition: int, seams: Seams, change: Callable[[Input], Input] | None = None
) -> AsyncIterator[tuple[Input, PartitionState, list[Output]]]:
    """Step through a partition's retained inputs: each input, the state after it, and its outputs."""
    state, start = await _beginning(log, partition)
    async for records in scan(log, Topic.INPUTS, partition, start=start):
        for record in records:
            item = decode_input(record.offset, record.value)
            if change is not None:
                item = change(item)
            yield item, state, step(state, item, seams)


async def _beginning(log: Log, partition: int) -> tuple[PartitionState, int]:
    """The state to begin with, and the first input to step through: all of them, or those after a checkpoint."""
    begin = (await log.bounds(Topic.INPUTS, partition)).begin
    if begin > 0:
        restored = await find_checkpoint(log, partition)
        if restored.revision + 1 >= begin:
            return restored.state, restored.revision + 1
    return PartitionState(log_id=log.log_id, partition=partition), begin


async def _replayed(
    log: Log, partition: int, seams: Seams, own: Fingerprint, report: ReplayReport
) -> AsyncIterator[_Made]:
    async for item, state, outputs in stepped(log, partition, seams):
        report.inputs += 1
        if isinstance(item.body, Claim) and (other := difference(item.body.fingerprint, own)):
            report.fingerprints.append(f"partition {partition}, claim {item.offset}: {other}")
            report.versions |= {item.body.fingerprint.flyball} - {own.flyball}
        report.ticks += bool(outputs)
        for output in outputs:
            found = publication(output)
            if found is not None:
                tick = isinstance(output, TickRecord)
                yield _Made(found[0], found[1].key, found[1].value, item.offset, state.epoch, tick)


async def _compare_audit(log: Log, partition: int, start: int, made: list[_Made], report: ReplayReport) -> None:
    recorded: list[Record] = []
    async for records in scan(log, Topic.DECISIONS, partition):
        recorded.extend(records)
    agreed = start - 1
    earlier = sum(_revision(record.value) < start for record in recorded) if start else 0
    if earlier:
        report.notes.append(f"partition {partition}: {earlier} records are older than the inputs to replay")
        recorded = [record for record in recorded if _revision(record.value) >= start]
    if recorded and made:
        # Not the first one's: what a frozen owner still had to say may stand behind its successor's.
        first = min((known for record in recorded if (known := _revision(record.value)) >= 0), default=-1)
        skipped = next((i for i, item in enumerate(made) if item.revision >= first), len(made))
        if skipped:
            report.notes.append(f"partition {partition}: {skipped} records are older than the decisions kept")
            agreed = made[skipped - 1].revision
            made = made[skipped:]
    places = {item.value: i for i, item in enumerate(made)}
    seen: set[bytes] = set()
    at = 0
    for record in recorded:
        value = record.value or b""
        place = places.get(value, at)
        if place > at and all(item.epoch < made[place].epoch for item in made[at:place]):
            report.unpublished += place - at  # a successor came before that owner's last answers were out
            at = place
        if at < len(made) and _agrees(value, made[at].value, report):
            seen.add(value)
            agreed = made[at].revision if made[at].tick else agreed
            at += 1
            report.records += 1
        elif value in seen:
            report.duplicates += 1
        elif place < at:
            seen.add(value)  # they came out after all, late
            report.unpublished -= 1
            report.records += 1
        else:
            report.differences.append(_difference(partition, value, made[at] if at < len(made) else None, agreed))
            return
    report.unpublished += len(made) - at
    if at < len(made) and made[at].revision <= _revision(recorded[-1].value if recorded else None):
        report.differences.append(_difference(partition, b"", made[at], agreed))


def _agrees(recorded: bytes, replayed: bytes | None, report: ReplayReport) -> bool:
    if recorded == replayed:
        return True
    if not report.fingerprints or replayed is None:
        return False
    try:
        theirs, ours = decode_audit(recorded), decode_audit(replayed)
    except Rejected:
        return False
    if report.versions:
        known = theirs.features.keys() & ours.features.keys()
        theirs, ours = _measured(theirs, known), _measured(ours, known)
    return _near(theirs, ours)


def _measured(record: DecisionRecord | TickRecord, known: AbstractSet[str]) -> DecisionRecord | TickRecord:
    """The record with these features only."""
    return replace(record, features={name: value for name, value in record.features.items() if name in known})


def _near(one: object, other: object) -> bool:
    """Whether two values are equal but for small differences of numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_near, one, other))
    if isinstance(one, (DecisionRecord, TickRecord)) or hasattr(one, "__dataclass_fields__"):
        return all(_near(getattr(one, name), getattr(other, name)) for name in getattr(one, "__dataclass_fields__", ()))
    return one == other


def _revision(value: bytes | None) -> int:
    if value is None:
        return -1
    try:
        return decode_audit(value).version.revision
    except Rejected:
        return -1


def _difference(partition: int, recorded: bytes, made: _Made | None, agreed: int) -> Difference:
    ours = decode_audit(made.value) if made is not None and made.value is not None else None
    theirs: DecisionRecord | TickRecord | None
    try:
        theirs = decode_audit(recorded) if recorded else None
    except Rejected as error:
        return Difference(
            partition=partition,
            where="an unreadable record",
            inputs=(agreed + 1, made.revision if made else agreed + 1),
            what=str(error),
            recorded=recorded[:64].hex(),
            replayed=_line(ours),
        )
    present = theirs if theirs is not None else ours
    revision = present.version.revision if present is not None else -1
    what, left, right = next(_fields(theirs, ours), ("a record", _line(theirs), _line(ours)))
    return Difference(
        partition=partition,
        where=_line(present),
        inputs=(agreed + 1, max(revision, made.revision if made is not None else -1)),
        what=what,
        recorded=left,
        replayed=right,
        pool="" if present is None else present.pool,
        time_s=None if present is None else present.time_s,
    )


def _fields(
    theirs: DecisionRecord | TickRecord | None, ours: DecisionRecord | TickRecord | None
) -> Iterator[tuple[str, str, str]]:
    """The fields in which two records differ, inside mappings by name."""
    if theirs is None or ours is None or type(theirs) is not type(ours):
        return
    for name in theirs.__dataclass_fields__:
        left, right = getattr(theirs, name), getattr(ours, name)
        if left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            for key in sorted(left.keys() | right.keys()):
                if left.get(key) != right.get(key):
                    yield f"{name}.{key}", str(left.get(key)), str(right.get(key))
        else:
            yield name, str(left), str(right)


def _line(record: DecisionRecord | TickRecord | None) -> str:
    if record is None:
        return "nothing"
    kind = "tick" if isinstance(record, TickRecord) else record.kind.value
    text = "" if isinstance(record, TickRecord) else f": {record.summary}"
    return f"{kind} of {record.pool} at input {record.version.revision} ({record.time_s:.0f} s){text}"


async def _kept_directives(log: Log, partition: int) -> dict[bytes, Record]:
    """The record of each key that a reader of directives holds: the one of the greatest revision.

    Not the last one: Kafka may write a batch twice, and the copy can lie behind newer records.
    """
    kept: dict[bytes, Record] = {}
    newest: dict[bytes, int] = {}
    async for records in scan(log, Topic.DIRECTIVES, partition):
        for record in records:
            revision = _directive_revision(record.value)
            if record.value is None:
                kept.pop(record.key, None)
            elif revision < 0 or revision > newest.get(record.key, -1):  # what cannot be read is shown, not skipped
                kept[record.key] = record
                newest[record.key] = max(revision, newest.get(record.key, -1))
    return kept


async def _compare_directives(log: Log, partition: int, made: list[_Made], report: ReplayReport) -> None:
    """The compacted topic keeps only the last of each key, so only the last are compared."""
    wanted: dict[bytes, _Made] = {}
    for item in made:
        if item.value is None:
            wanted.pop(item.key, None)
        else:
            wanted[item.key] = item
    recorded = await _kept_directives(log, partition)
    epoch = max((item.epoch for item in made), default=-1)
    superseded = {(item.key, item.value) for item in made if item.epoch < epoch}
    newest = max((_directive_revision(r.value) for r in recorded.values()), default=-1)
    last = max((item.revision for item in made), default=-1)
    if newest < last and recorded:
        report.notes.append(f"partition {partition}: the last directives recorded are of input {newest}")
    for key in islice(sorted(recorded.keys() | wanted.keys()), None):
        ours, theirs = wanted.get(key), recorded.get(key)
        if ours is not None and ours.revision > newest:
            continue  # decided after the last that was published
        if ours is not None and theirs is not None and ours.value == theirs.value:
            report.directives += 1
            continue
        if theirs is not None and ours is None and not _within(theirs.value, made):
            continue  # of before the inputs kept
        if theirs is not None and (key, theirs.value) in superseded:
            continue  # what an earlier owner still published after its successor had ended the key
        if len(report.differences) < MOST_DIFFERENCES and not report.fingerprints:
            report.differences.append(
                Difference(
                    partition=partition,
                    where=f"key {key.decode(errors='replace')}",
                    inputs=(0, ours.revision if ours else newest),
                    what="the last record of this key",
                    recorded=_directive_line(theirs.value if theirs else None),
                    replayed=_directive_line(ours.value if ours else None),
                )
            )


def _within(value: bytes | None, made: list[_Made]) -> bool:
    return bool(made) and _directive_revision(value) >= made[0].revision


def _directive_revision(value: bytes | None) -> int:
    try:
        return decode_directive(value).version.revision if value is not None else -1
    except Rejected:
        return -1


def _directive_line(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    try:
        return str(decode_directive(value))
    except Rejected as error:
        return f"unreadable: {error}"


def damage(error: LogCorrupt) -> str:
    """A damaged log in one line."""
    return f"the log is damaged at record {error.offset} of {error.where}"
