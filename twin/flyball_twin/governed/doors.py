"""The simulated fleet through the doors that real engines and gateways have.

Thin on purpose: agents, receivers and samplers cannot tell these from the real thing.
They refuse to show anything that a real fleet would not (no clairvoyant bandwidth factor,
no future arrivals), and what an engine does not count is None, not zero. The GPUs of one engine
are alike, as tensor parallel ranks in lockstep are.
"""

from flyball_agents.gateway_adapter import GatewayReading, LanePlace
from flyball_core.frames import BandwidthSource, EngineSample, GatewaySample, GpuSample
from flyball_core.ids import EngineId, GatewayId, Incarnation, PoolId
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_twin.engine.engine import Engine
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.physics import BLOCK_TOKENS

HARDWARE_SLOWDOWN = 0x8
"""NVML's `nvmlClocksEventReasonHwSlowdown`: what a GPU says that runs below its clock because it is too hot."""


class EngineDoor:
    """`EngineControls` of one engine. It outlives restarts; `ready` and `incarnation` say where it stands."""

    def __init__(self, fleet: Fleet, engine: EngineId) -> None:
        self._fleet = fleet
        self._engine = fleet.engines[engine]

    @property
    def ready(self) -> bool:
        """Whether the engine runs; while it relaunches nothing of it can be reached."""
        return self._engine.ready

    @property
    def incarnation(self) -> Incarnation:
        """The incarnation that runs, or ran last."""
        return self._engine.incarnation

    def knobs(self) -> tuple[KnobSpec, ...]:
        """Its knobs."""
        return self._engine.knobs()

    def read(self) -> Setting:
        """The effective values."""
        return self._engine.settings()

    def set(self, name: str, value: Value) -> None:
        """Set a live knob. Raises `Rejected` for another knob or value."""
        self._engine.set_live(name, value)

    def restart(self, values: Setting) -> None:
        """Relaunch now; what still runs is retried elsewhere. Raises `Rejected` for what cannot be."""
        self._fleet.restart(self._engine.id, values)


class GatewayDoor:
    """`GatewayControls` of one pool of a fleet's gateway; a change that makes room is used at once."""

    def __init__(self, fleet: Fleet, pool: PoolId) -> None:
        self._fleet = fleet
        self._gateway = fleet.pools[pool].gateway

    def read(self) -> GatewayReading:
        """The effective table."""
        gateway = self._gateway
        rules = [gateway.rule(lane) for lane in gateway.lanes]
        return GatewayReading(
            weights={engine: gateway.weight(engine) for engine in gateway.engines},
            caps={engine: gateway.cap(engine) for engine in gateway.engines},
            lanes={rule.lane: LanePlace(rule.priority, rule.max_wait_s) for rule in rules},
        )

    def set_weight(self, engine: str, weight: int) -> None:
        """Set a weight. Raises `Rejected` as `Gateway.set_weight`."""
        self._gateway.set_weight(EngineId(engine), weight)
        self._fleet.forward()

    def set_cap(self, engine: str, cap: int) -> None:
        """Set an in-flight cap. Raises `Rejected` as `Gateway.set_cap`."""
        self._gateway.set_cap(EngineId(engine), cap)
        self._fleet.forward()

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Set a lane's rule. Raises `Rejected` as `Gateway.set_lane`."""
        self._gateway.set_lane(lane, priority, max_wait_s)


class Probe:
    """What a node agent can read of one engine and its GPUs, which share its work evenly."""

    def __init__(self, engine: Engine, gpus: tuple[int, ...]) -> None:
        """`gpus` are their indices on the node."""
        self._engine = engine
        self._gpus = gpus
        self._last_s: float | None = None
        self._read_bytes = self._busy_s = 0.0

    def sample(self, now_s: float) -> tuple[tuple[GpuSample, ...], EngineSample | None]:
        """GPUs and engine now; ratios are over the time since the last call, None at the first.

        There is no engine sample while the engine relaunches: its metrics cannot be reached.
        """
        return self._sample_gpus(now_s), self._sample_engine() if self._engine.ready else None

    def _sample_gpus(self, now_s: float) -> tuple[GpuSample, ...]:
        engine, gpu = self._engine, self._engine.model.gpu
        read_bytes, busy_s = engine.read_bytes_by(now_s), engine.busy_by(now_s)
        bandwidth: float | None = None
        busy: float | None = None
        if self._last_s is not None and now_s > self._last_s:
            elapsed_s = now_s - self._last_s
            bandwidth = (read_bytes - self._read_bytes) / (elapsed_s * gpu.hbm_bytes_per_s)
            # Summed up from steps, so it may exceed 1 by a rounding error.
            busy = min(1.0, (busy_s - self._busy_s) / elapsed_s)
        self._last_s, self._read_bytes, self._busy_s = now_s, read_bytes, busy_s
        first = GpuSample(
            gpu_index=self._gpus[0],
            uuid=f"GPU-{engine.id}",
            hbm_bandwidth_source=BandwidthSource.NONE if bandwidth is None else BandwidthSource.GPM,
            throttle_reasons=HARDWARE_SLOWDOWN if engine.condition.clock < 1.0 else 0,
            sm_busy_ratio=busy,
            # Every kernel of a step touches memory, so the two shares of time are one.
            memory_time_ratio=busy,
            hbm_bandwidth_ratio=bandwidth,
            hbm_peak_bytes_per_s=gpu.hbm_bytes_per_s,
            hbm_used_bytes=gpu.hbm_bytes * engine.model.memory_share if engine.ready else None,
            hbm_total_bytes=gpu.hbm_bytes,
        )
        others = (first._replace(gpu_index=index, uuid=f"GPU-{engine.id}-{index}") for index in self._gpus[1:])
        return first, *others

    def _sample_engine(self) -> EngineSample:
        engine, counters, batch = self._engine, self._engine.counters, self._engine.batch
        cached, drafted = engine.scheduling.prefix_cache, engine.model.draft_tokens > 0
        return EngineSample(
            engine=engine.id,
            incarnation=engine.incarnation,
            rank=0,
            gpus=self._gpus,
            variant=engine.variant,
            requests_running=batch.running,
            requests_waiting=len(batch.waiting),
            kv_used_ratio=batch.kv.used / batch.kv.capacity,
            kv_capacity_tokens=batch.kv.capacity * BLOCK_TOKENS,
            prompt_tokens_total=counters.prompt_tokens,
            generation_tokens_total=counters.generation_tokens,
            requests_finished_total=counters.requests_finished,
            preemptions_total=counters.preemptions,
            ttft_s_sum=counters.ttft_s_sum,
            ttft_count=counters.ttft_count,
            itl_s_sum=counters.itl_s_sum,
            itl_count=counters.itl_count,
            queue_s_sum=counters.queue_s_sum,
            queue_count=counters.queue_count,
            prefix_queried_tokens_total=counters.prefix_queries if cached else None,
            prefix_hit_tokens_total=counters.prefix_hits if cached else None,
            drafted_tokens_total=counters.draft_tokens if drafted else None,
            accepted_tokens_total=counters.accepted_tokens if drafted else None,
            e2e_s_sum=counters.e2e_s_sum,
            e2e_count=counters.e2e_count,
            steps_total=counters.steps,
            step_s_total=counters.step_s,
            estimated_read_bytes_total=counters.read_bytes,
            estimated_flops_total=counters.flops,
        )


class GatewayProbe:
    """What a node agent can read of a gateway, as from HAProxy's statistics."""

    def __init__(self, gateway: Gateway, name: GatewayId) -> None:
        self._gateway = gateway
        self._name = name

    def sample(self) -> GatewaySample:
        """The gateway now; it does not tell lanes apart, nor how long requests waited."""
        gateway = self._gateway
        return GatewaySample(
            gateway=self._name,
            incarnation=Incarnation(f"{self._name}-1"),
            lane="",
            requests_queued=gateway.queued,
            requests_in_flight=sum(gateway.in_flight(engine) for engine in gateway.engines),
            requests_total=gateway.entered,
        )
