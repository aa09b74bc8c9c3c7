"""Everything `step` can answer. Publishing any of these twice is harmless."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, PoolId
from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import Setting, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """The setting one engine should hold.

    `incarnation` is empty for live knobs; for a restart it names the incarnation that
    the restart ends, so that a late copy cannot restart the next one.
    """

    pool: PoolId
    engine: EngineId
    incarnation: Incarnation
    capability_hash: str
    version: Version
    values: Setting
    decision: str
    """Id of the decision record with the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One engine's place in a routing table: HAProxy's weight (0-256) and in-flight cap (0: none)."""

    engine: EngineId
    weight: int
    in_flight_cap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRule:
    """One lane's place in the gateway's queue: lower `priority` goes first."""

    lane: str
    priority: int
    max_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """How one gateway should spread one pool's work; caps are this gateway's share."""

    pool: PoolId
    gateway: GatewayId
    version: Version
    routes: tuple[Route, ...]
    lanes: tuple[LaneRule, ...]
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The owner's `step` is alive as of this tick; pushers renew leases only this far."""

    pool: PoolId
    version: Version
    time_s: float
    wall_s: float
    hold_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RebaseNotice:
    """An audited permission: receivers that hold another log's version may take this log's.

    `target` is an engine or gateway, or empty for all of the pool. It counts until the pool's
    heartbeats carry a wall time past `expires_wall_s`.
    """

    pool: PoolId
    target: str
    version: Version
    author: str
    expires_wall_s: float


def compacted_key(output: Directive | RoutingTable | Heartbeat | RebaseNotice) -> str:
    """The key under which a compacted topic keeps this output.

    It carries the epoch: compaction keeps the last record of a key, and a frozen owner's last
    must not displace its successor's.
    """
    if isinstance(output, Directive):
        return f"directive/{output.pool}/{output.engine}/{output.version.epoch}"
    if isinstance(output, RoutingTable):
        return f"table/{output.pool}/{output.gateway}/{output.version.epoch}"
    if isinstance(output, RebaseNotice):
        return f"rebase/{output.pool}/{output.version.epoch}"
    return f"heartbeat/{output.pool}/{output.version.epoch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A compacted key of an older epoch, or of a target that is gone, has no record any more."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the guard made of a proposal: `allowed` is what may be published, None if nothing."""

    proposal: Proposal
    before: Value | None
    allowed: Value | None
    rule: str
    """The rule that decided: "accepted", "bounds", "slew", "dwell", "budget", "override", …"""
    reason: str


class RecordKind(Enum):
    """What a decision record tells of."""

    DECISION = "decision"
    ACK = "ack"
    OUTCOME = "outcome"
    ORDER = "order"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One entry of the audit: what was seen, proposed, stopped, published and why.

    `decision` is its id for DECISION and the id it follows for ACK and OUTCOME.
    """

    pool: PoolId
    kind: RecordKind
    version: Version
    decision: str
    time_s: float
    wall_s: float
    mode: str
    regime: str
    confidence: float
    summary: str
    target_kind: TargetKind | None = None
    target: str = ""
    features: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    published: tuple[str, ...] = ()
    """Compacted keys that this decision wrote."""
    effective: Setting = field(default_factory=dict)
    refused: bool = False
    """Of an ORDER: it was not followed, and `summary` says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickRecord:
    """One line per pool and tick: enough to draw a timeline and to find a first difference.

    `inputs_digest` is the CRC-32 chained over every input record of the partition so far,
    so replay notices any changed bit at the next tick.
    """

    pool: PoolId
    version: Version
    time_s: float
    wall_s: float
    inputs_digest: int
    mode: str
    regime: str
    confidence: float
    alarm: bool
    features: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a policy outside `step` may work on; its answer comes back as a `SlowProposal`."""

    pool: PoolId
    tick_revision: int
    policies: tuple[str, ...]
    view: object
    """A `PoolView` of `flyball_policies.seam`; it never leaves the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDue:
    """The state as of this tick is fit to be exported; the shell may store it."""

    revision: int


Output = (
    Directive
    | RoutingTable
    | Heartbeat
    | RebaseNotice
    | Tombstone
    | DecisionRecord
    | TickRecord
    | Snapshot
    | CheckpointDue
)
