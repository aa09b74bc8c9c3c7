"""A scenario as data, whatever wrote it. It refuses to know who governs, and to draw anything by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import LaneRule
from flyball_twin.fleet.faults import Fault
from flyball_twin.fleet.scoring import Phase, Slo


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine before it is built. Names are those of the registries in `flyball_twin.physics`."""

    engine: EngineId
    gpu: str
    model: str
    variant: str
    backend: str = "vllm"
    tensor_parallel: int = 1
    expert_parallel: int = 1
    weights: str = "bf16"
    """Precision of the weights: `bf16`, `fp8`, `fp8_block`, `int4`, `mxfp4`."""
    kv_cache: str = "bf16"
    """Precision of the KV cache: `bf16`, `fp8`."""
    node: str = ""
    """The node whose agent sees it; engines of one node share an agent."""
    max_active_requests: int = 256
    max_batched_tokens: int = 8192
    memory_share: float = 0.9
    prefix_cache: bool = False
    priority: bool = False
    """Whether the engine schedules by priority, as vLLM's `--scheduling-policy priority`."""
    draft_tokens: int = 0
    """Tokens a draft proposes per step; 0 is no speculation."""
    draft_acceptance: float = 0.0
    """Chance that a proposed token is accepted, given that those before it were."""
    cold_start_s: float = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """Engines that serve one model, and how the gateway serves them."""

    pool: PoolId
    engines: tuple[EnginePlan, ...]
    lanes: tuple[LaneRule, ...]
    balance: str = "leastconn"
    """`leastconn`, `roundrobin`, `random(n)` (the least loaded of n engines drawn by weight) or `hash` (by session)."""
    timeouts_s: Mapping[str, float] = field(default_factory=dict)
    """By lane, how long a request waits at the gateway at most; a lane that is not there waits for good."""
    policy: str = ""
    """Text of its policy document; empty: nothing is ordered, and the pool is in `observe`."""
    policy_source: str = ""
    """Where that text came from, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSource:
    """Stretches of a recorded trace, played one after another and over again if `repeat`."""

    trace: str
    """A bundled trace by name, or a file beside the scenario (`.parquet`, `.csv`, `.csv.gz`)."""
    from_s: float = 0.0
    to_s: float = float("inf")
    speed: float = 1.0
    keep: float = 1.0
    """Share of its requests that is kept, evenly spread."""
    splice_s: float | None = None
    """Play stretches of this length, on the trace's clock, from random points without end; None: as recorded."""
    repeat: bool = False
    """Begin again where it ends; what is spliced never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MmppSource:
    """A Markov-modulated Poisson process: the rate jumps between states that last exponentially long."""

    rates_rps: tuple[float, ...]
    mean_stay_s: tuple[float, ...]
    prompt_tokens: tuple[float, float]
    output_tokens: tuple[float, float]
    """Median, and the standard deviation of the logarithm (log-normal), in tokens."""
    longest_tokens: int = 120_000
    """Prompt and answer together are cut off here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiurnalSource:
    """A Poisson process whose rate swings over a day: mean x (1 + swing x sin(2 pi (t - shift) / period))."""

    mean_rps: float
    swing: float
    period_s: float
    shift_s: float
    prompt_tokens: tuple[float, float]
    output_tokens: tuple[float, float]
    longest_tokens: int = 120_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSource:
    """Agentic sessions: chains in which each step waits for the one before, thinks, and shares its prefix."""

    sessions_per_s: float
    trace: str = ""
    """A trace with sessions to draw them from; empty: drawn by the numbers below."""
    steps: tuple[float, float] = (12.0, 0.8)
    first_prompt_tokens: tuple[float, float] = (20_000.0, 0.6)
    added_tokens: tuple[float, float] = (900.0, 1.0)
    """What a step adds to the prompt of the one before, beside its answer."""
    output_tokens: tuple[float, float] = (220.0, 0.8)
    think_s: tuple[float, float] = (3.0, 1.2)
    """Each: median, and the standard deviation of the logarithm (log-normal)."""
    opening_tokens: int = 0
    """Leading tokens that all sessions share (system and tools); a trace brings its own."""
    longest_tokens: int = 120_000
    """A session ends where prompt and answer together would be longer."""


Source = TraceSource | MmppSource | DiurnalSource | SessionSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One source of requests, when it plays, and where its requests go."""

    source: Source
    from_s: float
    to_s: float
    pools: Mapping[PoolId, float]
    lanes: Mapping[str, float]
    """Shares; each request (each session, where there are sessions) draws its pool and lane by the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that makes a run but for its seed. Times are seconds of virtual time."""

    name: str
    title: str
    pools: tuple[PoolPlan, ...]
    slos: tuple[Slo, ...]
    streams: tuple[Stream, ...]
    faults: tuple[Fault, ...]
    phases: tuple[Phase, ...]
    seeds: tuple[int, ...]
    duration_s: float
    """How long requests arrive."""
    grace_s: float = 60.0
    """How long after that requests may still finish; what has not by then is missed."""
    beat_s: float = 1.0
    """How often agents sample and the owner ticks: `agent.period` and `controller.tick` in one."""
    compare: bool = True
    """Whether an ungoverned fleet of the same engines serves the same requests beside it."""
    folder: Path = Path()
    """Where the document lies; relative names are looked for there."""

    @property
    def end_s(self) -> float:
        """When the run is over."""
        return self.duration_s + self.grace_s
