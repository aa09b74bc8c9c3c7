"""Filing frames: validate, tell duplicates from late ones, keep until a tick is due.

Frames are filed, ticks decide. A frame waits out a lateness window in the order of its
sequence number, so that those that overtook each other on the way are read in order;
one that comes after its place was read counts as `late`, a kind of delivered.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import cast

from flyball_controller.machine.admission import MAX_NAME, Room
from flyball_controller.machine.state import (
    UNKNOWN_SKEW_S,
    AgentState,
    BootState,
    ClockReading,
    EngineState,
    FiledFrame,
    PoolState,
    QueueState,
    Reading,
    Row,
)
from flyball_core.frames import EngineSample, Frame, GatewaySample, GpuSample

LATENESS_S = 2.0
"""How long a frame waits for those before it. At a tick of 1 s, a frame may be one tick late."""

SKEW_TICKS = 60
"""How often the skews of agents' clocks are renewed; an older skew than twice this is not used."""

HIGHEST_RATIO = 1.05
"""A share above this is damage; up to here it is the rounding of whoever measured it."""

ABSURD = 1e24
"""No counter or gauge of ours reaches this in decades, an engine's operations included (some 1e15 a second)."""

FURTHEST_S = 1e18
"""No clock counts as far."""

MAX_BOOTS = 8
MAX_ENDED_BOOTS = 256
MAX_AGENTS = 10_000
MAX_ENGINES = 4_096
MAX_QUEUES = 1_024
MAX_PENDING = 256
MAX_ENGINES_OF_ONE = 1_024
"""Engines of a pool that one agent may bring in, and engine samples that are read of one frame."""
MAX_QUEUES_OF_ONE = 64
"""Queues, each of a gateway and a lane, that one agent may bring in, and that are read of one frame."""
KEPT_TICKS = 10
"""An engine or a queue is its agent's while that agent's last sample is no older."""
MAX_SAMPLES = 4_096
"""Samples of one frame, of all kinds together. A node has some hundreds."""

CORE = 14
"""How many of an engine sample's leading numbers features read."""

_ENGINE_TAIL = 5
_GPU_TAIL = 4
_engine_numbers: Callable[[EngineSample], Row] = itemgetter(slice(_ENGINE_TAIL, None))
_engine_core: Callable[[EngineSample], Row] = itemgetter(slice(_ENGINE_TAIL, _ENGINE_TAIL + CORE))
_gateway_numbers: Callable[[GatewaySample], Row] = itemgetter(slice(3, None))
_gpu_numbers: Callable[[GpuSample], Row] = itemgetter(slice(_GPU_TAIL, None))
_gpu_ratios: Callable[[GpuSample], Row] = itemgetter(slice(_GPU_TAIL, _GPU_TAIL + 3))
_KV_USED = EngineSample._fields.index("kv_used_ratio")
_kv_used: Callable[[EngineSample], float | None] = itemgetter(_KV_USED)
_engine_identity: Callable[[EngineSample], tuple[str, str]] = itemgetter(slice(0, 2))
_gateway_identity: Callable[[GatewaySample], tuple[str, str]] = itemgetter(slice(0, 2))
_variant: Callable[[EngineSample], str] = itemgetter(EngineSample._fields.index("variant"))
_lane: Callable[[GatewaySample], str] = itemgetter(GatewaySample._fields.index("lane"))


def file_frame(pool: PoolState, frame: Frame, now_s: float) -> None:
    """Count a frame as delivered, duplicate, late or rejected, and keep it if a tick may read it."""
    counts = pool.counts
    if fault := _frame_fault(frame):
        pool.count("rejected")
        pool.count(f"rejected_{fault}")
        return
    agent = pool.agents.get(frame.agent)
    if agent is None:
        if len(pool.agents) >= MAX_AGENTS or not 0 < len(frame.agent) <= MAX_NAME:
            pool.count("rejected")
            pool.count("rejected_agent")
            return
        agent = pool.agents[frame.agent] = AgentState(boot="")
    boot = agent.boots.get(frame.boot)
    if boot is None:
        if frame.boot in agent.ended:
            pool.count("rejected")
            pool.count("rejected_boot")
            return
        boot = _new_boot(pool, agent, frame)
    if not boot.seen.add(frame.seq):
        pool.count("duplicate")
        return
    kept = _without_bad_samples(pool, frame)
    if kept is None:
        pool.count("rejected")
        pool.count("rejected_samples_all")
        return
    counts["delivered"] = counts.get("delivered", 0) + 1
    if frame.backlog or frame.boot != agent.boot or frame.seq <= boot.cursor:
        pool.count("late")
        return
    if len(boot.pending) >= MAX_PENDING:
        pool.count("late")
        del boot.pending[min(boot.pending)]
    boot.pending[frame.seq] = FiledFrame(kept.monotonic_s, _readings(kept), kept.gateways)
    if boot.newest is None or frame.seq > boot.newest.seq:
        boot.newest = ClockReading(frame.seq, frame.wall_s, frame.monotonic_s)
    # No frame comes before it was sampled: the quickest tells how the two clocks stand.
    boot.skew_s = min(boot.skew_s, now_s - frame.monotonic_s)


def _frame_fault(frame: Frame) -> str:
    """Why nothing of a frame can be read, whoever sent it; empty if something can."""
    timed = 0.0 <= frame.monotonic_s < FURTHEST_S and math.isfinite(frame.wall_s)
    if frame.seq < 0 or not timed or not 0 < len(frame.boot) <= MAX_NAME:
        return "header"
    return "samples_many" if len(frame.engines) + len(frame.gpus) + len(frame.gateways) > MAX_SAMPLES else ""


def _new_boot(pool: PoolState, agent: AgentState, frame: Frame) -> BootState:
    boot = agent.boots[frame.boot] = BootState()
    if not frame.backlog or not agent.boot:
        before = agent.boots.get(agent.boot)
        if before is not None and before.pending:
            pool.count("late", len(before.pending))
            before.pending.clear()
        agent.boot = frame.boot
    while len(agent.boots) > MAX_BOOTS:
        oldest = next(name for name in agent.boots if name != agent.boot)
        del agent.boots[oldest]
        agent.ended = [*agent.ended[1 - MAX_ENDED_BOOTS :], oldest]
    return boot


def _fault(numbers: Sequence[float | None]) -> str:
    """Why these numbers cannot be a measurement; empty if they can."""
    values = cast("Sequence[float]", numbers)
    try:
        total = sum(values)
    except TypeError:  # something is missing, which is no fault
        values = [number for number in numbers if number is not None]
        total = sum(values)
    # One sum sees NaN and infinities, and with no negative among them bounds each number.
    if not (0.0 <= total <= ABSURD and min(values, default=0.0) >= 0.0):
        if any(math.isnan(value) for value in values):
            return "nan"
        return "negative" if min(values) < 0.0 else "absurd"
    return ""


def _engine_fault(sample: EngineSample) -> str:
    fault = _fault(_engine_numbers(sample))
    if not fault and (sample.kv_used_ratio or 0.0) > HIGHEST_RATIO:
        fault = "absurd"
    return fault or _name_fault(sample.engine, sample.incarnation, sample.variant)


def _name_fault(name: str, incarnation: str, other: str) -> str:
    if not name or not incarnation:
        return "unnamed"
    return "long_name" if max(len(name), len(incarnation), len(other)) > MAX_NAME else ""


def _gpu_fault(sample: GpuSample) -> str:
    fault = _fault(_gpu_numbers(sample))
    if not fault and any((ratio or 0.0) > HIGHEST_RATIO for ratio in _gpu_ratios(sample)):
        fault = "absurd"
    return fault


def _gateway_fault(sample: GatewaySample) -> str:
    return _fault(_gateway_numbers(sample)) or _name_fault(sample.gateway, sample.incarnation, sample.lane)


def _is_sound(frame: Frame) -> bool:
    """Whether no sample of the frame has a fault, found in one pass over all their numbers.

    The ordinary case made cheap: what does not pass here is judged sample by sample.
    """
    samples = (
        map(_engine_numbers, frame.engines),
        map(_gpu_numbers, frame.gpus),
        map(_gateway_numbers, frame.gateways),
    )
    if _fault(list(chain.from_iterable(chain.from_iterable(samples)))):
        return False
    ratios = chain(map(_kv_used, frame.engines), chain.from_iterable(map(_gpu_ratios, frame.gpus)))
    if max(filter(None, ratios), default=0.0) > HIGHEST_RATIO:
        return False
    identities = chain(map(_engine_identity, frame.engines), map(_gateway_identity, frame.gateways))
    lengths = [len(name) for name in chain.from_iterable(identities)]
    others = chain(map(_variant, frame.engines), map(_lane, frame.gateways))
    return all(lengths) and max(chain(lengths, map(len, others)), default=0) <= MAX_NAME


def _reject(pool: PoolState, why: str, number: int = 1) -> None:
    pool.count("samples_rejected", number)
    pool.count(f"samples_rejected_{why}", number)


def _without_excess(pool: PoolState, frame: Frame) -> Frame:
    """The frame with as many engines and queues as one agent may have."""
    engines, gateways = len(frame.engines) - MAX_ENGINES_OF_ONE, len(frame.gateways) - MAX_QUEUES_OF_ONE
    if engines <= 0 and gateways <= 0:
        return frame
    for excess, what in ((engines, "engines"), (gateways, "queues")):
        if excess > 0:
            _reject(pool, f"too_many_{what}", excess)
    return frame._replace(engines=frame.engines[:MAX_ENGINES_OF_ONE], gateways=frame.gateways[:MAX_QUEUES_OF_ONE])


def _without_bad_samples(pool: PoolState, frame: Frame) -> Frame | None:
    """The frame without the samples that cannot be true, or are too many; None if none is left of some."""
    frame = _without_excess(pool, frame)
    if _is_sound(frame):
        return frame
    bad = 0
    for engine in frame.engines:
        fault = _engine_fault(engine)
        if fault:
            bad += 1
            pool.count(f"samples_rejected_{fault}")
    for gpu in frame.gpus:
        fault = _gpu_fault(gpu)
        if fault:
            bad += 1
            pool.count(f"samples_rejected_{fault}")
    for gateway in frame.gateways:
        fault = _gateway_fault(gateway)
        if fault:
            bad += 1
            pool.count(f"samples_rejected_{fault}")
    if not bad:
        return frame
    pool.count("samples_rejected", bad)
    if bad == len(frame.engines) + len(frame.gpus) + len(frame.gateways):
        return None
    return frame._replace(
        engines=tuple(engine for engine in frame.engines if not _engine_fault(engine)),
        gpus=tuple(gpu for gpu in frame.gpus if not _gpu_fault(gpu)),
        gateways=tuple(gateway for gateway in frame.gateways if not _gateway_fault(gateway)),
    )


def release_frames(pool: PoolState, now_s: float, interval_s: float, *, takeover: bool = False) -> None:
    """Read the frames whose lateness window is over, by agent and sequence number.

    The machine's time stands still between ticks. Frames that came while it did so for longer than the
    window, as between two owners, look quicker than they were: the skews they left are forgotten. Where one
    owner's ticks are so far apart, the newest frame is taken to have come just now: or none would ever be read.
    """
    room = Room(pool.engines, MAX_ENGINES)
    renew, stood_still = pool.tick % SKEW_TICKS == 0, interval_s > LATENESS_S
    for name in sorted(pool.agents):
        agent = pool.agents[name]
        boot, sender = agent.boots.get(agent.boot), f"{name}/{agent.boot}/"
        if boot is None:
            continue
        if renew:
            boot.skew_before_s, boot.skew_s = boot.skew_s, UNKNOWN_SKEW_S
        if stood_still:
            boot.skew_before_s = boot.skew_s = UNKNOWN_SKEW_S
            if boot.pending and not takeover:
                boot.skew_s = now_s - boot.pending[max(boot.pending)].monotonic_s
        skew_s = min(boot.skew_s, boot.skew_before_s)
        for seq in sorted(boot.pending):
            frame = boot.pending[seq]
            if frame.monotonic_s + skew_s + LATENESS_S > now_s + 1e-6:
                break
            del boot.pending[seq]
            boot.cursor = seq
            _read_frame(pool, frame, name, sender, room)


def _readings(frame: Frame) -> tuple[Reading, ...]:
    """The frame's engines, each with its ranks taken together and the bandwidth of their GPUs."""
    bandwidth = {gpu.gpu_index: gpu.hbm_bandwidth_ratio for gpu in frame.gpus}
    engines: dict[str, list[EngineSample]] = {}
    for sample in frame.engines:
        engines.setdefault(sample.engine, []).append(sample)
    readings = []
    for engine, ranks in engines.items():
        first = ranks[0]
        row, source, gpus = _engine_core(first), str(first.incarnation), first.gpus
        if len(ranks) > 1 or first.rank:
            # A sum over other ranks than before is another counter: no rate spans the two.
            source += f"/{','.join(str(rank.rank) for rank in ranks)}"
            for other in ranks[1:]:
                row = _joined(row, _engine_core(other))
            gpus = tuple(chain.from_iterable([rank.gpus for rank in ranks]))
        seen = [ratio for gpu in gpus if (ratio := bandwidth.get(gpu)) is not None]
        hbm_ratio = sum(seen) / len(seen) if seen else None
        readings.append(Reading(engine, source, len(ranks), first.variant, row, hbm_ratio))
    return tuple(readings)


def _read_frame(pool: PoolState, frame: FiledFrame, agent: str, sender: str, room: Room) -> None:
    engines, tick, monotonic_s = pool.engines, pool.tick, frame.monotonic_s
    own = -1
    for engine, told, ranks, variant, row, hbm_ratio in frame.readings:
        state = engines.get(engine)
        if state is None:
            if own < 0:  # counted once for a frame: one that names thousands must not cost that squared
                own = sum(known.agent == agent for known in engines.values())
            if own >= MAX_ENGINES_OF_ONE or not room.take(engine):
                _reject(pool, "too_many_engines", ranks)
                continue
            own += 1
            state = engines[engine] = EngineState(engine=engine)
        elif _is_anothers(state, agent, tick):
            _reject(pool, "anothers_engine", ranks)
            continue
        source = sender + told
        state.agent = agent
        if state.source != source:
            state.source, state.earlier_row, state.smooth = source, None, []
        elif state.row_tick != tick:
            state.earlier_row, state.earlier_monotonic_s = state.row, state.row_monotonic_s
        state.row, state.row_monotonic_s, state.row_tick, state.hbm_ratio = row, monotonic_s, tick, hbm_ratio
        if not state.attached:  # an engine that attached says itself what it runs
            state.variant = variant
    for gateway in frame.queues:
        _read_queue(pool, gateway, agent, sender + gateway.incarnation, monotonic_s)


def _is_anothers(known: EngineState | QueueState, agent: str, tick: int) -> bool:
    """Whether another agent's samples of it are fresh. Who reported it first keeps it: nobody takes it from him."""
    return known.agent not in ("", agent) and tick - known.row_tick <= KEPT_TICKS


def _read_queue(pool: PoolState, sample: GatewaySample, agent: str, source: str, monotonic_s: float) -> None:
    key = f"{sample.gateway}/{sample.lane}"
    known = pool.queues.get(key)
    row = _gateway_numbers(sample)
    if known is not None and _is_anothers(known, agent, pool.tick):
        _reject(pool, "anothers_queue")
        return
    if known is None or known.source != source:
        if known is None and not _room_for_queue(pool, agent):
            _reject(pool, "too_many_queues")
            return
        pool.queues[key] = QueueState(
            source=source, row=row, row_monotonic_s=monotonic_s, row_tick=pool.tick, agent=agent
        )
        return
    known.agent = agent
    if known.row_tick != pool.tick:
        known.earlier_row, known.earlier_monotonic_s = known.row, known.row_monotonic_s
    known.row, known.row_monotonic_s, known.row_tick = row, monotonic_s, pool.tick


def _room_for_queue(pool: PoolState, agent: str) -> bool:
    queues = pool.queues
    return len(queues) < MAX_QUEUES and sum(one.agent == agent for one in queues.values()) < MAX_QUEUES_OF_ONE


def _joined(first: Row, second: Row) -> Row:
    """Two data-parallel ranks of one engine as one: amounts add up, the fuller KV cache counts."""
    kv = _KV_USED - _ENGINE_TAIL
    return tuple(
        None if a is None or b is None else (max(a, b) if i == kv else a + b)
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    )
