"""The audit of a log put together again: each decision with its answers and its outcome.

Reads decisions, as far back as a question needs, and directives; the inputs only when asked for what
attached. Judges nothing and words nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from flyball_cli.going_back import FIRST_STRETCH, GROWTH, Question, ReadBack, Stretch, everything, go_back
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
from flyball_proto.codec import decode_audit, decode_directive, decode_input, is_attach, is_tick

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
    pools: set[str] = field(default_factory=set)
    """Every pool that anything was read of."""
    read_from_s: dict[str, float] = field(default_factory=dict)
    """Of each pool whose audit was not read to its beginning, the machine's time from which on it was."""
    unreadable: int = 0

    def take_tick(self, tick: TickRecord) -> None:
        """Put a pool's last tick in its place; one that is there already is newer."""
        self.pools.add(str(tick.pool))
        self.ticks.setdefault(tick.pool, tick)

    def take_back(self, back: ReadBack, pools: Iterable[str]) -> None:
        """Put what was read of some pools in its place."""
        self.unreadable += back.unreadable
        for record in back.records:
            self.pools.add(str(record.pool))
            self.stories.setdefault(record.decision, Story(record.decision)).take(record)
        if back.whole:
            return
        for pool in pools:
            tick = self.ticks.get(pool)
            times_s = [record.time_s for record in back.records if record.pool == pool]
            self.read_from_s[pool] = min(times_s, default=0.0 if tick is None else tick.time_s)

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


async def read_audit(log: Log, asked: Question | None = None) -> Audit:
    """The audit of all partitions, or as much of it as answers what is `asked`. Raises as `Log.read`."""
    audit = Audit(where=log.where)
    for partition in range(log.partitions):
        for kept in (await fold(log, Topic.DIRECTIVES, partition)).values():
            _take_told(audit, kept.value or b"")
    known = {target[2] for target in audit.told}
    enough = everything if asked is None else asked.enough(audit.pools, known)
    for partition in _meant(log, audit, asked):
        back = await go_back(_Kept(log, partition, audit), enough)
        here = {pool for pool in audit.pools if log.partition_of(pool) == partition}
        audit.take_back(back, here | {str(record.pool) for record in back.records})
    return audit


def _meant(log: Log, audit: Audit, asked: Question | None) -> list[int]:
    """The partitions that can hold what is asked for."""
    if asked is None or (asked.name is None and asked.pool is None):
        return list(range(log.partitions))
    if asked.pool is not None:
        return [log.partition_of(asked.pool)]
    name = asked.name or ""
    pools = {target[1] for target in audit.told if target[2] == name}
    pools = pools or {name, name.rpartition("@")[0]} & audit.pools
    return sorted({log.partition_of(pool) for pool in pools}) or list(range(log.partitions))


class _Kept:
    """The audit of one partition of a log, as `Stretches`; puts the newest ticks into `audit` on the way."""

    def __init__(self, log: Log, partition: int, audit: Audit) -> None:
        self._log, self._partition, self._audit = log, partition, audit

    async def before(self, offset: int | None, last: int) -> Stretch:
        """The `last` offsets before `offset`, or before the end. Raises as `Log.read`."""
        bounds = await self._log.bounds(Topic.DECISIONS, self._partition)
        end = bounds.end if offset is None else offset
        begin = min(max(bounds.begin, end - last), end)
        values: list[bytes] = []
        ticks: dict[bytes, bytes] = {}
        async for records in scan(self._log, Topic.DECISIONS, self._partition, start=begin, end=end):
            for record in records:
                value = record.value or b""
                if is_tick(value):
                    ticks[record.key] = value
                else:
                    values.append(value)
        self._take_ticks(ticks.values())
        return Stretch(begin, values)

    def _take_ticks(self, ticks: Iterable[bytes]) -> None:
        """The last tick of each pool; older stretches come later and have none that is newer."""
        for value in ticks:
            try:
                tick = decode_audit(value)
            except Rejected:
                self._audit.unreadable += 1
                continue
            if isinstance(tick, TickRecord):
                self._audit.take_tick(tick)


def _take_told(audit: Audit, value: bytes) -> None:
    try:
        message = decode_directive(value)
    except Rejected:
        audit.unreadable += 1
        return
    audit.pools.add(str(message.pool))
    if isinstance(message, (Heartbeat, RebaseNotice)):
        return
    engine = isinstance(message, Directive)
    name = message.engine if isinstance(message, Directive) else message.gateway
    target = (TargetKind.ENGINE if engine else TargetKind.GATEWAY, str(message.pool), str(name))
    held = audit.told.get(target)
    if message.version.against(None if held is None else held.version) is Fence.NEWER:
        audit.told[target] = message


async def read_attaches(log: Log, audit: Audit, name: str) -> None:
    """Add what attached, from the inputs that are kept: back to the last attach of `name`. Raises as `Log.read`."""
    pools = {target[1] for target in audit.targets() if target[2] == name}
    for partition in sorted({log.partition_of(pool) for pool in pools}) or range(log.partitions):
        bounds = await log.bounds(Topic.INPUTS, partition)
        end, length = bounds.end, FIRST_STRETCH
        while end > bounds.begin and name not in {target[2] for target in audit.attached}:
            begin = max(bounds.begin, end - length)
            older: dict[Target, Attach] = {}
            async for records in scan(log, Topic.INPUTS, partition, start=begin, end=end):
                for record in records:
                    body = decode_input(record.offset, record.value).body if is_attach(record.value) else None
                    if isinstance(body, Attach) and body.attached:
                        older[body.kind, str(body.pool), body.target] = body
            audit.attached = older | audit.attached
            end, length = begin, length * GROWTH
