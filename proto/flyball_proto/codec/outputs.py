"""Output records, both ways."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, GatewayId, Incarnation, LogId, PoolId
from flyball_core.inputs import TargetKind
from flyball_core.outputs import (
    DecisionRecord,
    Directive,
    Heartbeat,
    LaneRule,
    RebaseNotice,
    RecordKind,
    Route,
    RoutingTable,
    TickRecord,
    Verdict,
)
from flyball_proto.codec.inputs import fill_proposal, read_proposal
from flyball_proto.codec.words import (
    MAX_RECORD_BYTES,
    TARGET_KINDS,
    EnumPair,
    fill_setting,
    fill_value,
    fill_version,
    read_setting,
    read_value,
    read_version,
)
from flyball_proto.v1 import common_pb2, outputs_pb2 as pb, services_pb2

Pushed = Directive | RoutingTable | Heartbeat | RebaseNotice
"""What is for receivers."""

_TICK = bytes([pb.AuditRecord.TICK_FIELD_NUMBER << 3 | 2])
"""How the bytes of a tick's record begin: its field's number, and that a length follows."""

_KINDS = EnumPair(
    "record kind",
    {
        pb.RECORD_KIND_DECISION: RecordKind.DECISION,
        pb.RECORD_KIND_ACK: RecordKind.ACK,
        pb.RECORD_KIND_OUTCOME: RecordKind.OUTCOME,
        pb.RECORD_KIND_ORDER: RecordKind.ORDER,
        pb.RECORD_KIND_ALARM: RecordKind.ALARM,
    },
)


def encode_directive(output: Pushed) -> bytes:
    """The bytes of one record of the directives topic."""
    record = pb.DirectiveRecord()
    fill_pushed(record, output)
    return record.SerializeToString(deterministic=True)


def _must_fit(value: bytes) -> None:
    """Raise `Rejected` for what no log of ours takes, before anything is made of it."""
    if len(value) > MAX_RECORD_BYTES:
        raise Rejected(f"a record of {len(value)} bytes; the limit is {MAX_RECORD_BYTES}")


def decode_directive(value: bytes) -> Pushed:
    """One record of the directives topic; `Rejected` if it is none."""
    _must_fit(value)
    try:
        record = pb.DirectiveRecord.FromString(value)
    except DecodeError as error:
        raise Rejected(f"not a DirectiveRecord: {error}") from error
    return read_pushed(record)


def fill_pushed(m: pb.DirectiveRecord | services_pb2.PusherMessage, output: Pushed) -> None:
    """Write what is for receivers: the directives topic and the attach stream carry the same."""
    if isinstance(output, Directive):
        fill_directive(m.directive, output)
    elif isinstance(output, RoutingTable):
        fill_table(m.table, output)
    elif isinstance(output, RebaseNotice):
        fill_rebase(m.rebase, output)
    else:
        fill_heartbeat(m.heartbeat, output)


def read_pushed(m: pb.DirectiveRecord | services_pb2.PusherMessage) -> Pushed:
    """Read what is for receivers; `Rejected` if it is nothing that this contract knows."""
    kind = m.WhichOneof("body")
    if kind == "directive":
        return read_directive(m.directive)
    if kind == "table":
        return read_table(m.table)
    if kind == "heartbeat":
        return read_heartbeat(m.heartbeat)
    if kind == "rebase":
        return read_rebase(m.rebase)
    raise Rejected(f"a {type(m).__name__} of a kind not known here")


def fill_directive(m: pb.Directive, output: Directive) -> None:
    """Write a directive."""
    m.pool, m.engine, m.incarnation = output.pool, output.engine, output.incarnation
    m.capability_hash, m.decision = output.capability_hash, output.decision
    fill_version(m.version, output.version)
    fill_setting(m.values, output.values)


def read_directive(m: pb.Directive) -> Directive:
    """Read a directive."""
    return Directive(
        pool=PoolId(m.pool),
        engine=EngineId(m.engine),
        incarnation=Incarnation(m.incarnation),
        capability_hash=m.capability_hash,
        version=read_version(m.version),
        values=read_setting(m.values),
        decision=m.decision,
    )


def fill_table(m: pb.RoutingTable, output: RoutingTable) -> None:
    """Write a routing table."""
    m.pool, m.gateway, m.decision = output.pool, output.gateway, output.decision
    fill_version(m.version, output.version)
    for route in output.routes:
        m.routes.add(engine=route.engine, weight=route.weight, in_flight_cap=route.in_flight_cap)
    for lane in output.lanes:
        m.lanes.add(lane=lane.lane, priority=lane.priority, max_wait_s=lane.max_wait_s)


def read_table(m: pb.RoutingTable) -> RoutingTable:
    """Read a routing table."""
    return RoutingTable(
        pool=PoolId(m.pool),
        gateway=GatewayId(m.gateway),
        version=read_version(m.version),
        routes=tuple(
            Route(engine=EngineId(r.engine), weight=r.weight, in_flight_cap=r.in_flight_cap) for r in m.routes
        ),
        lanes=tuple(LaneRule(lane=lane.lane, priority=lane.priority, max_wait_s=lane.max_wait_s) for lane in m.lanes),
        decision=m.decision,
    )


def fill_heartbeat(m: pb.Heartbeat, output: Heartbeat) -> None:
    """Write a heartbeat."""
    m.pool, m.time_s, m.wall_s, m.hold_s = output.pool, output.time_s, output.wall_s, output.hold_s
    fill_version(m.version, output.version)


def read_heartbeat(m: pb.Heartbeat) -> Heartbeat:
    """Read a heartbeat."""
    return Heartbeat(
        pool=PoolId(m.pool), version=read_version(m.version), time_s=m.time_s, wall_s=m.wall_s, hold_s=m.hold_s
    )


def fill_rebase(m: pb.RebaseNotice, output: RebaseNotice) -> None:
    """Write the notice of a rebase."""
    m.pool, m.target, m.author, m.expires_wall_s = output.pool, output.target, output.author, output.expires_wall_s
    fill_version(m.version, output.version)


def read_rebase(m: pb.RebaseNotice) -> RebaseNotice:
    """Read the notice of a rebase."""
    return RebaseNotice(
        pool=PoolId(m.pool),
        target=m.target,
        version=read_version(m.version),
        author=m.author,
        expires_wall_s=m.expires_wall_s,
    )


def encode_audit(output: DecisionRecord | TickRecord) -> bytes:
    """The bytes of one record of the decisions topic; the same record gives the same bytes."""
    record = pb.AuditRecord()
    if isinstance(output, TickRecord):
        _fill_tick(record.tick, output)
    else:
        _fill_decision(record.decision, output)
    return record.SerializeToString(deterministic=True)


def is_tick(value: bytes) -> bool:
    """Whether an encoded record of the decisions topic is a tick's: most are. Looks at its first byte alone."""
    return value.startswith(_TICK)


def decode_audit(value: bytes) -> DecisionRecord | TickRecord:
    """One record of the decisions topic; `Rejected` if it is none."""
    _must_fit(value)
    try:
        record = pb.AuditRecord.FromString(value)
    except DecodeError as error:
        raise Rejected(f"not an AuditRecord: {error}") from error
    kind = record.WhichOneof("body")
    if kind == "tick":
        return _read_tick(record.tick)
    if kind == "decision":
        return _read_decision(record.decision)
    raise Rejected("an AuditRecord of a kind not known here")


def _fill_tick(m: pb.TickRecord, output: TickRecord) -> None:
    m.pool, m.time_s, m.wall_s, m.mode = output.pool, output.time_s, output.wall_s, output.mode
    fill_version(m.version, output.version)
    m.inputs_digest, m.regime, m.confidence, m.alarm = (
        output.inputs_digest,
        output.regime,
        output.confidence,
        output.alarm,
    )
    m.features.update(output.features)
    m.counts.update(output.counts)


def _read_tick(m: pb.TickRecord) -> TickRecord:
    return TickRecord(
        pool=PoolId(m.pool),
        version=read_version(m.version),
        time_s=m.time_s,
        wall_s=m.wall_s,
        inputs_digest=m.inputs_digest,
        mode=m.mode,
        regime=m.regime,
        confidence=m.confidence,
        alarm=m.alarm,
        features={name: m.features[name] for name in sorted(m.features)},
        counts={name: m.counts[name] for name in sorted(m.counts)},
    )


def _fill_decision(m: pb.DecisionRecord, output: DecisionRecord) -> None:
    m.pool, m.decision, m.time_s, m.wall_s = output.pool, output.decision, output.time_s, output.wall_s
    m.kind = pb.RecordKind.ValueType(_KINDS.number(output.kind))
    fill_version(m.version, output.version)
    m.mode, m.regime, m.confidence, m.summary = output.mode, output.regime, output.confidence, output.summary
    if output.target_kind is not None:
        m.target_kind = common_pb2.TargetKind.ValueType(TARGET_KINDS.number(output.target_kind))
    m.target = output.target
    m.features.update(output.features)
    for verdict in output.verdicts:
        made = m.verdicts.add(rule=verdict.rule, reason=verdict.reason)
        fill_proposal(made.proposal, verdict.proposal)
        if verdict.before is not None:
            fill_value(made.before, verdict.before)
        if verdict.allowed is not None:
            fill_value(made.allowed, verdict.allowed)
    m.published.extend(output.published)
    fill_setting(m.effective, output.effective)
    m.refused = output.refused


def _read_decision(m: pb.DecisionRecord) -> DecisionRecord:
    return DecisionRecord(
        pool=PoolId(m.pool),
        kind=_KINDS.member(m.kind, RecordKind),
        version=read_version(m.version),
        decision=m.decision,
        time_s=m.time_s,
        wall_s=m.wall_s,
        mode=m.mode,
        regime=m.regime,
        confidence=m.confidence,
        summary=m.summary,
        target_kind=TARGET_KINDS.member(m.target_kind, TargetKind) if m.target_kind else None,
        target=m.target,
        features={name: m.features[name] for name in sorted(m.features)},
        verdicts=tuple(
            Verdict(
                proposal=read_proposal(v.proposal),
                before=read_value(v.before) if v.HasField("before") else None,
                allowed=read_value(v.allowed) if v.HasField("allowed") else None,
                rule=v.rule,
                reason=v.reason,
            )
            for v in m.verdicts
        ),
        published=tuple(m.published),
        effective=read_setting(m.effective),
        refused=m.refused,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPart:
    """One part of an exported state, as stored; `crc` is over its place and the whole payload of all parts."""

    schema: int
    log_id: LogId
    partition: int
    epoch: int
    revision: int
    part: int
    parts: int
    crc: int
    payload: bytes


def encode_checkpoint(part: CheckpointPart) -> bytes:
    """The bytes of one checkpoint part."""
    return pb.Checkpoint(
        schema=part.schema,
        log_id=part.log_id,
        partition=part.partition,
        epoch=part.epoch,
        revision=part.revision,
        part=part.part,
        parts=part.parts,
        crc=part.crc,
        payload=part.payload,
    ).SerializeToString(deterministic=True)


def decode_checkpoint(value: bytes) -> CheckpointPart:
    """One checkpoint part; `Rejected` if it is none."""
    _must_fit(value)
    try:
        m = pb.Checkpoint.FromString(value)
    except DecodeError as error:
        raise Rejected(f"not a Checkpoint: {error}") from error
    return CheckpointPart(
        schema=m.schema,
        log_id=LogId(m.log_id),
        partition=m.partition,
        epoch=m.epoch,
        revision=m.revision,
        part=m.part,
        parts=m.parts,
        crc=m.crc,
        payload=m.payload,
    )
