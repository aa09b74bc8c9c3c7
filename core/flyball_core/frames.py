"""Telemetry as it travels: one frame per node, pool and sampling tick.

Raw counters travel and readers derive rates, so that a reset survives. Missing is
`None`, never zero. Samples are named tuples because a controller reads hundreds of
their fields a millisecond; the numeric fields of each form its tail, in the order of
`ENGINE_NUMBERS` and `GPU_NUMBERS`, so that a reader can take them as one row.
"""

from enum import IntEnum
from typing import NamedTuple

from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, PoolId


class BandwidthSource(IntEnum):
    """Where an HBM bandwidth came from. NVML's `utilization.memory` is none of these."""

    NONE = 0
    GPM = 1
    DCGM = 2
    ENGINE_ESTIMATE = 3


class GpuSample(NamedTuple):
    """One GPU at one sampling tick. Units stand in the names; ratios are 0 to 1."""

    gpu_index: int
    """Its index on the node, as NVML counts."""
    uuid: str
    hbm_bandwidth_source: BandwidthSource
    throttle_reasons: int
    """NVML's clocks-event-reasons bit mask; 0 if none or unknown."""
    sm_busy_ratio: float | None = None
    memory_time_ratio: float | None = None
    """Share of *time* with any memory traffic (NVML `utilization.memory`): not bandwidth."""
    hbm_bandwidth_ratio: float | None = None
    """Share of the theoretical HBM bandwidth in use."""
    hbm_peak_bytes_per_s: float | None = None
    hbm_used_bytes: float | None = None
    hbm_total_bytes: float | None = None
    power_w: float | None = None
    energy_j_total: float | None = None
    temperature_c: float | None = None
    memory_temperature_c: float | None = None
    sm_clock_hz: float | None = None


GPU_NUMBERS = GpuSample._fields[4:]
"""Names of a GPU sample's numeric tail."""


class EngineSample(NamedTuple):
    """One engine (one data-parallel rank) at one sampling tick.

    Names ending in `_total`, `_sum` or `_count` are counters that only grow until the
    engine restarts; the others are gauges.
    """

    engine: EngineId
    incarnation: Incarnation
    rank: int
    gpus: tuple[int, ...]
    """Indices of the node's GPUs that the engine runs on."""
    variant: str
    requests_running: float | None = None
    requests_waiting: float | None = None
    kv_used_ratio: float | None = None
    kv_capacity_tokens: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    requests_finished_total: float | None = None
    preemptions_total: float | None = None
    ttft_s_sum: float | None = None
    ttft_count: float | None = None
    itl_s_sum: float | None = None
    """Inter-token latency; its mean over an interval is what Flyball calls TPOT."""
    itl_count: float | None = None
    queue_s_sum: float | None = None
    queue_count: float | None = None
    prefix_queried_tokens_total: float | None = None
    prefix_hit_tokens_total: float | None = None
    drafted_tokens_total: float | None = None
    accepted_tokens_total: float | None = None
    e2e_s_sum: float | None = None
    e2e_count: float | None = None
    steps_total: float | None = None
    step_s_total: float | None = None
    estimated_read_bytes_total: float | None = None
    estimated_flops_total: float | None = None


ENGINE_NUMBERS = EngineSample._fields[5:]
"""Names of an engine sample's numeric tail."""


class GatewaySample(NamedTuple):
    """One gateway's work for one pool and lane at one sampling tick."""

    gateway: GatewayId
    incarnation: Incarnation
    lane: str
    """Empty where the gateway does not tell lanes apart."""
    requests_queued: float | None = None
    requests_in_flight: float | None = None
    requests_total: float | None = None
    """Requests that arrived since the gateway's start."""
    queue_s_sum: float | None = None
    queue_count: float | None = None


GATEWAY_NUMBERS = GatewaySample._fields[3:]
"""Names of a gateway sample's numeric tail."""


class Frame(NamedTuple):
    """What one agent saw of one pool at one sampling tick.

    Identity is `(agent, boot, pool, seq)`: `seq` counts from 0 within a boot and pool
    without holes, so a reader can tell a lost frame from one never sent.
    """

    agent: AgentId
    boot: BootId
    pool: PoolId
    seq: int
    wall_s: float
    """The node's wall clock, Unix seconds: for display only."""
    monotonic_s: float
    """The node's monotonic clock: only differences within a boot mean anything."""
    backlog: bool
    """True for a frame sent from the spool after newer ones: filed, never decided on."""
    gpus: tuple[GpuSample, ...]
    engines: tuple[EngineSample, ...]
    gateways: tuple[GatewaySample, ...] = ()
