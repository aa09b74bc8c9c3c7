"""Input records, both ways."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from flyball_core.errors import Rejected
from flyball_core.frames import Frame
from flyball_core.ids import AgentId, Incarnation, LogId, OwnerId, PoolId
from flyball_core.inputs import (
    Ack,
    AckStatus,
    Attach,
    Body,
    Claim,
    Fingerprint,
    Grant,
    Input,
    Intent,
    Malformed,
    Mode,
    Order,
    OverrideClear,
    OverrideSet,
    PolicyText,
    Proposal,
    Rebase,
    SlowProposal,
    TargetKind,
    Tick,
)
from flyball_proto.codec.telemetry import fill_frame, read_frame
from flyball_proto.codec.words import (
    ACK_STATUSES,
    MAX_RECORD_BYTES,
    MODES,
    TARGET_KINDS,
    fill_knob,
    fill_setting,
    fill_value,
    fill_version,
    knows_knob,
    read_knob,
    read_known,
    read_value,
    read_version,
)
from flyball_proto.v1 import common_pb2, inputs_pb2 as pb

_TOO_LARGE = f"too large for an input: the limit is {MAX_RECORD_BYTES} bytes"

_ATTACH = bytes([pb.InputRecord.ATTACH_FIELD_NUMBER << 3 | 2])
"""How the bytes of an attach begin: its field's number, and that a length follows."""


def _kind(member: TargetKind) -> common_pb2.TargetKind.ValueType:
    return common_pb2.TargetKind.ValueType(TARGET_KINDS.number(member))


def _mode(member: Mode) -> common_pb2.Mode.ValueType:
    return common_pb2.Mode.ValueType(MODES.number(member))


def _fill_claim(m: pb.Claim, body: Claim) -> None:
    m.owner, m.log_id, m.wall_s = body.owner, body.log_id, body.wall_s
    print_ = body.fingerprint
    m.fingerprint.flyball, m.fingerprint.numpy, m.fingerprint.river = print_.flyball, print_.numpy, print_.river
    m.fingerprint.cpu.extend(print_.cpu)


def _read_claim(m: pb.Claim) -> Claim:
    seen = m.fingerprint
    return Claim(
        owner=OwnerId(m.owner),
        log_id=LogId(m.log_id),
        fingerprint=Fingerprint(flyball=seen.flyball, numpy=seen.numpy, river=seen.river, cpu=tuple(seen.cpu)),
        wall_s=m.wall_s,
    )


def _fill_tick(m: pb.Tick, body: Tick) -> None:
    m.epoch, m.interval_s, m.wall_s = body.epoch, body.interval_s, body.wall_s


def _read_tick(m: pb.Tick) -> Tick:
    return Tick(epoch=m.epoch, interval_s=m.interval_s, wall_s=m.wall_s)


def fill_attach(m: pb.Attach, body: Attach) -> None:
    """Write an attach."""
    m.pool, m.kind, m.target, m.incarnation = body.pool, _kind(body.kind), body.target, body.incarnation
    m.attached, m.capability_hash = body.attached, body.capability_hash
    for knob in body.knobs:
        fill_knob(m.knobs.add(), knob)
    if body.held is not None:
        fill_version(m.held, body.held)
    fill_setting(m.effective, body.effective)
    if body.ends is not None:
        m.ends = body.ends
    m.attempt = body.attempt


def read_attach(m: pb.Attach) -> Attach:
    """Read an attach; knobs that only a newer peer knows are left out."""
    return Attach(
        pool=PoolId(m.pool),
        kind=TARGET_KINDS.member(m.kind, TargetKind),
        target=m.target,
        incarnation=Incarnation(m.incarnation),
        attached=m.attached,
        capability_hash=m.capability_hash,
        # A knob that only a newer peer knows is not ours to move; the others are.
        knobs=tuple(read_knob(knob) for knob in m.knobs if knows_knob(knob)),
        held=read_version(m.held) if m.HasField("held") else None,
        effective=read_known(m.effective),
        ends=m.ends if m.HasField("ends") else None,
        attempt=m.attempt,
    )


def fill_ack(m: pb.Ack, body: Ack) -> None:
    """Write an ack."""
    m.pool, m.kind, m.target, m.incarnation = body.pool, _kind(body.kind), body.target, body.incarnation
    fill_version(m.version, body.version)
    m.status = pb.AckStatus.ValueType(ACK_STATUSES.number(body.status))
    m.reason = body.reason
    fill_setting(m.effective, body.effective)


def read_ack(m: pb.Ack) -> Ack:
    """Read an ack."""
    return Ack(
        pool=PoolId(m.pool),
        kind=TARGET_KINDS.member(m.kind, TargetKind),
        target=m.target,
        incarnation=Incarnation(m.incarnation),
        version=read_version(m.version),
        status=ACK_STATUSES.member(m.status, AckStatus),
        reason=m.reason,
        effective=read_known(m.effective),
    )


def fill_override(m: pb.OverrideSet, body: OverrideSet) -> None:
    """Write an override."""
    m.pool, m.override_id, m.target, m.knob = body.pool, body.override_id, body.target, body.knob
    fill_value(m.value, body.value)
    m.expires_wall_s, m.reason, m.author = body.expires_wall_s, body.reason, body.author


def read_override(m: pb.OverrideSet) -> OverrideSet:
    """Read an override."""
    return OverrideSet(
        pool=PoolId(m.pool),
        override_id=m.override_id,
        target=m.target,
        knob=m.knob,
        value=read_value(m.value),
        expires_wall_s=m.expires_wall_s,
        reason=m.reason,
        author=m.author,
    )


def _fill_clear(m: pb.OverrideClear, body: OverrideClear) -> None:
    m.pool, m.override_id, m.author = body.pool, body.override_id, body.author


def _read_clear(m: pb.OverrideClear) -> OverrideClear:
    return OverrideClear(pool=PoolId(m.pool), override_id=m.override_id, author=m.author)


def _fill_policy(m: pb.PolicyText, body: PolicyText) -> None:
    m.pool, m.text, m.author = body.pool, body.text, body.author


def _read_policy(m: pb.PolicyText) -> PolicyText:
    return PolicyText(pool=PoolId(m.pool), text=m.text, author=m.author)


def fill_order(m: pb.Order, body: Order) -> None:
    """Write an order."""
    m.pool, m.author, m.reason = body.pool, body.author, body.reason
    if body.mode is not None:
        m.mode = _mode(body.mode)
    if body.paused is not None:
        m.paused = body.paused
    if body.reset_policy is not None:
        m.reset_policy = body.reset_policy


def read_order(m: pb.Order) -> Order:
    """Read an order."""
    return Order(
        pool=PoolId(m.pool),
        author=m.author,
        reason=m.reason,
        mode=MODES.member(m.mode, Mode) if m.mode else None,
        paused=m.paused if m.HasField("paused") else None,
        reset_policy=m.reset_policy if m.HasField("reset_policy") else None,
    )


def _fill_rebase(m: pb.Rebase, body: Rebase) -> None:
    m.pool, m.target, m.author, m.reason = body.pool, body.target, body.author, body.reason


def _read_rebase(m: pb.Rebase) -> Rebase:
    return Rebase(pool=PoolId(m.pool), target=m.target, author=m.author, reason=m.reason)


def _fill_intent(m: pb.Intent, body: Intent) -> None:
    m.pool, m.policy_text, m.policy_author = body.pool, body.policy_text, body.policy_author
    m.mode, m.paused, m.as_of = _mode(body.mode), body.paused, body.as_of
    for override in body.overrides:
        fill_override(m.overrides.add(), override)


def _read_intent(m: pb.Intent) -> Intent:
    return Intent(
        pool=PoolId(m.pool),
        policy_text=m.policy_text,
        policy_author=m.policy_author,
        mode=MODES.member(m.mode, Mode),
        paused=m.paused,
        overrides=tuple(read_override(override) for override in m.overrides),
        as_of=m.as_of,
    )


def _fill_grant(m: pb.Grant, body: Grant) -> None:
    m.pool, m.name, m.amount, m.expires_wall_s = body.pool, body.name, body.amount, body.expires_wall_s


def _read_grant(m: pb.Grant) -> Grant:
    return Grant(pool=PoolId(m.pool), name=m.name, amount=m.amount, expires_wall_s=m.expires_wall_s)


def fill_proposal(m: pb.Proposal, body: Proposal) -> None:
    """Write one proposal."""
    m.policy, m.kind, m.target, m.knob = body.policy, _kind(body.kind), body.target, body.knob
    fill_value(m.value, body.value)
    m.reason, m.propensity = body.reason, body.propensity


def read_proposal(m: pb.Proposal) -> Proposal:
    """Read one proposal."""
    return Proposal(
        policy=m.policy,
        kind=TARGET_KINDS.member(m.kind, TargetKind),
        target=m.target,
        knob=m.knob,
        value=read_value(m.value),
        reason=m.reason,
        propensity=m.propensity,
    )


def _fill_slow(m: pb.SlowProposal, body: SlowProposal) -> None:
    m.pool, m.policy, m.tick_revision, m.missed = body.pool, body.policy, body.tick_revision, body.missed
    for proposal in body.proposals:
        fill_proposal(m.proposals.add(), proposal)


def _read_slow(m: pb.SlowProposal) -> SlowProposal:
    return SlowProposal(
        pool=PoolId(m.pool),
        policy=m.policy,
        tick_revision=m.tick_revision,
        missed=m.missed,
        proposals=tuple(read_proposal(proposal) for proposal in m.proposals),
    )


# field of InputRecord -> (domain type, writer, reader). `Any` because the pairing of
# message and body is by key, which a type cannot say; each function is typed on its own.
_CODECS: dict[str, tuple[type, Callable[[Any, Any], None], Callable[[Any], Body]]] = {
    "frame": (Frame, fill_frame, read_frame),
    "tick": (Tick, _fill_tick, _read_tick),
    "claim": (Claim, _fill_claim, _read_claim),
    "attach": (Attach, fill_attach, read_attach),
    "ack": (Ack, fill_ack, read_ack),
    "override_set": (OverrideSet, fill_override, read_override),
    "override_clear": (OverrideClear, _fill_clear, _read_clear),
    "policy": (PolicyText, _fill_policy, _read_policy),
    "order": (Order, fill_order, read_order),
    "intent": (Intent, _fill_intent, _read_intent),
    "grant": (Grant, _fill_grant, _read_grant),
    "proposal": (SlowProposal, _fill_slow, _read_slow),
    "rebase": (Rebase, _fill_rebase, _read_rebase),
}
_FIELDS = {kind: (field, fill) for field, (kind, fill, _) in _CODECS.items()}
_READERS = {field: read for field, (_, _, read) in _CODECS.items()}


def encode_input(body: Body) -> bytes:
    """The bytes of one input record; `Rejected` for what the contract cannot carry."""
    found = _FIELDS.get(type(body))
    if found is None:
        raise Rejected(f"a {type(body).__name__} is not an input that can be sent")
    field, fill = found
    record = pb.InputRecord()
    message = getattr(record, field)
    message.SetInParent()  # an all-default body is still that body
    try:
        fill(message, body)
    except (TypeError, ValueError) as error:  # out of a field's range, or no text
        raise Rejected(f"this {type(body).__name__} does not fit the contract: {error}") from error
    return record.SerializeToString(deterministic=True)


def encode_frame(frame: Frame) -> tuple[bytes, bytes]:
    """One frame's record as it is sent while it is young, and as backlog: both for the price of one.

    Raises `Rejected` for what the contract cannot carry.
    """
    record = pb.InputRecord()
    fill_frame(record.frame, frame)
    record.frame.backlog = False
    live = record.SerializeToString(deterministic=True)
    record.frame.backlog = True
    return live, record.SerializeToString(deterministic=True)


def is_attach(value: bytes | None) -> bool:
    """Whether an encoded input is an attach, by its first byte alone: few are."""
    return value is not None and value.startswith(_ATTACH)


class FrameHead(NamedTuple):
    """What a door has to know of a frame; its numbers are for whoever reads it."""

    agent: AgentId
    pool: PoolId
    backlog: bool
    samples: int
    """Of all kinds together."""


def frame_head(value: bytes) -> FrameHead | None:
    """The head of an encoded frame, at a fraction of what reading all of it costs; None if it is no frame.

    What has a head can be decoded.
    """
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        record = pb.InputRecord.FromString(value)
    except DecodeError:
        return None
    if record.WhichOneof("body") != "frame":
        return None
    frame = record.frame
    samples = len(frame.engines) + len(frame.gpus) + len(frame.gateways)
    return FrameHead(AgentId(frame.agent), PoolId(frame.pool), frame.backlog, samples)


def decode_input(offset: int, value: bytes | None) -> Input:
    """One record of the inputs. Never raises: what cannot be read is `Malformed`, with why."""
    if value is None:
        return Input(offset, 0, Malformed(reason="tombstone"))
    body = _read_body(value) if len(value) <= MAX_RECORD_BYTES else Malformed(reason=_TOO_LARGE)
    return Input(offset, zlib.crc32(value), body)


def _read_body(value: bytes) -> Body:
    try:
        record = pb.InputRecord.FromString(value)
    except DecodeError:
        return Malformed(reason="not an InputRecord")
    field = record.WhichOneof("body")
    if field is None:
        return Malformed(reason="unknown kind of input")
    try:
        return _READERS[field](getattr(record, field))
    except Rejected as error:
        pool = getattr(getattr(record, field), "pool", None)
        return Malformed(reason=f"{field}: {error}", pool=PoolId(pool) if pool else None)
