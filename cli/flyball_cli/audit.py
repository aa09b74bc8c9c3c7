"""The audit of a log put together again: each decision with its answers and its outcome.

Reads decisions and directives; the inputs only when asked for what attached. Judges
nothing and words nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from flyball_core.errors import Rejected
from flyball_core.fencing import Fence
from flyball_core.inputs import Attach, TargetKind
from flyball_core.outputs import (
    DecisionRecord,
    Directive,
    Heartbeat,
    RebaseNotice,
    RecordKind,
    RoutingTable,
    TickRecord,
    Verdict,
)
from flyball_log import Log, fold, scan
from flyball_log.interface import Topic
from flyball_proto.codec import decode_audit, decode_directive, decode_input

Told = Directive | RoutingTable
Target = tuple[TargetKind, str, str]
"""Kind, pool and name of a receiver."""


@dataclass(slots=True)
class Story:
    """Everything recorded under one decision's id."""

    decision: str
    record: DecisionRecord | None = None
    """The decision itself; None where only later records of it are kept."""
    acks: list[DecisionRecord] = field(default_factory=list)
    outcome: DecisionRecord | None = None
    others: list[DecisionRecord] = field(default_factory=list)
    """Orders and alarms of the same input, or alarms that follow from it."""

    def take(self, record: DecisionRecord) -> None:
        """Put a record in its place."""
        if record.kind is RecordKind.DECISION:
            self.record = record if self.record is None else _joined(self.record, record)
        elif record.kind is RecordKind.OUTCOME:
            self.outcome = record
        elif record.kind is RecordKind.ACK:
            self.acks.append(record)
        else:
            self.others.append(record)


def _joined(first: DecisionRecord, more: DecisionRecord) -> DecisionRecord:
    """One decision of two records: what does not fit one is continued in the next."""
    return replace(
        first,
        summary=f"{first.summary}; {more.summary}",
        verdicts=first.verdicts + more.verdicts,
        published=first.published + more.published,
    )


@dataclass(slots=True)
class Audit:
    """What a log's decisions and directives tell."""

    where: str
    stories: dict[str, Story] = field(default_factory=dict)
    told: dict[Target, Told] = field(default_factory=dict)
    """The greatest version published for each receiver."""
    ticks: dict[str, TickRecord] = field(default_factory=dict)
    """The last tick of each pool."""
    attached: dict[Target, Attach] = field(default_factory=dict)
    """The last attach of each receiver; empty until `read_attaches`."""
    unreadable: int = 0

    def decisions(self, pool: str) -> Iterator[Story]:
        """The decisions of a pool, oldest first."""
        for story in self.stories.values():
            if story.record is not None and story.record.pool == pool:
                yield story

    def latest(self, pool: str | None) -> Story | None:
        """The newest decision of a pool, or of all; None if there is none."""
        decided = [story for story in self.stories.values() if story.record is not None]
        of_pool = [story for story in decided if pool in (None, str(story.record and story.record.pool))]
        return max(of_pool, key=_when, default=None)

    def targets(self) -> set[Target]:
        """Every receiver that anything was told to, decided about or heard from."""
        found = set(self.told) | set(self.attached)
        for story in self.stories.values():
            for record in (story.record, *story.acks, *story.others):
                if record is not None:
                    found |= _targets(record)
        return found


def _when(story: Story) -> tuple[float, int]:
    record = story.record
    return (0.0, 0) if record is None else (record.wall_s, record.version.revision)


def _targets(record: DecisionRecord) -> set[Target]:
    found = {(verdict.proposal.kind, str(record.pool), verdict.proposal.target) for verdict in record.verdicts}
    if record.target and record.target_kind is not None:
        found.add((record.target_kind, str(record.pool), record.target))
    return found


def about(record: DecisionRecord, target: str) -> list[Verdict]:
    """The verdicts of a decision on one engine."""
    return [verdict for verdict in record.verdicts if verdict.proposal.target == target]


async def read_audit(log: Log) -> Audit:
    """The audit of all partitions. Raises as `Log.read`."""
    audit = Audit(where=log.where)
    seen: set[bytes] = set()
    for partition in range(log.partitions):
        async for records in scan(log, Topic.DECISIONS, partition):
            for record in records:
                value = record.value or b""
                if value not in seen:  # published twice is published once
                    seen.add(value)
                    take_record(audit, value)
        for kept in (await fold(log, Topic.DIRECTIVES, partition)).values():
            _take_told(audit, kept.value or b"")
    return audit


def take_record(audit: Audit, value: bytes) -> None:
    """Put a record of the decisions in its place; one that cannot be read is counted."""
    try:
        record = decode_audit(value)
    except Rejected:
        audit.unreadable += 1
        return
    if isinstance(record, TickRecord):
        audit.ticks[record.pool] = record
        return
    audit.stories.setdefault(record.decision, Story(record.decision)).take(record)


def _take_told(audit: Audit, value: bytes) -> None:
    try:
        message = decode_directive(value)
    except Rejected:
        audit.unreadable += 1
        return
    if isinstance(message, (Heartbeat, RebaseNotice)):
        return
    engine = isinstance(message, Directive)
    name = message.engine if isinstance(message, Directive) else message.gateway
    target = (TargetKind.ENGINE if engine else TargetKind.GATEWAY, str(message.pool), str(name))
    held = audit.told.get(target)
    if message.version.against(None if held is None else held.version) is Fence.NEWER:
        audit.told[target] = message


async def read_attaches(log: Log, audit: Audit) -> None:
    """Add what attached, from the inputs that are kept. Raises as `Log.read`."""
    for partition in range(log.partitions):
        async for records in scan(log, Topic.INPUTS, partition):
            for record in records:
                body = decode_input(record.offset, record.value).body
                if isinstance(body, Attach) and body.attached:
                    audit.attached[body.kind, str(body.pool), body.target] = body
