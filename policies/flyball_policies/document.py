"""The policy document: what an operator declares for a pool, as frozen dataclasses.

Times are in seconds and shares are 0 to 1 here; in the document they carry their units
("50ms", "8%"). Parsing is `flyball_policies.reading.read_document`; this module only
says what there is and what holds when it is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flyball_core.inputs import Mode

REGIMES = (
    "idle",
    "interactive",
    "prefill_heavy",
    "long_context",
    "agentic",
    "bulk",
    "kv_thrash",
    "degraded",
    "unknown",
)
"""The names a regime can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A class of work with its own objectives; an objective that is None is not asked for."""

    name: str
    priority: int = 0
    """Lower goes first in the gateway's queue."""
    ttft_s: float | None = None
    tpot_s: float | None = None
    end_to_end_s: float | None = None
    longest_wait_s: float = 60.0
    """A request that has waited this long goes before any priority."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobRule:
    """The operator's bounds for one knob, inside what the engine itself allows."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapsRule:
    """How the AIMD policy moves token budget and batch cap."""

    tpot_target: float = 0.9
    """Share of the tightest lane's TPOT objective to stay under."""
    ttft_target: float = 0.5
    """Share of the tightest lane's TTFT objective that waiting may take; beyond it nothing is cut for TPOT."""
    kv_headroom: float = 0.10
    """Share of the KV cache to keep free."""
    backoff: float = 0.8
    """Factor on a cap when an objective is missed."""
    step: int = 4
    """Requests added to a batch cap that binds while there is room."""
    token_step: int = 256
    """Tokens added to a token budget while prompts wait and there is room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRule:
    """Bounds and pace of routing weights (HAProxy's scale, 0 to 256)."""

    minimum: int = 8
    maximum: int = 256
    nominal: int = 128
    """The weight of an engine as fast as its peers."""
    period_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantsRule:
    """Which variant suits which regime, and how to get there."""

    regimes: Mapping[str, str] = field(default_factory=dict)
    preference: float = 0.5
    """Weight factor of engines whose variant does not suit the regime."""
    relaunch: tuple[str, ...] = ()
    """Regimes for which engines may be drained and relaunched in the variant that suits."""
    keep: int = 1
    """Engines that always stay in each other variant."""
    settle_s: float = 60.0
    """How long a regime must last before an engine is relaunched for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardRule:
    """The rails. Nothing a policy proposes leaves them."""

    dead_band: float = 0.08
    """Relative changes smaller than this are not worth making."""
    slew_up: float = 1.5
    slew_down: float = 0.6
    """Largest factors a second on a live or routing knob."""
    raise_dwell_s: float = 30.0
    """Least time between two raises of risk of one knob; backing off is always allowed."""
    restart_dwell_s: float = 600.0
    """Least time between two restarts of one engine."""
    changes_per_hour: int = 240
    """Budget of raises of all live knobs of the pool together; restarts count tenfold."""
    in_change: float = 0.10
    """Largest share of the pool in a restart at once; one engine is always allowed."""
    min_serving: float = 0.5
    """Least share of the pool that must be serving while an engine is away."""
    canary_s: float = 60.0
    """How long a relaunched engine is watched before the next may follow."""
    canary_tolerance: float = 0.02
    """How much worse than its peers a canary may be."""
    drain_timeout_s: float = 120.0
    relaunch_timeout_s: float = 300.0
    stale_ticks: int = 3
    """Ticks without telemetry after which nothing may raise risk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDocument:
    """Everything an operator declares for a pool."""

    mode: Mode = Mode.ADVISE
    pools: tuple[str, ...] = ()
    """The pools that `flyball policy apply` gives this document to; empty: all."""
    lanes: tuple[Lane, ...] = ()
    knobs: Mapping[str, KnobRule] = field(default_factory=dict)
    caps: CapsRule = CapsRule()
    weights: WeightsRule = WeightsRule()
    variants: VariantsRule = VariantsRule()
    guard: GuardRule = GuardRule()
    hold_s: float = 1800.0
    """How long receivers hold the last setting when nobody governs."""

    @property
    def tpot_objective_s(self) -> float | None:
        """The tightest TPOT objective of any lane."""
        return min((lane.tpot_s for lane in self.lanes if lane.tpot_s is not None), default=None)

    @property
    def ttft_objective_s(self) -> float | None:
        """The tightest TTFT objective of any lane."""
        return min((lane.ttft_s for lane in self.lanes if lane.ttft_s is not None), default=None)
