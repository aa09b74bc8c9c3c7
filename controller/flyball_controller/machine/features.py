"""Features: from raw counters to what policies and the regime namer look at.

Rates come from differences of counters over the agent's own monotonic clock, within one
source and incarnation. A counter that went back is a reset: its rate is missing for that
tick, never negative. Missing is NaN all the way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball_controller.machine.filing import CORE
from flyball_controller.machine.state import SERVING, EngineState, PoolState
from flyball_policies.seam import Column

LONGEST_LATENCY_S = 3600.0
"""A mean latency above this is damage, not load."""

FASTEST_TOKENS_PER_S = 1e7
"""A token rate of one engine above this is damage, not load."""

LONGEST_CONTEXT_TOKENS = 1e9
"""A mean context above this is damage: of requests that are next to none it would be infinite."""

ENGINE_SMOOTHING = 0.4
"""Weight of the newest tick in the engine columns that are smoothed."""

POOL_SMOOTHING = 0.15
"""Weight of the newest tick in the pool's smoothed features."""

SMOOTHED = ("tpot_s", "ttft_s", "gen_tokens_per_s", "prompt_tokens_per_s", "context_tokens")
"""The columns that are smoothed over ticks; the others are as last measured."""

COLUMNS = (
    *("running", "waiting", "kv_used_ratio", "kv_capacity_tokens"),
    *("prompt_tokens_per_s", "gen_tokens_per_s", "finished_per_s", "preemptions_per_s"),
    *("ttft_s", "tpot_s", "queue_s", "context_tokens", "hbm_ratio"),
)
"""The columns of a pool, in their order."""

DEGRADED_TICKS = 20
"""How long an engine must be slower than its peers to count as degraded."""

FEWEST_PEERS = 3
"""Engines at the same mix, itself included, that an engine is compared with at least."""

_LIMIT_OF = {
    "prompt_tokens_per_s": FASTEST_TOKENS_PER_S,
    "gen_tokens_per_s": FASTEST_TOKENS_PER_S,
    "ttft_s": LONGEST_LATENCY_S,
    "tpot_s": LONGEST_LATENCY_S,
    "queue_s": LONGEST_LATENCY_S,
    "context_tokens": LONGEST_CONTEXT_TOKENS,
}
_LIMITS = np.array([_LIMIT_OF.get(name, np.inf) for name in COLUMNS])
"""Of each column: what is beyond was damaged, or divided by zero."""

_SMOOTHED_AT = np.array([COLUMNS.index(name) for name in SMOOTHED])
_MISSING = (None,) * CORE
_UNSMOOTHED = (None,) * len(SMOOTHED)


@dataclass(frozen=True, slots=True)
class Measured:
    """The pool at one tick: `columns` by engine in the order of `engines`, NaN where missing.

    Columns: running, waiting (requests), kv_used_ratio (0 to 1), kv_capacity_tokens,
    prompt_tokens_per_s, gen_tokens_per_s, finished_per_s, preemptions_per_s, ttft_s,
    tpot_s, queue_s (means of the interval), context_tokens (KV tokens per running
    request), hbm_ratio (of the peak). `members` marks the engines that count, `fresh` those of them with telemetry
    new enough.
    """

    engines: tuple[EngineState, ...]
    columns: dict[str, Column]
    values: NDArray[np.float64]
    """The columns side by side, a row for each engine."""
    members: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    usable: NDArray[np.bool_]


def measure(pool: PoolState, stale_ticks: int) -> Measured:
    """The engine columns of this tick; also renews what the engines keep for smoothing."""
    if not pool.engines:
        return _NO_ENGINES  # as in the pool of GPUs that no engine runs on
    engines = tuple([pool.engines[name] for name in sorted(pool.engines)])
    table = _table(engines, pool.tick)
    now, before, kept = table[:, :CORE], table[:, CORE : 2 * CORE], table[:, 2 * CORE : -3]
    row_tick, elapsed, hbm_ratio = table[:, -3], table[:, -2:-1], table[:, -1:]
    with np.errstate(all="ignore"):  # missing and zero denominators become NaN and infinities, which go below
        delta = now - before
        delta[delta < 0] = np.nan
        rates, means = delta[:, 4:8] / elapsed, delta[:, 8:14:2] / delta[:, 9:14:2]
        context = now[:, 2:3] * now[:, 3:4] / now[:, :1]
        values = np.concatenate((now[:, :4], rates, means, context, hbm_ratio), axis=1)
        values[~(np.abs(values) <= _LIMITS)] = np.nan
    _smooth(engines, values, kept)
    members = _members(engines)
    fresh = (pool.tick - row_tick <= stale_ticks) & members
    serving = np.array([e.phase == SERVING and not e.holding.diverged for e in engines], dtype=bool)
    columns = dict(zip(COLUMNS, values.T, strict=True))
    return Measured(engines, columns, values, members, fresh, usable=fresh & serving)


def _table(engines: tuple[EngineState, ...], tick: int) -> NDArray[np.float64]:
    """One row of numbers for each engine, what is missing as NaN.

    Its counters and gauges, those of the measurement before if this tick brought another, what is smoothed, the tick
    of the measurement, its duration, and its GPUs' bandwidth. One flat list: numpy is slow to find out a nesting.
    """
    flat: list[float | None] = []
    for engine in engines:
        elapsed_s = engine.row_monotonic_s - engine.earlier_monotonic_s
        flat += engine.row or _MISSING
        flat += (engine.row_tick == tick and engine.earlier_row) or _MISSING
        flat += engine.smooth or _UNSMOOTHED
        flat += (engine.row_tick, elapsed_s if elapsed_s > 0 else None, engine.hbm_ratio)
    return np.array(flat, dtype=float).reshape(len(engines), 2 * CORE + len(SMOOTHED) + 3)


def _members(engines: tuple[EngineState, ...]) -> NDArray[np.bool_]:
    """The engines that count: those that have attached, or all of a pool where none ever has.

    Who attaches has shown a certificate. An agent can name as many engines as it likes: beside engines that are
    there, what it merely names is shown to operators and moves nobody.
    """
    attached = np.array([engine.attach_offset >= 0 for engine in engines], dtype=bool)
    return attached if attached.any() else np.ones(len(engines), dtype=bool)


def _smooth(engines: tuple[EngineState, ...], values: NDArray[np.float64], kept: NDArray[np.float64]) -> None:
    new = values[:, _SMOOTHED_AT]
    missing = np.isnan(new)
    since = np.where(np.isnan(kept), new, kept)
    smooth = np.where(missing, since, since + ENGINE_SMOOTHING * (new - since))
    # An empty engine has no latency, and its last one is history. The gauge alone does not tell: a real vLLM's
    # reads 0 in one second of five in which tokens come.
    smooth[(values[:, 0] == 0) & np.logical_and.reduce(missing, axis=1)] = np.nan
    for state, numbers in zip(engines, smooth.tolist(), strict=True):
        state.smooth = numbers
    values[:, _SMOOTHED_AT] = smooth


_NO_ENGINES = Measured(
    engines=(),
    columns=dict.fromkeys(COLUMNS, np.empty(0)),
    values=np.empty((0, len(COLUMNS))),
    members=np.empty(0, dtype=bool),
    fresh=np.empty(0, dtype=bool),
    usable=np.empty(0, dtype=bool),
)


def queue_features(pool: PoolState, stale_ticks: int) -> dict[str, float]:
    """What gateways measured of this pool, over all lanes; empty where none tells.

    queued (requests), arrivals_per_s, queue_s (mean wait of those that left the queue in
    the interval).
    """
    fresh = [queue for _, queue in sorted(pool.queues.items()) if pool.tick - queue.row_tick <= stale_ticks]
    queued = [number for queue in fresh if (number := queue.row[0]) is not None]
    found = {"queued": float(sum(queued))} if queued else {}
    arrived = waited = left = 0.0
    told = False
    for queue in fresh:
        before, elapsed = queue.earlier_row, queue.row_monotonic_s - queue.earlier_monotonic_s
        if before is None or queue.row_tick != pool.tick or elapsed <= 0:
            continue
        total, wait, count = (_grown(before[i], queue.row[i]) for i in (2, 3, 4))
        if total is not None:
            arrived, told = arrived + total / elapsed, True
        if wait is not None and count is not None:
            waited, left = waited + wait, left + count
    if told:
        found["arrivals_per_s"] = arrived
    if left > 0:
        found["queue_s"] = waited / left
    return found


def _grown(before: float | None, now: float | None) -> float | None:
    """By how much a counter grew; None where missing or reset."""
    return None if before is None or now is None or now < before else now - before


def pool_features(measured: Measured, queues: dict[str, float], earlier: dict[str, float]) -> dict[str, float]:
    """The pool's features at this tick: plain floats, a name absent where nothing was measured.

    Rates and the mix (`prefill_share`, `context_tokens`) are smoothed over ticks; gauges are
    as measured. `finished_share`, smoothed alike, is of how many of the engines here
    `finished_per_s` is the sum. `engines_fresh` and `engines`, of those that count, are always there.
    """
    seen = _seen(measured)
    found = _gauges(measured, seen)
    raw = _rates(measured, seen)
    for name, number in queues.items():
        (raw if name == "arrivals_per_s" else found)[name] = number
    for name, value in raw.items():
        kept = earlier.get(name, value)
        found[name] = kept + POOL_SMOOTHING * (value - kept)
    for name in ("context_tokens", "prefill_share"):
        if name not in found and name in earlier and found.get("running", 0.0) > 0:
            found[name] = earlier[name]
    return found


def _seen(measured: Measured) -> dict[str, Column]:
    """Each column's numbers, of engines with fresh telemetry only, without those missing; none of a column without."""
    values = measured.values[measured.fresh]
    if not values.size:
        return {}
    known = np.isfinite(values)
    if known.all():
        return dict(zip(COLUMNS, values.T, strict=True))
    seen = {name: column[there] for name, column, there in zip(COLUMNS, values.T, known.T, strict=True)}
    return {name: numbers for name, numbers in seen.items() if numbers.size}


def _sum(values: Column) -> float:
    return float(np.add.reduce(values))  # as `sum`, without its detour: there are a dozen of them in every tick


def _largest(values: Column) -> float:
    return float(np.maximum.reduce(values))


def _median(values: Column) -> float:
    """The median, as numpy's to the last bit: that one takes ten times as long over a few numbers."""
    ordered, half = np.sort(values), values.size // 2
    if values.size % 2:
        return float(ordered[half])
    return (float(ordered[half - 1]) + float(ordered[half])) / 2.0


def _gauges(measured: Measured, seen: dict[str, Column]) -> dict[str, float]:
    found = {"engines": float(measured.members.sum()), "engines_fresh": float(measured.fresh.sum())}
    for name in ("running", "waiting", "preemptions_per_s"):
        if name in seen:
            found[name] = _sum(seen[name])
    if (kv := seen.get("kv_used_ratio")) is not None:
        found["kv_used_max"], found["kv_used_mean"] = _largest(kv), _sum(kv) / kv.size
    if (tpot := seen.get("tpot_s")) is not None:
        found["tpot_s"], found["tpot_worst_s"] = _median(tpot), _largest(tpot)
    if (ttft := seen.get("ttft_s")) is not None:
        found["ttft_s"] = _median(ttft)
    if (hbm := seen.get("hbm_ratio")) is not None:
        found["hbm_ratio"], found["hbm_worst"] = _sum(hbm) / hbm.size, _largest(hbm)
    return found


def _rates(measured: Measured, seen: dict[str, Column]) -> dict[str, float]:
    """What is smoothed over ticks, as it was in this one."""
    raw: dict[str, float] = {}
    for name in ("prompt_tokens_per_s", "gen_tokens_per_s", "finished_per_s"):
        if name in seen:
            raw[name] = _sum(seen[name])
    if (finished := seen.get("finished_per_s")) is not None:
        here = sum(
            [member and e.gone_s is None for e, member in zip(measured.engines, measured.members.tolist(), strict=True)]
        )
        raw["finished_share"] = min(finished.size / max(here, 1), 1.0)
    if (context := seen.get("context_tokens")) is not None:
        raw["context_tokens"] = _median(context)
    total = raw.get("prompt_tokens_per_s", 0.0) + raw.get("gen_tokens_per_s", 0.0)
    if total > 0:
        raw["prefill_share"] = raw.get("prompt_tokens_per_s", 0.0) / total
    return raw


def mark_degraded(measured: Measured) -> list[EngineState]:
    """Mark engines that are much slower than their peers at the same mix; returns those newly marked.

    An engine counts as degraded when its TPOT has been over 1.5 times its peers' median
    for 20 ticks while its contexts are no longer than 1.3 times theirs, and as mended after
    20 ticks under 1.2 times.
    """
    if len(measured.engines) < FEWEST_PEERS:
        return []
    tpot = np.where(measured.usable & (measured.columns["running"] >= 2), measured.columns["tpot_s"], np.nan)
    context = measured.columns["context_tokens"]
    seen = np.isfinite(tpot) & np.isfinite(context)
    if np.count_nonzero(seen) < FEWEST_PEERS:
        return []
    median = _median(tpot[seen])
    tpot = np.where(context <= 1.3 * _median(context[seen]), tpot, np.nan)
    newly = []
    slow, mended = 1.5 * median, 1.2 * median
    for state, value in zip(measured.engines, tpot.tolist(), strict=True):
        if not value > 0:
            continue
        if value > slow:
            state.slow_ticks = min(state.slow_ticks + 1, DEGRADED_TICKS)
        elif value < mended and state.slow_ticks:
            state.slow_ticks -= 1
        if state.slow_ticks >= DEGRADED_TICKS and not state.degraded:
            state.degraded = True
            newly.append(state)
        elif state.slow_ticks == 0:
            state.degraded = False
    return newly
