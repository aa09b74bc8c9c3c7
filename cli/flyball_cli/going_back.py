"""Reading an audit from its end towards its beginning, only as far as a question needs.

Most questions are about what happened last, and an audit is long: a record for every second of every pool. So it is
read in stretches, each longer than the one before, until the question is answered or nothing older is kept. Ticks'
records, which are most of an audit, are left out by whoever serves the stretch.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flyball_core.errors import Rejected
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_proto.codec import decode_audit

FIRST_STRETCH = 4_000
"""Offsets in the newest stretch: about an hour of one pool."""
GROWTH = 4
"""How much longer each older stretch is."""
_SURELY = 20
"""So many records in a row of before something: a few may be late, of an owner that was lost."""

Enough = Callable[[Sequence[DecisionRecord]], bool]
"""Whether these records, oldest first, up to the end of the audit, answer a question."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What stands in a part of an audit, without ticks."""

    begin: int
    """Offset at which the part begins; nothing older is kept if that is where it was to end."""
    values: Sequence[bytes]
    """Encoded records, oldest first."""
    unreadable: int = 0
    """Records that were left out because they are damaged."""


class Stretches(Protocol):
    """An audit, in a log or behind a controller's door."""

    async def before(self, offset: int | None, last: int) -> Stretch:
        """The `last` offsets before `offset`, or before the audit's end. Raises `FlyballError`."""
        ...


@dataclass(slots=True)
class ReadBack:
    """The end of an audit, as far back as it was read."""

    records: list[DecisionRecord] = field(default_factory=list)
    """Oldest first, each once."""
    whole: bool = False
    """Whether nothing older is kept."""
    unreadable: int = 0


async def go_back(audit: Stretches, enough: Enough) -> ReadBack:
    """Read until it is `enough`, or everything. Raises `FlyballError` as `audit` does."""
    back = ReadBack()
    seen: set[bytes] = set()
    offset, length = None, FIRST_STRETCH
    while not enough(back.records):
        stretch = await audit.before(offset, length)
        back.unreadable += stretch.unreadable
        older = []
        for value in stretch.values:
            if value in seen:  # published twice is published once
                continue
            seen.add(value)
            try:
                record = decode_audit(value)
            except Rejected:
                back.unreadable += 1
                continue
            if isinstance(record, DecisionRecord):
                older.append(record)
        back.records[:0] = older
        if stretch.begin in (0, offset):
            back.whole = True
            break
        offset, length = stretch.begin, length * GROWTH
    return back


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What `explain` is asked: `name` is a decision, a receiver or a pool, or nothing; `last` how many changes."""

    name: str | None
    pool: str | None = None
    last: int = 5

    def about_decision(self, receivers: Collection[str]) -> bool:
        """Whether the name is a decision's id."""
        return self.name is not None and is_decision(self.name) and self.name not in receivers

    def latest_of(self, pools: Collection[str], receivers: Collection[str]) -> bool:
        """Whether the latest decision is meant: of all pools, or of one."""
        return self.name is None or (self.name in pools and self.name not in receivers)

    def enough(self, pools: Collection[str], receivers: Collection[str]) -> Enough:
        """When it is answered, given the pools and receivers that are known."""
        if self.latest_of(pools, receivers):
            return latest_decision(self.name or self.pool)
        assert self.name is not None  # else the latest one is meant
        if self.about_decision(receivers):
            return whole_decision(self.name)
        return last_changes(self.name, self.pool, self.last)


def is_decision(name: str) -> bool:
    """Whether a name has the form of a decision's id, POOL@OFFSET."""
    return name.rpartition("@")[2].isdecimal()


def everything(_: Sequence[DecisionRecord]) -> bool:
    """Never enough."""
    return False


def whole_decision(decision: str) -> Enough:
    """All that is recorded of a decision, its id being POOL@OFFSET; or that there is no such decision."""
    revision = int(decision.rpartition("@")[2])

    def enough(records: Sequence[DecisionRecord]) -> bool:
        oldest = records[:_SURELY]
        return len(oldest) == _SURELY and all(record.version.revision < revision for record in oldest)

    return enough


def latest_decision(pool: str | None) -> Enough:
    """All that is recorded of the latest decision of a pool, or of all pools."""

    def enough(records: Sequence[DecisionRecord]) -> bool:
        decided = (r for r in records if r.kind is RecordKind.DECISION and pool in (None, r.pool))
        latest = max((record.version.revision for record in decided), default=None)
        # What does not fit one record is continued in the next, so the first that was read may be a second half.
        return latest is not None and records[0].version.revision < latest

    return enough


def last_changes(name: str, pool: str | None, last: int) -> Enough:
    """The `last` changes of an engine, or the `last` tables of a gateway."""

    def enough(records: Sequence[DecisionRecord]) -> bool:
        changes, tables = 0, 0
        for record in records:
            if record.kind is not RecordKind.DECISION or pool not in (None, record.pool):
                continue
            if record.version.revision <= records[0].version.revision:
                continue  # its first half may stand before it
            changes += sum(one.proposal.target == name and one.allowed is not None for one in record.verdicts)
            tables += any(key.startswith(f"table/{record.pool}/{name}/") for key in record.published)
        return bool(records) and (changes or tables) >= last

    return enough
