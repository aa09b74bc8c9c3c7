"""The checker can fail: each promise is broken here on purpose, and it says so; a run that keeps them is clean."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flyball_core.fencing import Version
from flyball_core.frames import Frame
from flyball_core.inputs import Ack, Attach
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import DecisionRecord, Directive, RecordKind, TickRecord
from flyball_log.interface import Entry, Record as LogRecord, Topic
from flyball_proto.codec import decode_audit, decode_directive, decode_input, encode_audit, encode_directive
from harness.memory_log import MemoryLog, MemoryShelf
from harness.scripted_pool import PRINT
from laboratory.checker import judge
from laboratory.record import Applied, Eased, Line, Record, Recorder, Renewed, Sampled, read_record
from laboratory.schedule import Fault, FaultKind, Schedule
from laboratory.simulation.kernel import run_now
from laboratory.simulation.world import built
from laboratory.verdict import Answer, Promise, Verdict

SEED = 6
GRACE_S = 2.0
FAULTS = (
    Fault(at_s=6.0, kind=FaultKind.CUT, target="engine-2", for_s=14.0),
    Fault(at_s=9.0, kind=FaultKind.FREEZE, target="controller-0", for_s=8.0),
    Fault(at_s=12.0, kind=FaultKind.KILL, target="engine-0", for_s=3.0),
    Fault(at_s=18.0, kind=FaultKind.KILL, target="agent-0", for_s=3.0),
)
"""A takeover from a controller that wakes up again, an engine that eases, one that restarts, an agent that does."""


@dataclass(slots=True)
class Played:
    """What is judged."""

    record: Record
    shelf: MemoryShelf

    def verdict(self, *, replays: bool = False) -> Verdict:
        """What the checker says."""
        return run_now(judge(self.record, MemoryLog(self.shelf), grace_s=GRACE_S, replays=replays, fingerprint=PRINT))


@pytest.fixture(scope="module")
def kept() -> Played:
    """A run with faults in which every promise is kept."""
    with built(SEED, Schedule(seed=SEED, length_s=36.0, faults=FAULTS), hold_s=4.0) as world:
        world.rivalry = 0.0
        world.play()
        return Played(world.record, world.shelf)


@pytest.fixture
def run(kept: Played) -> Played:
    """A copy of it, to be damaged."""
    return deepcopy(kept)


def test_a_run_that_keeps_its_promises_is_kept(kept: Played) -> None:
    """Two epochs, a zombie, easing, restarts, lost answers: nothing is broken, and there was much to look at."""
    verdict = kept.verdict(replays=True)

    assert [] == verdict.broken
    assert verdict.looked_at["applied"] > 10
    assert verdict.looked_at["frames made"] > 60
    assert verdict.looked_at["records replayed"] > 60
    assert verdict[Promise.EASING].recovered
    assert 2 == len({line.version.epoch for line in kept.record.applied})
    assert 4 <= len({(line.target, line.incarnation) for line in kept.record.applied})


def test_what_compaction_took_is_not_missed(run: Played) -> None:
    """With only the last record of each key left the verdict is the same."""
    assert run.shelf.compact(Topic.DIRECTIVES, 0) > 0
    assert [] == run.verdict(replays=True).broken


def test_what_retention_took_is_not_missed(run: Played) -> None:
    """With the first inputs gone nothing that began in them is found fault with."""
    run.shelf.retire(Topic.INPUTS, 0, 60)

    assert [] == run.verdict().broken


def test_records_written_twice_are_harmless(run: Played) -> None:
    """Every record of the audit and of the directives again at the end: the verdict is the same."""
    for topic in (Topic.DECISIONS, Topic.DIRECTIVES):
        entries = [Entry(record.key, record.value) for at, _, record in run.shelf if at is topic and record.value]
        run.shelf.add(topic, 0, entries)

    assert [] == run.verdict().broken


def test_what_a_zombie_decided_after_a_later_claim_is_ignored(run: Played) -> None:
    """A directive of the older epoch, however new its revision, is what readers ignore; it is counted."""
    older = min(line.version.epoch for line in run.record.applied)
    newest = max(line.version.revision for line in run.record.applied)
    directive = first_directive(run)
    version = replace(directive.version, epoch=older, revision=newest)
    entry = Entry(b"zombie", encode_directive(replace(directive, version=version, values={BATCH_CAP: 10**9})))
    run.shelf.add(Topic.DIRECTIVES, 0, [entry])
    verdict = run.verdict()

    assert [] == verdict.broken
    assert 1 == verdict.looked_at["ignored of zombies"]


def first_directive(run: Played) -> Directive:
    """The first directive in the log."""
    messages = [decode_directive(r.value) for topic, _, r in run.shelf if topic is Topic.DIRECTIVES and r.value]
    return next(message for message in messages if isinstance(message, Directive))


def place_of(run: Played, target: str, number: int = 0) -> int:
    """Where the record has an application of this target."""
    return [at for at, line in enumerate(run.record.applied) if line.target == target][number]


def frame_of(record: LogRecord) -> Frame | None:
    """The frame in an input, if it is one."""
    body = decode_input(record.offset, record.value).body
    return body if isinstance(body, Frame) else None


def frame_lost(run: Played) -> None:
    """A frame that was synced is not in the log, and nobody dropped it."""
    synced = [line.identity for line in run.record.sampled if line.what == "synced"][20]

    def lose(record: LogRecord) -> LogRecord | None:
        frame = frame_of(record)
        return None if frame is not None and (frame.agent, frame.boot, frame.pool, frame.seq) == synced else record

    run.shelf.rewrite(Topic.INPUTS, 0, lose)


def frame_of_nobody(run: Played) -> None:
    """A frame is in the log that its agent never made."""
    gone = next(line.identity for line in run.record.sampled if line.what == "made" and line.seq == 9)
    run.record.sampled = [line for line in run.record.sampled if line.identity != gone or line.what != "made"]


def dropped_for_nothing(run: Played) -> None:
    """A frame is dropped and no reason given."""
    made = run.record.sampled[0]
    run.record.add(replace(made, what="dropped", reason=""))


def miscounted(run: Played) -> None:
    """The machine counts one frame more than came."""

    def more(line: Any) -> Any:
        return replace(line, counts={**line.counts, "delivered": line.counts.get("delivered", 0) + 1})

    change_audit(run, lambda line: more(line) if isinstance(line, TickRecord) else line)


def applied_out_of_order(run: Played) -> None:
    """An engine applies two versions the wrong way round."""
    first, second = place_of(run, "engine-1"), place_of(run, "engine-1", 1)
    lines = run.record.applied
    one, other = lines[first], lines[second]
    lines[first], lines[second] = replace(one, version=other.version), replace(other, version=one.version)


def applied_twice(run: Played) -> None:
    """An engine applies one version again."""
    line = run.record.applied[place_of(run, "engine-1")]
    run.record.add(replace(line, at_s=line.at_s + 0.001))


def applied_of_nobody(run: Played) -> None:
    """An engine applies a version that nobody told it."""
    at = place_of(run, "engine-1")
    line = run.record.applied[at]
    run.record.applied[at] = replace(line, version=replace(line.version, revision=line.version.revision + 1))


def applied_of_another(run: Played) -> None:
    """An engine applies a version that was told to the gateway alone."""
    mine = {line.version for line in run.record.applied if line.target.startswith("engine")}
    alone = next(line.version for line in run.record.applied if line.target == "gateway-0" and line.version not in mine)
    line = run.record.applied[place_of(run, "engine-1")]
    run.record.add(replace(line, version=alone, at_s=0.0))


def answered_and_not_applied(run: Played) -> None:
    """An engine said that it took what it never applied."""
    del run.record.applied[place_of(run, "engine-1", 1)]


def two_under_one_version(run: Played) -> None:
    """An engine is told two different settings under one version."""
    directive = first_directive(run)
    run.shelf.add(Topic.DIRECTIVES, 0, [Entry(b"other", encode_directive(replace(directive, values={BATCH_CAP: 17})))])


def never_answered(run: Played) -> None:
    """Nothing that was told after the first seconds is ever answered."""

    def unanswered(record: LogRecord) -> LogRecord | None:
        body = decode_input(record.offset, record.value).body
        return None if isinstance(body, (Ack, Attach)) and record.offset > 20 else record

    run.shelf.rewrite(Topic.INPUTS, 0, unanswered)


def older_in_another_life(run: Played) -> None:
    """After a restart an engine applies what its life before had left behind."""
    line = run.record.applied[place_of(run, "engine-0")]
    run.record.add(replace(line, at_s=1e6, incarnation="engine-0-later"))


def same_in_another_life(run: Played) -> None:
    """After a restart an engine applies what its life before had taken last: it had forgotten it."""
    line = run.record.applied[place_of(run, "engine-1", -1)]
    run.record.add(replace(line, at_s=1e6, incarnation="engine-1-later"))


def beyond_its_bounds(run: Played) -> None:
    """An engine sets a knob to what it cannot hold."""
    at = place_of(run, "engine-1")
    run.record.applied[at] = replace(run.record.applied[at], values={BATCH_CAP: 100_000})


def no_such_knob(run: Played) -> None:
    """An engine sets a knob that it has not."""
    at = place_of(run, "engine-1")
    run.record.applied[at] = replace(run.record.applied[at], values={"warp": 9})


def heavy_route(run: Played) -> None:
    """A gateway sets a weight that there is not."""
    at = place_of(run, "gateway-0")
    run.record.applied[at] = replace(run.record.applied[at], values={"weight:engine-1": 999})


def told_beyond_bounds(run: Played) -> None:
    """An engine is told what the operator's document forbids."""

    def forbidden(record: LogRecord) -> LogRecord:
        message = decode_directive(record.value) if record.value else None
        if not isinstance(message, Directive):
            return record
        return record._replace(value=encode_directive(replace(message, values={BATCH_CAP: 200})))

    run.shelf.rewrite(Topic.DIRECTIVES, 0, forbidden)


def moved_too_fast(run: Played) -> None:
    """The guard lets a number be cut to a third at once."""

    def faster(line: Any) -> Any:
        decides = isinstance(line, DecisionRecord) and line.kind is RecordKind.DECISION
        return replace(line, verdicts=tuple(map(_thirded, line.verdicts))) if decides else line

    change_audit(run, faster)


def _thirded(verdict: Any) -> Any:
    if not isinstance(verdict.before, int) or verdict.allowed is None:
        return verdict
    return replace(verdict, allowed=verdict.before // 3)


def change_audit(run: Played, change: Callable[[Any], Any]) -> None:
    """Have every record of the audit be another."""

    def changed(record: LogRecord) -> LogRecord:
        return record._replace(value=encode_audit(change(decode_audit(record.value or b""))))

    run.shelf.rewrite(Topic.DECISIONS, 0, changed)


def eased_early(run: Played) -> None:
    """A receiver eases while its lease stands."""
    at = next(at for at, line in enumerate(run.record.leases) if isinstance(line, Eased))
    eased = run.record.leases[at]
    at_s = eased.at_s
    renewed = Renewed(at_s=at_s - 0.5, target=eased.target, incarnation=eased.incarnation, until_s=at_s + 2.0)
    run.record.leases.insert(at, renewed)


def eased_at_a_bound(run: Played) -> None:
    """A receiver jumps to its safe value."""
    _ease(run, before=4, after=64)


def eased_away(run: Played) -> None:
    """A receiver moves away from its safe value."""
    _ease(run, before=64, after=60)


def _ease(run: Played, *, before: int, after: int) -> None:
    at = next(at for at, line in enumerate(run.record.leases) if isinstance(line, Eased) and BATCH_CAP in line.values)
    line = run.record.leases[at]
    assert isinstance(line, Eased)
    run.record.leases[at] = replace(line, before={BATCH_CAP: before}, values={BATCH_CAP: after})


def never_eased(run: Played) -> None:
    """A receiver that is left alone holds for ever."""
    run.record.leases = [line for line in run.record.leases if isinstance(line, Renewed)]


def decided_otherwise(run: Played) -> None:
    """One record of the audit says something else than was decided."""
    seen: list[int] = []

    def other(line: Any) -> Any:
        if isinstance(line, TickRecord):
            seen.append(line.version.revision)
        return replace(line, regime="bulk") if isinstance(line, TickRecord) and len(seen) == 20 else line

    change_audit(run, other)


BROKEN = [
    (frame_lost, Promise.ACCOUNTS, "lost", "synced, and neither came nor was dropped"),
    (frame_of_nobody, Promise.ACCOUNTS, "unexpected", "nobody made them"),
    (dropped_for_nothing, Promise.ACCOUNTS, "lost", "dropped for no reason"),
    (miscounted, Promise.ACCOUNTS, "lost", "frames came, but"),
    (applied_out_of_order, Promise.ORDER, "unexpected", "engine engine-1 applied 0:"),
    (applied_twice, Promise.ORDER, "unexpected", " after 0:"),
    (applied_of_nobody, Promise.ORDER, "unexpected", "which nobody told it"),
    (applied_of_another, Promise.ORDER, "unexpected", "which nobody told it"),
    (answered_and_not_applied, Promise.ORDER, "unexpected", "said that it took"),
    (two_under_one_version, Promise.ORDER, "unexpected", "told two different things"),
    (never_answered, Promise.ORDER, "lost", "never answered"),
    (older_in_another_life, Promise.LIVES, "unexpected", "engine-0-later after"),
    (same_in_another_life, Promise.LIVES, "unexpected", "engine-1-later after"),
    (beyond_its_bounds, Promise.MOTION, "unexpected", "100000"),
    (no_such_knob, Promise.MOTION, "unexpected", "no knob warp"),
    (heavy_route, Promise.MOTION, "unexpected", "weight:engine-1=999"),
    (told_beyond_bounds, Promise.MOTION, "unexpected", "outside 4 to 128"),
    (moved_too_fast, Promise.MOTION, "unexpected", "moved"),
    (eased_early, Promise.EASING, "unexpected", "before its lease was out"),
    (eased_at_a_bound, Promise.EASING, "unexpected", "faster than its slew"),
    (eased_away, Promise.EASING, "unexpected", "away from its safe value"),
    (never_eased, Promise.EASING, "lost", "still held"),
    (decided_otherwise, Promise.REPLAY, "unexpected", "bulk"),
]


@pytest.mark.parametrize(("breaks", "promise", "how", "says"), BROKEN, ids=[breaks.__name__ for breaks, *_ in BROKEN])
def test_a_broken_promise_is_found_and_said(
    run: Played, breaks: Callable[[Played], None], promise: Promise, how: str, says: str
) -> None:
    """Each way to break a promise is a finding under that promise, in words that hold the evidence."""
    breaks(run)
    verdict = run.verdict(replays=promise is Promise.REPLAY)
    found: list[str] = getattr(verdict[promise], how)

    assert [one for one in found if says in one], str(verdict)
    assert [one for one in verdict.broken if promise.value in one]


def test_what_was_made_and_came_without_being_known_synced_is_recovered(run: Played) -> None:
    """An agent that died before it could note down its sync: no fault, and said."""
    run.record.sampled = [line for line in run.record.sampled if line.what != "synced" or line.seq != 9]
    verdict = run.verdict()

    assert [] == verdict.broken
    assert any("frame 9" in one or "to 9 " in one for one in verdict[Promise.ACCOUNTS].recovered)


def test_a_target_that_is_gone_owes_nothing(run: Played) -> None:
    """Who is still struck at the end need not have answered, nor eased."""
    never_answered(run)
    never_eased(run)
    verdict = run_now(
        judge(run.record, MemoryLog(run.shelf), gone=["engine-0", "engine-1", "engine-2", "gateway-0"], replays=False)
    )

    assert [] == verdict[Promise.ORDER].lost
    assert [] == verdict[Promise.EASING].lost


def test_versions_of_another_log_are_not_judged_by_this_one(run: Played) -> None:
    """An engine that held another log's version before its rebase did nothing out of order."""
    line = run.record.applied[place_of(run, "engine-1")]
    other = Version(log_id=line.version.log_id.__class__("another"), partition=0, epoch=10**6, revision=10**6)
    run.record.add(replace(line, version=other, at_s=-1.0))

    assert [] == run.verdict().broken


def test_a_verdict_fits_a_terminal() -> None:
    """However much is found: 100 columns, some lines per promise, and what is not shown is counted."""
    verdict = Verdict(looked_at={"inputs": 10})
    verdict.answers = {promise: Answer(lost=[f"{'word ' * 60}{n}" for n in range(30)]) for promise in Promise}
    lines = str(verdict).splitlines()

    assert max(map(len, lines)) <= 100
    assert len(lines) < 300
    assert all(any(promise.value in line for line in lines) for promise in Promise)
    assert any("and 22 more" in line for line in lines)


def test_every_kind_of_line_is_read_back(tmp_path: Path) -> None:
    """What a recorder writes `read_record` reads, each kind as itself."""
    version = Version(log_id=first_version().log_id, partition=0, epoch=1, revision=2)
    lines: list[Line] = [
        Sampled(at_s=1.0, what="made", agent="a", boot="b", pool="p", seq=1),
        Applied(at_s=2.0, target="e", kind="engine", incarnation="i", version=version, values={"cap": 1}),
        Renewed(at_s=3.0, target="e", incarnation="i", until_s=float("inf")),
        Eased(at_s=4.0, target="e", incarnation="i", before={"cap": 1}, values={"cap": 2}),
    ]
    with Recorder(tmp_path, "one") as recorder:
        for line in lines:
            recorder.write(line)
    found = read_record(tmp_path)

    assert lines == [*found.sampled, *found.applied, *found.leases]


def first_version() -> Version:
    """Some version."""
    with built(0) as world:
        return Version(log_id=world.shelf.log_id, partition=0, epoch=0, revision=0)
