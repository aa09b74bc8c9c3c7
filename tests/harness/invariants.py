"""The invariant monitor: promises 2, 4 and 5, judged on a recorded event log.

It looks only at what travelled: inputs with their offsets, outputs, and (where a test saw
them) what receivers applied. It shares no code with the guard, so that an error there
cannot excuse itself here. A clean log gives no findings; each finding is one sentence.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flyball_core.errors import InvalidDocument
from flyball_core.fencing import Version
from flyball_core.frames import Frame
from flyball_core.ids import LogId
from flyball_core.inputs import Ack, AckStatus, Attach, Claim, Input, Intent, PolicyText, TargetKind, Tick
from flyball_core.knobs import KnobKind, KnobSpec, Value
from flyball_core.outputs import DecisionRecord, Directive, Output, RecordKind, RoutingTable, TickRecord, Verdict
from flyball_log import scan
from flyball_log.interface import Log, Topic
from flyball_policies.document import GuardRule, PolicyDocument
from flyball_policies.reading import read_document
from flyball_proto.codec import decode_audit, decode_directive, decode_input
from harness.scripted_pool import Applied, EventLog

Identity = tuple[str, str, str, int]

GRACE_S = 10.0
"""A version told so shortly before the end may be unanswered."""

_EPSILON = 1e-6


@dataclass(slots=True)
class Findings:
    """What the monitor found; all empty for a log that keeps the promises."""

    order: list[str] = field(default_factory=list)
    """Promise 2: what was told or applied out of order."""
    unexpected: list[str] = field(default_factory=list)
    """Promise 2: versions acknowledged or applied that nobody told."""
    lost: list[str] = field(default_factory=list)
    """Promise 2: versions told that were never answered, nor followed by another."""
    recovered: int = 0
    """Versions told and unanswered, but followed by one that was answered: no fault."""
    motion: list[str] = field(default_factory=list)
    """Promise 4: bounds, slew, dwell."""
    accounts: list[str] = field(default_factory=list)
    """Promise 5: frames that do not add up."""

    @property
    def all(self) -> list[str]:
        """Every finding that breaks a promise."""
        return [*self.order, *self.unexpected, *self.lost, *self.motion, *self.accounts]


def check_events(log: EventLog, *, dropped: Iterable[Identity] = ()) -> Findings:
    """Judge what a scripted pool recorded; `dropped` are frames that a test let vanish on purpose."""
    found = check(log.inputs, log.outputs, applied=log.applied)
    found.accounts.extend(_unsent(log.inputs, log.sent, set(dropped)))
    return found


@dataclass(slots=True)
class Recorded:
    """One partition of a recorded log, as its readers take it: each record once, in the order of versions."""

    partition: int
    begin: int
    """The first offset kept of the inputs."""
    inputs: list[Input]
    audit: list[DecisionRecord | TickRecord]
    told: list[Directive | RoutingTable]
    """What compaction has left."""
    ignored: int
    """Records that a zombie decided after a later claim; every reader ignores them, and so they are left out here."""

    @property
    def outputs(self) -> list[Output]:
        """The audit, and then what was told."""
        return [*self.audit, *self.told]


async def read_partition(log: Log, partition: int) -> Recorded:
    """Read a partition whole. Raises as `Log.read`, and `Rejected` for an output that cannot be read."""
    inputs = [decode_input(r.offset, r.value) async for rs in scan(log, Topic.INPUTS, partition) for r in rs]
    # Whoever is not told whether a record was written writes it again: copies are harmless.
    audit = dict.fromkeys([r.value or b"" async for rs in scan(log, Topic.DECISIONS, partition) for r in rs])
    values = dict.fromkeys([r.value async for rs in scan(log, Topic.DIRECTIVES, partition) for r in rs if r.value])
    told = [decode_directive(value) for value in values if value]
    claims = [i.offset for i in inputs if isinstance(i.body, Claim) and i.body.log_id == log.log_id]

    def in_force(record: DecisionRecord | TickRecord | Directive | RoutingTable) -> bool:
        return not any(record.version.epoch < claim < record.version.revision for claim in claims)

    found = Recorded(
        partition=partition,
        begin=(await log.bounds(Topic.INPUTS, partition)).begin,
        inputs=inputs,
        audit=sorted(map(decode_audit, audit), key=_by_version),
        told=sorted([one for one in told if isinstance(one, (Directive, RoutingTable))], key=_by_version),
        ignored=0,
    )
    every = len(found.outputs)
    found.audit, found.told = list(filter(in_force, found.audit)), list(filter(in_force, found.told))
    found.ignored = every - len(found.outputs)
    return found


async def check_log(log: Log) -> Findings:
    """Judge every partition of a recorded log. Directives that compaction took are not missed."""
    found = Findings()
    for partition in range(log.partitions):
        recorded = await read_partition(log, partition)
        judged = check(recorded.inputs, recorded.outputs, compacted=True)
        for name in ("order", "unexpected", "lost", "motion", "accounts"):
            getattr(found, name).extend(f"partition {partition}: {text}" for text in getattr(judged, name))
        found.recovered += judged.recovered
    return found


def check(
    inputs: Sequence[Input], outputs: Sequence[Output], *, applied: Sequence[Applied] = (), compacted: bool = False
) -> Findings:
    """Judge inputs and outputs of one partition. `compacted`: not every directive is there any more."""
    found = Findings()
    _check_order(inputs, outputs, applied, found, compacted=compacted)
    check_bounds(inputs, outputs, found)
    check_motion(inputs, outputs, found)
    check_accounts(inputs, outputs, found)
    return found


def _by_version(record: DecisionRecord | TickRecord | Directive | RoutingTable) -> tuple[int, int]:
    return _place(record.version)


def _place(version: Version) -> tuple[int, int]:
    return version.epoch, version.revision


def _target(message: Directive | RoutingTable) -> str:
    return f"engine {message.engine}" if isinstance(message, Directive) else f"gateway {message.gateway}"


def _check_order(
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    applied: Sequence[Applied],
    found: Findings,
    *,
    compacted: bool,
) -> None:
    told: dict[str, list[Directive | RoutingTable]] = defaultdict(list)
    for output in outputs:
        if isinstance(output, (Directive, RoutingTable)):
            before = told[_target(output)]
            if before and _place(output.version) <= _place(before[-1].version) and output != before[-1]:
                found.order.append(f"{_target(output)} was told {output.version} after {before[-1].version}")
            before.append(output)
    answered: dict[str, list[tuple[Version, AckStatus]]] = defaultdict(list)
    for item in inputs:
        if isinstance(item.body, Ack):
            answered[f"{item.body.kind.value} {item.body.target}"].append((item.body.version, item.body.status))
    for target, answers in answered.items():
        versions = {output.version for output in told[target]}
        taken: Version | None = None
        for version, status in answers:
            if version not in versions and not compacted:
                found.unexpected.append(f"{target} answered to {version}, which nobody told it")
            if status is AckStatus.NACK:
                continue
            if taken is not None and _place(version) < _place(taken):
                found.order.append(f"{target} acknowledged {version} after {taken}")
            taken = version
    _check_applied(applied, told, found)
    if not compacted:
        _check_lost(told, answered, _end_s(outputs), _left(inputs), found)


def _check_applied(
    applied: Sequence[Applied], told: Mapping[str, list[Directive | RoutingTable]], found: Findings
) -> None:
    versions = {output.version for outputs in told.values() for output in outputs}
    last: dict[str, Version] = {}
    for event in applied:
        if event.version not in versions:
            found.unexpected.append(f"{event.target} applied {event.version}, which nobody told it")
        before = last.get(event.target)
        if before is not None and _place(event.version) <= _place(before):
            found.order.append(f"{event.target} applied {event.version} after {before}")
        last[event.target] = event.version


def _check_lost(
    told: Mapping[str, list[Directive | RoutingTable]],
    answered: Mapping[str, list[tuple[Version, AckStatus]]],
    ends: tuple[dict[int, float], float],
    left: set[str],
    found: Findings,
) -> None:
    times, end_s = ends
    for target, outputs in told.items():
        known = {version for version, _ in answered.get(target, ())}
        latest = max((_place(version) for version in known), default=(-1, -1))
        for output in outputs:
            if output.version in known or target in left:
                continue
            if _place(output.version) < latest:
                found.recovered += 1
            elif times.get(output.version.revision, end_s) < end_s - GRACE_S:
                found.lost.append(f"{target} was told {output.version} and never answered")


def _end_s(outputs: Sequence[Output]) -> tuple[dict[int, float], float]:
    """The machine's time of each tick by revision, and of the last one."""
    times = {output.version.revision: output.time_s for output in outputs if isinstance(output, TickRecord)}
    return times, max(times.values(), default=0.0)


def _left(inputs: Sequence[Input]) -> set[str]:
    """Targets whose last word is that they left."""
    attached = {
        f"{item.body.kind.value} {item.body.target}": item.body.attached
        for item in inputs
        if isinstance(item.body, Attach)
    }
    return {target for target, there in attached.items() if not there}


@dataclass(slots=True)
class _Told:
    """What bounds held when something was told, as far as inputs before it say."""

    whole: bool
    """Whether the inputs are there from the first one on; else what began before them is not known."""
    documents: dict[str, PolicyDocument] = field(default_factory=dict)
    specs: dict[tuple[str, str], KnobSpec] = field(default_factory=dict)
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    """Last value told or reported, per engine and knob."""

    def take(self, item: Input) -> None:
        """One input."""
        body = item.body
        if isinstance(body, (PolicyText, Intent)):
            text = body.text if isinstance(body, PolicyText) else body.policy_text
            try:
                self.documents[body.pool] = read_document(text) if text else PolicyDocument()
            except InvalidDocument:
                return
        elif isinstance(body, Attach) and body.kind is TargetKind.ENGINE and body.attached:
            for spec in body.knobs:
                self.specs[body.target, spec.name] = spec
            self._report(body.target, body.effective)
        elif isinstance(body, Ack) and body.kind is TargetKind.ENGINE:
            self._report(body.target, body.effective)

    def _report(self, engine: str, effective: Mapping[str, Value]) -> None:
        for name, value in effective.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.values[engine, name] = float(value)

    def document(self, pool: str) -> PolicyDocument | None:
        """The pool's document; None if it may be one that is not kept."""
        return self.documents.get(pool) or (PolicyDocument() if self.whole else None)

    def bounds(self, spec: KnobSpec, document: PolicyDocument) -> tuple[float, float]:
        """What engine and operator both allow; the engine's bound wins where they do not meet."""
        low = -math.inf if spec.minimum is None else spec.minimum
        high = math.inf if spec.maximum is None else spec.maximum
        rule = document.knobs.get(spec.name)
        lower = low if rule is None or rule.minimum is None else min(max(rule.minimum, low), high)
        upper = high if rule is None or rule.maximum is None else min(max(rule.maximum, lower), high)
        return lower, upper


def _told(inputs: Sequence[Input]) -> _Told:
    return _Told(whole=not inputs or inputs[0].offset <= 0)


def check_bounds(inputs: Sequence[Input], outputs: Sequence[Output], found: Findings) -> None:
    """What was told, held to the bounds that the inputs before it declare."""
    told = _told(inputs)
    at = 0
    messages = [output for output in outputs if isinstance(output, (Directive, RoutingTable))]
    for message in sorted(messages, key=lambda output: output.version.revision):
        while at < len(inputs) and inputs[at].offset < message.version.revision:
            told.take(inputs[at])
            at += 1
        document = told.document(message.pool)
        if document is None:
            continue
        if isinstance(message, Directive):
            _check_directive(message, told, document, found)
            continue
        for route in message.routes:
            if not (math.isfinite(route.weight) and 0 <= route.weight <= document.weights.maximum):
                found.motion.append(f"{message.version}: weight {route.weight} of {route.engine}")
            if route.in_flight_cap < 0:
                found.motion.append(f"{message.version}: in-flight cap {route.in_flight_cap} of {route.engine}")


def _check_directive(message: Directive, told: _Told, document: PolicyDocument, found: Findings) -> None:
    for name, value in message.values.items():
        spec = told.specs.get((message.engine, name))
        if spec is None and not told.whole:
            continue
        if spec is None or (refusal := spec.refuse(value)) is not None:
            why = refusal if spec is not None else f"it has no knob {name}"
            found.motion.append(f"{message.version}: {message.engine} was told {name}={value}: {why}")
            continue
        if spec.kind not in (KnobKind.INTEGER, KnobKind.REAL) or isinstance(value, (bool, str)):
            continue
        low, high = told.bounds(spec, document)
        before = told.values.get((message.engine, name))
        # One that stood outside already may be on its way in, never on its way out.
        outside = max(low - value, value - high)
        if outside > 0 and (before is None or outside > max(low - before, before - high)):
            found.motion.append(
                f"{message.version}: {message.engine} was told {name}={value}, outside {low:g} to {high:g}"
            )
        told.values[message.engine, name] = float(value)


@dataclass(slots=True)
class _Moved:
    """When which knob of which target of which pool was changed, and raised, last."""

    changed_s: dict[tuple[str, str, str], float] = field(default_factory=dict)
    raised_s: dict[tuple[str, str, str], float] = field(default_factory=dict)


def check_motion(inputs: Sequence[Input], outputs: Sequence[Output], found: Findings) -> None:
    """Slew and dwell of what was accepted, from the decision records in the order of their versions."""
    told, moved = _told(inputs), _Moved()
    records = [output for output in outputs if isinstance(output, DecisionRecord)]
    intervals = _intervals(inputs, records[0].version.log_id if records else LogId(""))
    at = 0
    for record in records:
        if record.kind is not RecordKind.DECISION or record.mode != "control":
            continue
        while at < len(inputs) and inputs[at].offset < record.version.revision:
            told.take(inputs[at])
            at += 1
        document = told.document(record.pool)
        asked = intervals.get(record.version.revision, 0.0 if told.whole else None)
        if document is None or asked is None:
            continue
        for verdict in record.verdicts:
            if verdict.allowed is not None:
                _check_move(record, verdict, document.guard, asked, moved, found)


def _check_move(
    record: DecisionRecord, verdict: Verdict, guard: GuardRule, asked: float, moved: _Moved, found: Findings
) -> None:
    before, value = verdict.before, verdict.allowed
    named = (verdict.proposal.target, verdict.proposal.knob)
    where = (record.pool, *named)
    if not isinstance(before, (bool, str)) and before is not None and not isinstance(value, (bool, str)):
        dt = min(asked, 1.0) if asked >= 0.0 else 0.0  # NaN is no time either
        since = record.time_s - moved.changed_s.get(where, -math.inf)
        least, most = sorted((before * guard.slew_down**dt, before * guard.slew_up**dt))
        if isinstance(value, int) and since >= 1.0 - _EPSILON:
            least, most = min(least, before - 1), max(most, before + 1)
        if value is not None and not least - 1 < value <= most + _EPSILON:
            found.motion.append(f"{record.decision}: {named} moved {before} -> {value} in {dt:g} s")
    moved.changed_s[where] = record.time_s
    lowered = isinstance(before, (int, float)) and isinstance(value, (int, float)) and value <= before
    if not lowered or isinstance(value, bool):
        dwell = guard.restart_dwell_s if isinstance(value, str) else guard.raise_dwell_s
        since = record.time_s - moved.raised_s.get(where, -math.inf)
        if since < dwell - _EPSILON and not verdict.proposal.policy.startswith("override:"):
            found.motion.append(f"{record.decision}: {named} raised again after {since:g} s")
        moved.raised_s[where] = record.time_s


def _intervals(inputs: Sequence[Input], log_id: LogId) -> dict[int, float]:
    """By offset, how long after the tick before it each tick came: by its owner, or of its first one by wall clocks."""
    intervals: dict[int, float] = {}
    epoch, first = -1, True
    wall_s: float | None = None
    for item in inputs:
        body = item.body
        if isinstance(body, Claim):
            epoch, first = (item.offset, True) if body.log_id == log_id else (epoch, first)
        elif isinstance(body, Tick) and body.epoch == epoch:
            taken_over_s = body.wall_s - wall_s if wall_s is not None else 0.0
            intervals[item.offset] = taken_over_s if first else body.interval_s
            first, wall_s = False, body.wall_s if math.isfinite(body.wall_s) else (wall_s or 0.0)
    return intervals


def check_accounts(inputs: Sequence[Input], outputs: Sequence[Output], found: Findings) -> None:
    """Hold each pool's last counts to the frames that came before them, or since the first tick that is kept."""
    ticks = [output for output in outputs if isinstance(output, TickRecord)]
    if not ticks:
        return
    first: dict[str, TickRecord] = {}
    if inputs and inputs[0].offset > 0:
        first = {tick.pool: tick for tick in reversed(ticks) if tick.version.revision >= inputs[0].offset}
    last: dict[str, TickRecord] = {tick.pool: tick for tick in ticks}
    copies: dict[str, Counter[Identity]] = defaultdict(Counter)
    since = {pool: first[pool].version.revision if pool in first else -1 for pool in last}
    for item in inputs:
        body = item.body
        if not isinstance(body, Frame) or body.pool not in last:
            continue
        if since[body.pool] < item.offset < last[body.pool].version.revision:
            copies[body.pool][body.agent, body.boot, body.pool, body.seq] += 1
    for pool, tick in last.items():
        before = first[pool].counts if pool in first else {}
        counts = {name: count - before.get(name, 0) for name, count in tick.counts.items()}
        _check_counts(pool, counts, copies[pool], found, whole=pool not in first)


def _check_counts(
    pool: str, counts: Mapping[str, int], copies: Counter[Identity], found: Findings, *, whole: bool
) -> None:
    total, distinct = sum(copies.values()), len(copies)
    delivered, duplicate = counts.get("delivered", 0), counts.get("duplicate", 0)
    rejected = counts.get("rejected", 0)
    if delivered + duplicate + rejected != total:
        found.accounts.append(
            f"{pool}: {total} frames came, but {delivered} delivered + {duplicate} duplicate + {rejected} rejected"
        )
    # A frame whose header is refused has no identity worth keeping, so each copy is refused anew.
    anew = sum(counts.get(f"rejected_{why}", 0) for why in ("header", "agent", "boot"))
    taken = delivered + rejected
    # Of a log whose beginning has passed out of retention, an identity may have come before as well.
    if taken - anew > distinct or (whole and taken < distinct):
        found.accounts.append(f"{pool}: {distinct} identities came, but {taken} were taken for new")


def _unsent(inputs: Sequence[Input], sent: Sequence[Identity], dropped: set[Identity]) -> list[str]:
    came = {
        (item.body.agent, item.body.boot, item.body.pool, item.body.seq)
        for item in inputs
        if isinstance(item.body, Frame)
    }
    missing = set(sent) - came
    return [f"{identity} was sent and neither came nor was dropped" for identity in sorted(missing - dropped)] + [
        f"{identity} was dropped, and yet it came" for identity in sorted(dropped & came)
    ]
