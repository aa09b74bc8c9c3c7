"""The state of the machine: plain data, exportable without pickle.

One `PartitionState` per partition of the inputs, with the pools whose key falls there.
Only the modules of this package change it, and only inside `step`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flyball_controller.machine.sequences import SequenceSet
from flyball_core.fencing import Version
from flyball_core.frames import GatewaySample
from flyball_core.ids import LogId
from flyball_core.inputs import Mode, OverrideSet, Proposal, TargetKind
from flyball_core.knobs import KnobSpec, Value
from flyball_core.outputs import DecisionRecord, Directive, RebaseNotice, RoutingTable

SERVING = "serving"
DRAINING = "draining"
RELAUNCHING = "relaunching"
WARMING = "warming"

Row = tuple[float | None, ...]
"""The leading numbers of an engine sample that features read."""

UNKNOWN_SKEW_S = 1e18
"""Stands for a skew that no frame has shown yet."""


class Reading(NamedTuple):
    """What a tick needs of one engine in a frame, its data-parallel ranks taken together."""

    engine: str
    source: str
    """Its incarnation, and of several ranks which they are."""
    ranks: int
    variant: str
    row: Row
    hbm_ratio: float | None


class FiledFrame(NamedTuple):
    """What a tick needs of a frame. Frames wait for some ticks, and this is a third of one."""

    monotonic_s: float
    readings: tuple[Reading, ...]
    queues: tuple[GatewaySample, ...]


class ClockReading(NamedTuple):
    """What an agent's clocks showed when it made a frame."""

    seq: int
    wall_s: float
    monotonic_s: float


@dataclass(slots=True)
class BootState:
    """One life of an agent, as far as its frames came."""

    seen: SequenceSet = field(default_factory=SequenceSet)
    cursor: int = -1
    """Highest sequence number that features have been computed from."""
    skew_s: float = UNKNOWN_SKEW_S
    """The machine's time less the agent's at the quickest frame since skews were last renewed."""
    skew_before_s: float = UNKNOWN_SKEW_S
    """The same of the stretch of ticks before, so that a clock that fell back is believed in time."""
    pending: dict[int, FiledFrame] = field(default_factory=dict)
    newest: ClockReading | None = None
    """Of the newest live frame."""
    looked_at: ClockReading | None = None
    """Of the one that was the newest at the last tick that found another."""


@dataclass(slots=True)
class AgentState:
    """One agent: its present boot and a few earlier ones, so that their frames are known again."""

    boot: str
    boots: dict[str, BootState] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    """Boots from before those: known by name only, so that nothing of them is taken for new."""
    clock_fault: str = ""
    """What kind of fault its clocks have; empty if none."""
    clock: str = ""
    """The same in words."""
    clock_told: dict[str, int] = field(default_factory=dict)
    """At which tick an alarm told of each kind last."""


@dataclass(slots=True)
class Holding:
    """What one receiver was told, what it answered, and what stands between."""

    version: Version | None = None
    """Of the last directive or table published to it."""
    key: str = ""
    """The compacted key under which that is kept."""
    decision: str = ""
    acked: Version | None = None
    effective: dict[str, Value] = field(default_factory=dict)
    published_s: float = 0.0
    must_publish: bool = False
    not_before_s: float = 0.0
    backoff_s: float = 0.0
    nack: str = ""
    """The reason of the last refusal, until a later version is acknowledged."""
    diverged: str = ""
    """What it acknowledged but does not hold, until it does."""
    foreign_log: str = ""
    """The other log whose version it holds: it takes nothing of ours until a rebase."""


@dataclass(slots=True)
class Displaced:
    """An incarnation that had not left when another came: it stands again if that one's attach proves a late one."""

    incarnation: str
    offset: int
    attempt: int
    since_s: float
    capability_hash: str
    knobs: dict[str, KnobSpec]
    left: bool = False
    """Whether it has said farewell since."""


@dataclass(slots=True)
class EngineState:
    """One engine: what it is, what it measured, what it is wanted to hold."""

    engine: str
    incarnation: str = ""
    variant: str = ""
    attached: bool = False
    attach_offset: int = -1
    """Of the last attach; a farewell to an earlier one is late."""
    attach_attempt: int = 0
    """Which of its incarnation's attaches that was; 0: it does not count them."""
    before: list[str] = field(default_factory=list)
    """Its last few incarnations: none of them comes back while its successor is attached."""
    displaced: Displaced | None = None
    capability_hash: str = ""
    knobs: dict[str, KnobSpec] = field(default_factory=dict)
    phase: str = SERVING
    # telemetry
    agent: str = ""
    """The agent whose samples of it are taken; while they are fresh, no other's are. Empty: nobody's yet."""
    source: str = ""
    """Agent, boot and incarnation that the row came from: rates never span two sources."""
    row: Row | None = None
    row_monotonic_s: float = 0.0
    row_tick: int = -(10**9)
    earlier_row: Row | None = None
    earlier_monotonic_s: float = 0.0
    hbm_ratio: float | None = None
    smooth: list[float] = field(default_factory=list)
    slow_ticks: int = 0
    silent: bool = False
    """Whether an alarm has told that its telemetry is too old."""
    degraded: bool = False
    # settings
    wanted: dict[str, Value] = field(default_factory=dict)
    before_pin: dict[str, Value] = field(default_factory=dict)
    """What a pinned knob was wanted at before: where it goes back to, unless a policy moves it first."""
    weight: int = 0
    """Routing weight; 0 until the first tick that knows the engine."""
    changed_s: dict[str, float] = field(default_factory=dict)
    raised_s: dict[str, float] = field(default_factory=dict)
    restarted_s: float = -1e18
    gone_s: float | None = None
    holding: Holding = field(default_factory=Holding)
    published: Directive | None = None


@dataclass(slots=True)
class QueueState:
    """What one gateway last measured of one lane's work, and the measurement before that."""

    source: str
    row: Row
    row_monotonic_s: float
    row_tick: int
    earlier_row: Row | None = None
    earlier_monotonic_s: float = 0.0
    agent: str = ""
    """The agent whose samples of it are taken, as of an engine's."""


@dataclass(slots=True)
class GatewayState:
    """One gateway in front of the pool."""

    gateway: str
    incarnation: str = ""
    attached: bool = False
    attach_offset: int = -1
    attach_attempt: int = 0
    before: list[str] = field(default_factory=list)
    displaced: Displaced | None = None
    gone_s: float | None = None
    holding: Holding = field(default_factory=Holding)
    published: RoutingTable | None = None


@dataclass(slots=True)
class Relaunch:
    """One engine on its way into another variant, or back."""

    engine: str
    variant: str
    before: str
    phase: str
    since_s: float
    decision: str
    ends: str = ""
    """The incarnation that the restart ends."""
    rollback: bool = False


@dataclass(slots=True)
class Canary:
    """A freshly relaunched engine under watch; nothing else restarts meanwhile."""

    engine: str
    variant: str
    before: str
    until_s: float
    decision: str


@dataclass(slots=True)
class RegimeState:
    """The regime in force and the one that knocks at the door."""

    name: str = "unknown"
    since_s: float = 0.0
    confidence: float = 0.0
    candidate: str = "unknown"
    candidate_ticks: int = 0
    agreement: float = 0.0


@dataclass(slots=True)
class OutcomeDue:
    """A decision whose effect is to be recorded."""

    decision: str
    due_s: float
    summary: str
    features: dict[str, float]


@dataclass(slots=True)
class PoolState:
    """Everything known and wanted of one pool."""

    pool: str
    # standing orders
    mode: Mode = Mode.OBSERVE
    paused: bool = False
    policy_text: str = ""
    policy_author: str = ""
    overrides: dict[str, OverrideSet] = field(default_factory=dict)
    """By id, in the order of their setting: of equals the last one holds."""
    orders_end: int = 0
    """The offset after the last order; an intent that reflects less is out of date."""
    grants: dict[str, tuple[float, float]] = field(default_factory=dict)
    # parts
    agents: dict[str, AgentState] = field(default_factory=dict)
    engines: dict[str, EngineState] = field(default_factory=dict)
    gateways: dict[str, GatewayState] = field(default_factory=dict)
    queues: dict[str, QueueState] = field(default_factory=dict)
    """By gateway and lane."""
    counts: dict[str, int] = field(default_factory=dict)
    # what the tick keeps
    tick: int = 0
    beat_key: str = ""
    """The compacted key of the last heartbeat."""
    features: dict[str, float] = field(default_factory=dict)
    regime: RegimeState = field(default_factory=RegimeState)
    detector: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    trips: dict[str, int] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    slow: dict[str, list[Proposal]] = field(default_factory=dict)
    slow_revision: int = -1
    """Revision of the last snapshot given out; only answers to it count."""
    slow_due: list[str] = field(default_factory=list)
    """The policies that have not answered it; each answers once."""
    raises_s: list[float] = field(default_factory=list)
    relaunches: list[Relaunch] = field(default_factory=list)
    canary: Canary | None = None
    barred: dict[str, float] = field(default_factory=dict)
    """Variants whose canary failed, until when they are not tried again."""
    stopped: dict[str, str] = field(default_factory=dict)
    """What the guard last stopped, per target and knob, so that it is recorded once."""
    outcomes: list[OutcomeDue] = field(default_factory=list)
    rebases: list[RebaseNotice] = field(default_factory=list)
    """Notices of rebases ordered since the last tick; published at the next."""
    rebase_key: str = ""
    """The compacted key of the last notice."""
    notes: list[DecisionRecord] = field(default_factory=list)
    """Records that inputs since the last tick gave rise to; published at the next tick."""

    def count(self, what: str, number: int = 1) -> None:
        """Add to a counter."""
        self.counts[what] = self.counts.get(what, 0) + number

    def holding(self, kind: TargetKind, target: str) -> Holding | None:
        """The holding of an engine or gateway, if it is known."""
        found: Mapping[str, EngineState | GatewayState]
        found = self.engines if kind is TargetKind.ENGINE else self.gateways
        state = found.get(target)
        return state.holding if state is not None else None


@dataclass(slots=True)
class PartitionState:
    """The machine's whole state for one partition of one log."""

    log_id: LogId
    partition: int
    epoch: int = -1
    """Offset of the claim in force; -1 before any."""
    owner: str = ""
    first_tick_done: bool = False
    time_s: float = 0.0
    """The machine's time: the sum of tick intervals."""
    wall_s: float = 0.0
    wall_before_s: float = 0.0
    """The same of the tick before."""
    digest: int = 0
    """CRC-32 chained over all inputs so far."""
    ticks: int = 0
    claims: list[tuple[float, str]] = field(default_factory=list)
    """The last claims: the machine's time and the owner."""
    contended: bool = False
    """Whether an alarm has told that they come too often."""
    counts: dict[str, int] = field(default_factory=dict)
    pools: dict[str, PoolState] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """Add to a counter of what concerns no pool."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def version(self, revision: int) -> Version:
        """The version of what is decided at this input under the claim in force; epoch 0 before any."""
        return Version(log_id=self.log_id, partition=self.partition, epoch=max(self.epoch, 0), revision=revision)
