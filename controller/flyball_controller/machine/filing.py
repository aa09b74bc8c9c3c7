"""Filing frames: validate, tell duplicates from late ones, keep until a tick is due.

Frames are filed, ticks decide. A frame waits out a lateness window in the order of its
sequence number, so that those that overtook each other on the way are read in order;
one that comes after its place was read counts as `late`, a kind of delivered.
"""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import cast

from flyball_core.frames import EngineSample, Frame, GpuSample
from flyball_controller.machine.state import AgentState, BootState, EngineState, PoolState, Row

LATENESS_S = 2.0
"""How long a frame waits for those before it. At a tick of 1 s, a frame may be one tick late."""

AHEAD_S = 10.0
"""A frame due later than this has a clock that jumped: its agent is anchored anew."""

ABSURD = 1e18
"""No counter or gauge of ours reaches this; above it is damage, not load."""

MAX_BOOTS = 8
MAX_AGENTS = 10_000
MAX_ENGINES = 4_096
MAX_PENDING = 256

CORE = 14
"""How many of an engine sample's leading numbers features read."""

_ENGINE_TAIL = 5
_GPU_TAIL = 4
_engine_numbers: Callable[[EngineSample], Row] = itemgetter(slice(_ENGINE_TAIL, None))
_engine_core: Callable[[EngineSample], Row] = itemgetter(slice(_ENGINE_TAIL, _ENGINE_TAIL + CORE))
_gpu_numbers: Callable[[GpuSample], Row] = itemgetter(slice(_GPU_TAIL, None))
_gpu_ratios: Callable[[GpuSample], Row] = itemgetter(slice(_GPU_TAIL, _GPU_TAIL + 3))
_KV_USED = EngineSample._fields.index("kv_used_ratio")


def file_frame(pool: PoolState, frame: Frame, now_s: float) -> None:
    """Count a frame as delivered, duplicate, late or rejected, and keep it if a tick may read it."""
    counts = pool.counts
    if frame.seq < 0 or not (0.0 <= frame.monotonic_s < ABSURD) or not math.isfinite(frame.wall_s) or not frame.boot:
        pool.count("rejected")
        pool.count("rejected_header")
        return
    agent = pool.agents.get(frame.agent)
    if agent is None:
        if len(pool.agents) >= MAX_AGENTS or not frame.agent:
            pool.count("rejected")
            pool.count("rejected_agent")
            return
        agent = pool.agents[frame.agent] = AgentState(boot="")
    boot = agent.boots.get(frame.boot) or _new_boot(agent, frame, now_s)
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
    boot.pending[frame.seq] = kept


def _new_boot(agent: AgentState, frame: Frame, now_s: float) -> BootState:
    boot = agent.boots[frame.boot] = BootState(anchor_s=now_s, anchor_monotonic_s=frame.monotonic_s)
    if not frame.backlog or not agent.boot:
        agent.boot = frame.boot
    while len(agent.boots) > MAX_BOOTS:
        del agent.boots[next(name for name in agent.boots if name != agent.boot)]
    return boot


def _fault(numbers: tuple[float | None, ...]) -> str:
    """Why these numbers cannot be a measurement; empty if they can."""
    values = (
        [number for number in numbers if number is not None] if None in numbers else cast("tuple[float, ...]", numbers)
    )
    # One sum sees NaN and infinities, and with no negative among them bounds each number.
    if values and not (0.0 <= sum(values) <= ABSURD and min(values) >= 0.0):
        if any(math.isnan(value) for value in values):
            return "nan"
        return "negative" if min(values) < 0.0 else "absurd"
    return ""


def _engine_fault(sample: EngineSample) -> str:
    fault = _fault(_engine_numbers(sample))
    if not fault and (sample.kv_used_ratio or 0.0) > 1.05:
        fault = "absurd"
    return fault or ("" if sample.engine and sample.incarnation else "unnamed")


def _gpu_fault(sample: GpuSample) -> str:
    fault = _fault(_gpu_numbers(sample))
    if not fault and any((ratio or 0.0) > 1.05 for ratio in _gpu_ratios(sample)):
        fault = "absurd"
    return fault


def _without_bad_samples(pool: PoolState, frame: Frame) -> Frame | None:
    """The frame without the samples that cannot be true; None if none is left of some."""
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
    if not bad:
        return frame
    pool.count("samples_rejected", bad)
    if bad == len(frame.engines) + len(frame.gpus):
        return None
    engines = tuple(engine for engine in frame.engines if not _engine_fault(engine))
    return frame._replace(engines=engines, gpus=tuple(gpu for gpu in frame.gpus if not _gpu_fault(gpu)))


def release_frames(pool: PoolState, now_s: float) -> None:
    """Read the frames whose lateness window is over, by agent and sequence number."""
    for name in sorted(pool.agents):
        agent = pool.agents[name]
        boot = agent.boots.get(agent.boot)
        if boot is None or not boot.pending:
            continue
        for seq in sorted(boot.pending):
            frame = boot.pending[seq]
            due = boot.anchor_s + (frame.monotonic_s - boot.anchor_monotonic_s) + LATENESS_S
            if due > now_s + 1e-6:
                if due <= now_s + AHEAD_S:
                    break
                _anchor(boot, frame, now_s)
                break
            if due < now_s - LATENESS_S - AHEAD_S:
                _anchor(boot, frame, now_s)
            del boot.pending[seq]
            boot.cursor = seq
            _read_frame(pool, frame)


def _anchor(boot: BootState, frame: Frame, now_s: float) -> None:
    boot.anchor_s, boot.anchor_monotonic_s = now_s, frame.monotonic_s


def _read_frame(pool: PoolState, frame: Frame) -> None:
    sender = f"{frame.agent}/{frame.boot}/"
    bandwidth = {gpu.gpu_index: gpu.hbm_bandwidth_ratio for gpu in frame.gpus}
    ranks: dict[str, Row] = {}
    for sample in frame.engines:
        state = pool.engines.get(sample.engine)
        if state is None:
            if len(pool.engines) >= MAX_ENGINES:
                pool.count("samples_rejected_too_many_engines")
                continue
            state = pool.engines[sample.engine] = EngineState(engine=sample.engine)
        row = _engine_core(sample)
        if sample.engine in ranks:
            row = _joined(ranks[sample.engine], row)
        elif state.source != (source := sender + sample.incarnation):
            state.source, state.earlier_row, state.smooth = source, None, []
        elif state.row_tick != pool.tick:
            state.earlier_row, state.earlier_monotonic_s = state.row, state.row_monotonic_s
        ranks[sample.engine] = row
        state.row, state.row_monotonic_s, state.row_tick = row, frame.monotonic_s, pool.tick
        if not state.attached:  # an engine that attached says itself what it runs
            state.variant = sample.variant
        seen = [ratio for gpu in sample.gpus if (ratio := bandwidth.get(gpu)) is not None]
        state.hbm_ratio = sum(seen) / len(seen) if seen else None


def _joined(first: Row, second: Row) -> Row:
    """Two data-parallel ranks of one engine as one: amounts add up, the fuller KV cache counts."""
    kv = _KV_USED - _ENGINE_TAIL
    return tuple(
        None if a is None or b is None else (max(a, b) if i == kv else a + b)
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    )
