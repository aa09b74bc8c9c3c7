"""An audit read from its end: only as far as a question needs, and never less than that."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from flyball_cli.going_back import (
    FIRST_STRETCH,
    GROWTH,
    Enough,
    Question,
    Stretch,
    everything,
    go_back,
    last_changes,
    latest_decision,
    whole_decision,
)
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.inputs import Proposal, TargetKind
from flyball_core.outputs import DecisionRecord, RecordKind, Verdict
from flyball_proto.codec import encode_audit

ENGINE = "engine-1"


def change(revision: int, *, target: str = ENGINE, allowed: int | None = 100) -> Verdict:
    """What the guard made of a wish for a weight."""
    wish = Proposal(policy="p", kind=TargetKind.ENGINE, target=target, knob="weight", value=100, reason="so")
    return Verdict(proposal=wish, before=revision, allowed=allowed, rule="accepted", reason="within bounds")


def record(
    revision: int,
    kind: RecordKind = RecordKind.DECISION,
    *,
    verdicts: Sequence[Verdict] = (),
    published: tuple[str, ...] = (),
    pool: str = "chat",
    summary: str = "",
) -> DecisionRecord:
    """A record of the decision at that revision."""
    return DecisionRecord(
        pool=PoolId(pool),
        kind=kind,
        version=Version(log_id=LogId("l"), partition=0, epoch=0, revision=revision),
        decision=f"{pool}@{revision}",
        time_s=float(revision),
        wall_s=float(revision),
        mode="control",
        regime="interactive",
        confidence=1.0,
        summary=summary,
        verdicts=tuple(verdicts),
        published=published,
    )


@dataclass(slots=True)
class Scripted:
    """An audit in which the record at each offset is known; None is a tick's place."""

    records: Sequence[DecisionRecord | bytes | None]
    begin: int = 0
    """The first offset that is kept."""
    asked: list[tuple[int | None, int]] = field(default_factory=list)

    async def before(self, offset: int | None, last: int) -> Stretch:
        """As a log's end does."""
        self.asked.append((offset, last))
        end = self.begin + len(self.records) if offset is None else offset
        begin = min(max(self.begin, end - last), end)
        told = self.records[begin - self.begin : end - self.begin]
        encoded = [one if isinstance(one, bytes) else encode_audit(one) for one in told if one is not None]
        return Stretch(begin, encoded)


def sparse(revisions: Sequence[int], length: int) -> list[DecisionRecord | bytes | None]:
    """An audit of so many offsets that are ticks' but for changes of the engine at those."""
    found: list[DecisionRecord | bytes | None] = [None] * length
    for revision in revisions:
        found[revision] = record(revision, verdicts=[change(revision)])
    return found


async def test_one_stretch_is_enough_for_what_happened_last() -> None:
    """Changes in the newest stretch are found by reading that one alone, however long the audit is."""
    length = 100 * FIRST_STRETCH
    audit = Scripted(sparse(range(0, length, 100), length))

    back = await go_back(audit, last_changes(ENGINE, None, 5))

    assert [(None, FIRST_STRETCH)] == audit.asked
    assert not back.whole
    assert list(range(length - FIRST_STRETCH, length, 100)) == [one.version.revision for one in back.records]


async def test_older_stretches_grow_and_join() -> None:
    """What is rare is found further back: each stretch begins where the last one ended, and is longer."""
    length = 20 * FIRST_STRETCH
    revisions = [length - 15 * FIRST_STRETCH, length - 14 * FIRST_STRETCH, length - 2]
    audit = Scripted(sparse([7, *revisions], length))

    back = await go_back(audit, last_changes(ENGINE, None, 2))

    second = length - FIRST_STRETCH
    third = second - GROWTH * FIRST_STRETCH
    assert [
        (None, FIRST_STRETCH),
        (second, GROWTH * FIRST_STRETCH),
        (third, GROWTH**2 * FIRST_STRETCH),
    ] == audit.asked
    assert [7, *revisions] == [one.version.revision for one in back.records]
    assert back.whole


@pytest.mark.parametrize("begin", [0, 5000])
async def test_reading_ends_at_the_oldest_that_is_kept(begin: int) -> None:
    """Where the answer is nowhere, everything that is kept is read once, and that is said."""
    audit = Scripted(sparse([1, 2, 3], 3 * FIRST_STRETCH), begin=begin)

    back = await go_back(audit, everything)

    assert back.whole
    assert [1, 2, 3] == [one.version.revision for one in back.records]
    assert len(audit.asked) <= 3


async def test_published_twice_is_read_once_and_damage_is_counted() -> None:
    """A record that stands twice counts once; bytes that are none are counted, and the others are read."""
    one = record(5)
    back = await go_back(Scripted([one, b"\xff\xff", record(6), one]), everything)

    assert (1, 2) == (back.unreadable, len(back.records))


def older(count: int) -> list[DecisionRecord]:
    """Records from before everything that a test asks for."""
    return [record(revision, RecordKind.ACK) for revision in range(count)]


@pytest.mark.parametrize(
    ("records", "answered"),
    [
        ([], False),
        ([record(50), record(60)], False),
        ([*older(19), record(50)], False),
        ([*older(20), record(50)], True),
        ([*older(20), record(60)], True),
        ([record(50), *older(20)], False),
    ],
)
def test_a_decision_is_whole_once_a_row_of_older_records_stands_before_it(
    records: Sequence[DecisionRecord], *, answered: bool
) -> None:
    """Also if it is not there; a few late records of an owner that was lost are not taken for older ones."""
    assert answered is whole_decision("chat@50")(records)


def test_the_latest_decision_is_whole_once_something_older_stands_before_it() -> None:
    """Its first half may stand before the first record that was read; other pools' decisions do not count."""
    half = [record(50, summary="second half")]

    assert not latest_decision("chat")(half)
    assert latest_decision("chat")([record(49, RecordKind.ALARM), *half])
    assert not latest_decision("bulk")([record(49, RecordKind.ALARM), *half])
    assert latest_decision(None)([record(49, pool="bulk"), *half])


def test_only_changes_of_the_receiver_count() -> None:
    """Not what the guard stopped, not other engines', not another pool's; for a gateway its tables do."""
    first = record(1, RecordKind.ACK)
    stopped = record(2, verdicts=[change(2, allowed=None), change(2, target="engine-2")])
    moved = record(3, verdicts=[change(3)])
    table = record(4, published=("table/chat/gateway-0/5", "directive/chat/engine-1/5"))

    assert not last_changes(ENGINE, None, 1)([first, stopped])
    assert last_changes(ENGINE, None, 1)([first, stopped, moved])
    assert not last_changes(ENGINE, "bulk", 1)([first, stopped, moved])
    assert not last_changes("gateway-0", None, 1)([first, moved])
    assert last_changes("gateway-0", None, 1)([first, table])
    assert last_changes(ENGINE, None, 0)([first])


@pytest.mark.parametrize(
    ("name", "like"),
    [(None, latest_decision("chat")), ("chat", latest_decision("chat")), ("chat@7", whole_decision("chat@7"))],
)
def test_a_question_is_told_by_its_name(name: str | None, like: Enough) -> None:
    """A pool's name asks for its latest decision, as no name does; an id for that decision."""
    asked = Question(name=name, pool="chat" if name is None else None, last=1)
    records = [*older(20), record(30)]

    for count in range(len(records) + 1):
        assert like(records[-count:]) is asked.enough({"chat"}, {ENGINE})(records[-count:])


def test_a_receiver_s_name_goes_before_a_pool_s() -> None:
    """An engine that is named like its pool is explained as an engine."""
    asked = Question(name="chat", last=1)

    assert not asked.enough({"chat"}, {"chat"})([record(1), record(2)])
    assert asked.enough({"chat"}, {ENGINE})([record(1), record(2)])
