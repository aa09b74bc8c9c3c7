"""How long it took from ticks to the acks that they caused: read off a log, after it was written.

Pure but for reading the log. A directive counts if its tick was struck within the time measured, whenever its
ack came; one without an ack is counted too, so that what was slow beyond measure cannot hide.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flyball_core.errors import Rejected
from flyball_core.inputs import Ack, AckStatus, TargetKind, Tick
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_log.interface import Log, Topic
from flyball_proto.codec import decode_audit, decode_input

Place = tuple[int, str]
"""A directive: the offset of the tick that caused it, and its engine."""


@dataclass(slots=True)
class Recorded:
    """What a log holds of one pool's ticks, directives and acks."""

    ticks: dict[int, float] = field(default_factory=dict)
    """Wall time, by offset."""
    directives: set[Place] = field(default_factory=set)
    acks: dict[Place, tuple[int, AckStatus]] = field(default_factory=dict)
    """The first ack of each: its offset, and what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The directives of the ticks within the time measured, and what became of them."""

    ticks: Mapping[int, float]
    """Wall time, by offset."""
    directives: int
    nacks: int
    tick_to_ack_s: Mapping[Place, float]
    """Seconds from the tick's wall time to the ack being durable; without an entry there was no ack."""


async def read_recorded(log: Log, partition: int) -> Recorded:
    """Everything in the partition so far."""
    found = Recorded()
    at = (await log.bounds(Topic.INPUTS, partition)).begin
    while records := await log.read(Topic.INPUTS, partition, at):
        at = records[-1].offset + 1
        for record in records:
            body = decode_input(record.offset, record.value).body
            if isinstance(body, Tick):
                found.ticks[record.offset] = body.wall_s
            elif isinstance(body, Ack) and body.kind is TargetKind.ENGINE:
                found.acks.setdefault((body.version.revision, body.target), (record.offset, body.status))
    at = (await log.bounds(Topic.DECISIONS, partition)).begin
    while records := await log.read(Topic.DECISIONS, partition, at):
        at = records[-1].offset + 1
        for record in records:
            found.directives.update(_directives(record.value or b""))
    return found


def _directives(value: bytes) -> list[Place]:
    """Those that a record of the audit tells of."""
    try:
        record = decode_audit(value)
    except Rejected:
        return []
    if not isinstance(record, DecisionRecord) or record.kind is not RecordKind.DECISION:
        return []
    prefix, suffix = f"directive/{record.pool}/", f"/{record.version.epoch}"
    return [
        (record.version.revision, key.removeprefix(prefix).removesuffix(suffix))
        for key in record.published
        if key.startswith(prefix)
    ]


def answers_within(recorded: Recorded, durable: Sequence[tuple[int, float]], began_s: float, ended_s: float) -> Answers:
    """What became of the directives of the ticks between two wall times.

    `durable` is what `bench_watching` saw: (offset before which all was durable, wall time), in order.
    """
    ticks = {offset: wall_s for offset, wall_s in recorded.ticks.items() if began_s <= wall_s < ended_s}
    directives = {place for place in recorded.directives if place[0] in ticks}
    ends = [end for end, _ in durable]
    took_s = {}
    nacks = 0
    for place in directives & recorded.acks.keys():
        offset, status = recorded.acks[place]
        at = bisect_right(ends, offset)
        if at < len(durable):
            took_s[place] = durable[at][1] - ticks[place[0]]
            nacks += status is AckStatus.NACK
    return Answers(ticks=ticks, directives=len(directives), nacks=nacks, tick_to_ack_s=took_s)
