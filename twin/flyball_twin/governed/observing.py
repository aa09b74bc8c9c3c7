"""What an onlooker learns of a run from the log alone: regimes, changes, counts.

It reads the decisions topic like any tool would; it has no way into the machine. However long
the run, it remembers a bounded part of it word for word, and of the rest the sums.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from flyball_core.inputs import TargetKind
from flyball_core.knobs import WEIGHT, Value
from flyball_core.outputs import DecisionRecord, RecordKind, TickRecord, Verdict
from flyball_log.interface import Log, Topic
from flyball_proto.codec import decode_audit


@dataclass(frozen=True, slots=True, kw_only=True)
class RegimeShift:
    """A pool went from one regime into another."""

    pool: str
    at_s: float
    before: str
    after: str
    confidence: float


@dataclass(slots=True, kw_only=True)
class Change:
    """One decided change of one knob, and when its receiver held it (None: not seen to)."""

    pool: str
    target: str
    knob: str
    old: Value | None
    new: Value
    decided_at_s: float
    acked_at_s: float | None
    decision: str
    reason: str


@dataclass(slots=True)
class Observed:
    """What was learned so far. `ticks` holds the last tick record of each pool."""

    ticks: dict[str, TickRecord] = field(default_factory=dict)
    regime_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """By pool: how long each regime was named, in seconds."""
    shifts: list[RegimeShift] = field(default_factory=list)
    """The latest `REMEMBERED` of them."""
    changes: list[Change] = field(default_factory=list)
    """The latest `REMEMBERED` of them."""
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """All changes, by pool and knob."""
    records: int = 0
    stopped: int = 0
    """Proposals that the guard stopped and put on record."""


REMEMBERED = 20_000
"""Shifts and changes that are kept one by one: a week of a small fleet."""

T = TypeVar("T")


def _remember(into: list[T], item: T) -> None:
    """Append; of more than are kept the oldest half goes."""
    into.append(item)
    if len(into) > REMEMBERED:
        del into[: REMEMBERED // 2]


class Observer:
    """Follows the decisions of a log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = dict.fromkeys(range(log.partitions), 0)
        self._chronicle = Chronicle()

    @property
    def seen(self) -> Observed:
        """Everything learned so far."""
        return self._chronicle.seen

    async def poll(self) -> list[DecisionRecord]:
        """Read what is new; returns the new decision records."""
        new: list[DecisionRecord] = []
        for partition in self._next:
            while records := await self._log.read(Topic.DECISIONS, partition, self._next[partition]):
                self._next[partition] = records[-1].offset + 1
                for record in records:
                    found = decode_audit(record.value or b"")
                    self._chronicle.take(found)
                    if isinstance(found, DecisionRecord):
                        new.append(found)
        return new


class Chronicle:
    """Makes one story of audit records, taken in the order of their log, wherever they are read."""

    def __init__(self) -> None:
        self._waiting: list[Change] = []
        self.seen = Observed()

    def take(self, record: TickRecord | DecisionRecord) -> None:
        """Learn from the next record."""
        if isinstance(record, TickRecord):
            self._take_tick(record)
        else:
            self._take_decision(record)

    def _take_tick(self, tick: TickRecord) -> None:
        before = self.seen.ticks.get(tick.pool)
        self.seen.ticks[tick.pool] = tick
        if before is None:
            return
        spent = self.seen.regime_s.setdefault(tick.pool, {})
        spent[before.regime] = spent.get(before.regime, 0.0) + tick.time_s - before.time_s
        if before.regime != tick.regime:
            _remember(
                self.seen.shifts,
                RegimeShift(
                    pool=tick.pool,
                    at_s=tick.time_s,
                    before=before.regime,
                    after=tick.regime,
                    confidence=tick.confidence,
                ),
            )

    def _take_decision(self, record: DecisionRecord) -> None:
        self.seen.records += 1
        if record.kind is RecordKind.DECISION and record.mode == "control":
            for verdict in record.verdicts:
                self._take_verdict(record, verdict)
        elif record.kind is RecordKind.ACK:
            self._take_ack(record)

    def _take_verdict(self, record: DecisionRecord, verdict: Verdict) -> None:
        if verdict.allowed is None:
            self.seen.stopped += 1
            return
        wish = verdict.proposal
        change = Change(
            pool=record.pool,
            target=wish.target,
            knob=wish.knob,
            old=verdict.before,
            new=verdict.allowed,
            decided_at_s=record.time_s,
            acked_at_s=None,
            decision=record.decision,
            reason=wish.reason,
        )
        self.seen.changed[change.pool, change.knob] += 1
        _remember(self.seen.changes, change)
        # A later change of the same knob takes the place of one that still waits.
        self._waiting = [
            c for c in self._waiting if (c.pool, c.target, c.knob) != (change.pool, change.target, change.knob)
        ]
        self._waiting.append(change)

    def _take_ack(self, record: DecisionRecord) -> None:
        """A change counts as held when its receiver reads back the very value."""
        still: list[Change] = []
        for change in self._waiting:
            name = f"{WEIGHT}:{change.target}" if change.knob == WEIGHT else change.knob
            by_gateway = record.target_kind is TargetKind.GATEWAY
            from_its_receiver = by_gateway if change.knob == WEIGHT else record.target == change.target
            if record.pool == change.pool and from_its_receiver and record.effective.get(name) == change.new:
                change.acked_at_s = record.time_s
            else:
                still.append(change)
        self._waiting = still
