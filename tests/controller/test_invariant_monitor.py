"""The invariant monitor can fail: every promise it watches is broken here on purpose, and it says so."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flyball_core.frames import Frame
from flyball_core.inputs import Ack, AckStatus, Input
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import DecisionRecord, Directive, RecordKind, Route, RoutingTable, TickRecord
from harness.invariants import Findings, check_events
from harness.scripted_pool import Applied, EventLog, ScriptedPool, scripted_pool


def busy_pool() -> ScriptedPool:
    """A pool with a slow engine, so that caps and weights move."""
    pool = scripted_pool()
    pool.engines["e0-1"].slowness = 2.5
    pool.run(60)
    return pool


@pytest.fixture(scope="module")
def clean() -> EventLog:
    """The event log of a run that keeps its promises."""
    return busy_pool().log


def copied(log: EventLog) -> EventLog:
    """The same events, to be damaged."""
    return EventLog(list(log.inputs), list(log.raw), list(log.outputs), list(log.applied), list(log.sent))


def place_of(log: EventLog, kind: type, number: int = 0) -> int:
    """Where the output of this kind and number stands."""
    return [i for i, output in enumerate(log.outputs) if isinstance(output, kind)][number]


def test_a_clean_run_gives_no_findings(clean: EventLog) -> None:
    """A run with many changes breaks no promise, and the monitor says nothing."""
    found = check_events(clean)

    assert [] == found.all
    assert len(clean.told()) > 10


def older_directive(log: EventLog) -> None:
    """Tell an engine an older version after a newer one."""
    first = log.outputs[place_of(log, Directive)]
    assert isinstance(first, Directive)
    log.outputs.append(replace(first, version=replace(first.version, revision=first.version.revision - 1)))


def older_ack(log: EventLog) -> None:
    """Let an engine acknowledge a version that is older than the one it holds."""
    acks = [i for i in log.inputs if isinstance(i.body, Ack) and i.body.target == "e0-1"]
    log.inputs.append(Input(log.inputs[-1].offset + 1, 0, acks[0].body))


def older_applied(log: EventLog) -> None:
    """Let an engine apply what it has left behind."""
    mine = [event for event in log.applied if event.target == "e0-1"]
    log.applied.append(mine[0])


def applied_twice(log: EventLog) -> None:
    """Let an engine apply one version twice."""
    log.applied.append(log.applied[-1])


def unexpected_ack(log: EventLog) -> None:
    """Let a receiver acknowledge what nobody told it."""
    ack = next(i.body for i in log.inputs if isinstance(i.body, Ack))
    assert isinstance(ack, Ack)
    strange = replace(ack, version=replace(ack.version, revision=10**6), status=AckStatus.APPLIED)
    log.inputs.append(Input(log.inputs[-1].offset + 1, 0, strange))


def unexpected_applied(log: EventLog) -> None:
    """Let a receiver apply what nobody told it."""
    event = log.applied[-1]
    log.applied.append(
        Applied(
            time_s=event.time_s,
            target=event.target,
            version=replace(event.version, revision=10**6),
            values=event.values,
        )
    )


def lost_answers(log: EventLog) -> None:
    """Take away every answer of one engine."""
    log.inputs[:] = [i for i in log.inputs if not (isinstance(i.body, Ack) and i.body.target == "e0-1")]


def out_of_capability(log: EventLog) -> None:
    """Tell an engine more than it can take."""
    at = place_of(log, Directive)
    message = log.outputs[at]
    assert isinstance(message, Directive)
    log.outputs[at] = replace(message, values={BATCH_CAP: 257})


def out_of_document(log: EventLog) -> None:
    """Tell an engine less than the operator allows."""
    at = place_of(log, Directive)
    message = log.outputs[at]
    assert isinstance(message, Directive)
    log.outputs[at] = replace(message, values={BATCH_CAP: 3})


def no_number(log: EventLog) -> None:
    """Tell an engine a NaN."""
    at = place_of(log, Directive)
    message = log.outputs[at]
    assert isinstance(message, Directive)
    log.outputs[at] = replace(message, values={BATCH_CAP: float("nan")})


def heavy_weight(log: EventLog) -> None:
    """Give an engine more weight than the document's most."""
    at = place_of(log, RoutingTable)
    message = log.outputs[at]
    assert isinstance(message, RoutingTable)
    log.outputs[at] = replace(message, routes=(Route(engine=message.routes[0].engine, weight=257, in_flight_cap=1),))


def decision(log: EventLog) -> tuple[int, DecisionRecord]:
    """The first decision that accepted something, and its place."""
    return next(
        (i, o)
        for i, o in enumerate(log.outputs)
        if isinstance(o, DecisionRecord) and o.kind is RecordKind.DECISION and any(v.allowed for v in o.verdicts)
    )


def too_fast(log: EventLog) -> None:
    """Accept a cut to a third within one second."""
    at, record = decision(log)
    verdict = next(v for v in record.verdicts if isinstance(v.before, int))
    assert isinstance(verdict.before, int)
    log.outputs[at] = replace(record, verdicts=(replace(verdict, allowed=verdict.before // 3),))


def too_often(log: EventLog) -> None:
    """Accept two raises of one knob within a second of each other."""
    at, record = decision(log)
    verdict = next(v for v in record.verdicts if isinstance(v.before, int))
    assert isinstance(verdict.before, int)
    raised = replace(verdict, allowed=verdict.before + 1)
    again = replace(verdict, before=verdict.before + 1, allowed=verdict.before + 2)
    later = replace(record, verdicts=(again,), time_s=record.time_s + 1.0)
    log.outputs[at : at + 1] = [replace(record, verdicts=(raised,)), later]


def miscounted(log: EventLog) -> None:
    """Count one frame less than came."""
    at = place_of(log, TickRecord, -1)
    tick = log.outputs[at]
    assert isinstance(tick, TickRecord)
    log.outputs[at] = replace(tick, counts={**tick.counts, "delivered": tick.counts["delivered"] - 1})


def counted_as_other(log: EventLog) -> None:
    """Count two copies as two frames: the sum is right, the identities are not."""
    frame = next(i for i in log.inputs if isinstance(i.body, Frame))
    log.inputs.insert(0, frame._replace(offset=-1))
    at = place_of(log, TickRecord, -1)
    tick = log.outputs[at]
    assert isinstance(tick, TickRecord)
    log.outputs[at] = replace(tick, counts={**tick.counts, "delivered": tick.counts["delivered"] + 1})


def vanished(log: EventLog) -> None:
    """Let a frame vanish without a trace."""
    log.sent.append(("a0", "b0", "chat", 10**6))


PLANTED = [
    (older_directive, "order"),
    (older_ack, "order"),
    (older_applied, "order"),
    (applied_twice, "order"),
    (unexpected_ack, "unexpected"),
    (unexpected_applied, "unexpected"),
    (lost_answers, "lost"),
    (out_of_capability, "motion"),
    (out_of_document, "motion"),
    (no_number, "motion"),
    (heavy_weight, "motion"),
    (too_fast, "motion"),
    (too_often, "motion"),
    (miscounted, "accounts"),
    (counted_as_other, "accounts"),
    (vanished, "accounts"),
]


@pytest.mark.parametrize(("plant", "where"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
def test_a_planted_violation_is_found(plant: Callable[[EventLog], None], where: str, clean: EventLog) -> None:
    """Each way to break a promise gives a finding of that promise."""
    log = copied(clean)
    plant(log)

    found = check_events(log)

    assert getattr(found, where)


def test_what_is_dropped_on_purpose_must_be_named_exactly(clean: EventLog) -> None:
    """A frame named as dropped that came is a finding, as is one dropped that nobody named."""
    came = clean.sent[3]

    assert [] != check_events(clean, dropped=[came]).accounts


def test_a_superseded_version_counts_as_recovered() -> None:
    """An answer that got lost is no fault if a later version was answered."""
    pool = scripted_pool()
    pool.engines["e0-1"].slowness = 2.5
    lost: list[object] = []

    def lose_one(message: object, ack: Ack) -> Ack | None:
        if ack.target == "e0-1" and not lost:
            lost.append(message)
            return None
        return ack

    pool.on_answer = lose_one
    pool.run(60)
    found = check_events(pool.log)

    assert [] == found.all
    assert 1 == found.recovered


def test_findings_are_empty_by_default() -> None:
    """Nothing looked at is nothing found."""
    assert [] == Findings().all
