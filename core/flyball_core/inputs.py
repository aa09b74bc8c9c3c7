"""Everything that may change a pool's decisions: the inputs of `step`.

Each is one record of the topic `flyball.inputs`. The envelope `Input` carries the
record's offset, because versions are positions in the log.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from flyball_core.fencing import Version
from flyball_core.frames import Frame
from flyball_core.ids import Incarnation, LogId, OwnerId, PoolId
from flyball_core.knobs import KnobSpec, Setting, Value


class TargetKind(Enum):
    """What a directive or table is addressed to."""

    ENGINE = "engine"
    GATEWAY = "gateway"


class Mode(Enum):
    """How far a pool is governed."""

    OBSERVE = "observe"
    ADVISE = "advise"
    CONTROL = "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What bit-equal replay depends on; recorded in every claim."""

    flyball: str
    numpy: str
    river: str
    cpu: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An owner takes a partition; this record's offset becomes the epoch."""

    owner: OwnerId
    log_id: LogId
    fingerprint: Fingerprint
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The owner's beat: the only input at which anything is decided.

    `interval_s` is the owner's monotonic time since its previous tick (0 at its first).
    """

    epoch: int
    interval_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """An engine or gateway says what it holds and what it can do; `attached=False`: it left."""

    pool: PoolId
    kind: TargetKind
    target: str
    incarnation: Incarnation
    attached: bool = True
    capability_hash: str = ""
    knobs: tuple[KnobSpec, ...] = ()
    held: Version | None = None
    effective: Setting = field(default_factory=dict)
    ends: int | None = None
    """Of a farewell: the offset of the attach that it ends, so that one told late ends no later attach."""
    attempt: int = 0
    """Which of its incarnation's attaches this is, or that it ends, from 1; 0: the receiver does not count them."""


class AckStatus(Enum):
    """What became of a directive or table at its receiver."""

    APPLIED = "applied"
    PENDING_RESTART = "pending_restart"
    """Accepted; takes effect with the relaunch that the receiver now performs."""
    NACK = "nack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A receiver's answer: the version, what became of it, and the values read back."""

    pool: PoolId
    kind: TargetKind
    target: str
    incarnation: Incarnation
    version: Version
    status: AckStatus
    reason: str = ""
    effective: Setting = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideSet:
    """An operator pins a knob. `target` is an engine id, or empty for the whole pool."""

    pool: PoolId
    override_id: str
    target: str
    knob: str
    value: Value
    expires_wall_s: float
    reason: str
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideClear:
    """An operator lifts an override before its expiry."""

    pool: PoolId
    override_id: str
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """A policy document as its author wrote it; parsed and judged inside `step`."""

    pool: PoolId
    text: str
    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An operator's standing order; a field that is None leaves that order as it was.

    `reset_policy` names a quarantined policy to be allowed again.
    """

    pool: PoolId
    author: str
    reason: str = ""
    mode: Mode | None = None
    paused: bool | None = None
    reset_policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase:
    """An operator lets receivers that hold another log's version take this log's.

    `target` is an engine or gateway, or empty for all of the pool that hold another log's.
    """

    pool: PoolId
    target: str
    author: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """All standing orders of a pool at once, re-appended so that they outlive retention.

    `as_of` is the offset of the first input that they do not reflect: orders that came
    after it stand against this intent.
    """

    pool: PoolId
    policy_text: str
    policy_author: str
    mode: Mode
    paused: bool
    overrides: tuple[OverrideSet, ...] = ()
    as_of: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the fleet's step allows a pool: a named allowance until a wall time."""

    pool: PoolId
    name: str
    amount: float
    expires_wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One policy's wish: this knob of this target at this value, and why.

    `propensity` is the probability of a randomised choice (1 for a deterministic one).
    """

    policy: str
    kind: TargetKind
    target: str
    knob: str
    value: Value
    reason: str
    propensity: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowProposal:
    """What a policy outside `step` answered to the snapshot of a tick, or that it missed it."""

    pool: PoolId
    policy: str
    tick_revision: int
    missed: str = ""
    """Why nothing came (deadline, error); empty if the proposals count."""
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A record that could not be read: counted, never an exception."""

    reason: str
    pool: PoolId | None = None


Body = (
    Frame
    | Claim
    | Tick
    | Attach
    | Ack
    | OverrideSet
    | OverrideClear
    | PolicyText
    | Order
    | Rebase
    | Intent
    | Grant
    | SlowProposal
    | Malformed
)


class Input(NamedTuple):
    """One record of the inputs: its offset, the CRC-32 of its bytes, and what it says."""

    offset: int
    checksum: int
    body: Body
