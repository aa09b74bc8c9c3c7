"""Features: from raw counters to what policies and the regime namer look at.

Rates come from differences of counters over the agent's own monotonic clock, within one
source and incarnation. A counter that went back is a reset: its rate is missing for that
tick, never negative. Missing is NaN all the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

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

DEGRADED_TICKS = 20
"""How long an engine must be slower than its peers to count as degraded."""

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
    members: NDArray[np.bool_]
    fresh: NDArray[np.bool_]
    usable: NDArray[np.bool_]


def measure(pool: PoolState, stale_ticks: int) -> Measured:
    """The engine columns of this tick; also renews what the engines keep for smoothing."""
    engines = tuple(pool.engines[name] for name in sorted(pool.engines))
    now = _table([e.row or _MISSING for e in engines], CORE)
    before = _table([e.earlier_row or _MISSING for e in engines], CORE)
    age = pool.tick - np.array([e.row_tick for e in engines], dtype=float)
    elapsed = np.array([e.row_monotonic_s - e.earlier_monotonic_s for e in engines], dtype=float)
    new = age == 0
    with np.errstate(all="ignore"):  # missing and zero denominators become NaN, which is what they mean
        delta = now - before
        delta[(delta < 0) | ~new[:, None]] = np.nan
        elapsed = np.where(elapsed > 0, elapsed, np.nan)
        rates = delta[:, 4:8] / elapsed[:, None]
        means = delta[:, [8, 10, 12]] / np.where(delta[:, [9, 11, 13]] > 0, delta[:, [9, 11, 13]], np.nan)
        rates[:, :2][rates[:, :2] > FASTEST_TOKENS_PER_S] = np.nan
        means[means > LONGEST_LATENCY_S] = np.nan
        running = now[:, 0]
        context = now[:, 2] * now[:, 3] / np.where(running > 0, running, np.nan)
        context[context > LONGEST_CONTEXT_TOKENS] = np.nan
    columns: dict[str, Column] = {
        "running": running,
        "waiting": now[:, 1],
        "kv_used_ratio": now[:, 2],
        "kv_capacity_tokens": now[:, 3],
        "prompt_tokens_per_s": rates[:, 0],
        "gen_tokens_per_s": rates[:, 1],
        "finished_per_s": rates[:, 2],
        "preemptions_per_s": rates[:, 3],
        "ttft_s": means[:, 0],
        "tpot_s": means[:, 1],
        "queue_s": means[:, 2],
        "context_tokens": context,
        "hbm_ratio": np.array([np.nan if e.hbm_ratio is None else e.hbm_ratio for e in engines], dtype=float),
    }
    _smooth(engines, columns, running)
    members = _members(engines)
    fresh = (age <= stale_ticks) & members
    serving = np.array([e.phase == SERVING and not e.holding.diverged for e in engines], dtype=bool)
    return Measured(engines=engines, columns=columns, members=members, fresh=fresh, usable=fresh & serving)


def _members(engines: tuple[EngineState, ...]) -> NDArray[np.bool_]:
    """The engines that count: those that have attached, or all of a pool where none ever has.

    Who attaches has shown a certificate. An agent can name as many engines as it likes: beside engines that are
    there, what it merely names is shown to operators and moves nobody.
    """
    attached = np.array([engine.attach_offset >= 0 for engine in engines], dtype=bool)
    return attached if attached.any() else np.ones(len(engines), dtype=bool)


def _table(rows: Sequence[Sequence[float | None]], width: int) -> NDArray[np.float64]:
    """Rows of `width` numbers as one array, None as NaN."""
    # Flat first: numpy is slow to find out a nesting.
    return np.array(list(chain.from_iterable(rows)), dtype=float).reshape(len(rows), width)


def _smooth(engines: tuple[EngineState, ...], columns: dict[str, Column], running: Column) -> None:
    kept = _table([e.smooth or _UNSMOOTHED for e in engines], len(SMOOTHED))
    new = np.array([columns[name] for name in SMOOTHED], dtype=float).reshape(len(SMOOTHED), len(engines)).T
    moved = np.where(np.isnan(kept), new, kept + ENGINE_SMOOTHING * (new - kept))
    smooth = np.where(np.isnan(new), kept, moved)
    # An empty engine has no latency, and its last one is history. The gauge alone does not tell: a real vLLM's
    # reads 0 in one second of five in which tokens come.
    smooth[(running == 0) & np.isnan(new).all(axis=1)] = np.nan
    for state, values in zip(engines, smooth.tolist(), strict=True):
        state.smooth = values
    for i, name in enumerate(SMOOTHED):
        columns[name] = smooth[:, i]


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
    found = _gauges(measured)
    raw = _rates(measured)
    for name, number in queues.items():
        (raw if name == "arrivals_per_s" else found)[name] = number
    for name, value in raw.items():
        kept = earlier.get(name, value)
        found[name] = kept + POOL_SMOOTHING * (value - kept)
    for name in ("context_tokens", "prefill_share"):
        if name not in found and name in earlier and found.get("running", 0.0) > 0:
            found[name] = earlier[name]
    return found


def _seen(measured: Measured, name: str) -> Column:
    """A column's numbers, of engines with fresh telemetry only, without those missing."""
    values = measured.columns[name][measured.fresh]
    return values[np.isfinite(values)]


def _gauges(measured: Measured) -> dict[str, float]:
    found = {"engines": float(measured.members.sum()), "engines_fresh": float(measured.fresh.sum())}
    for name in ("running", "waiting", "preemptions_per_s"):
        if (values := _seen(measured, name)).size:
            found[name] = float(values.sum())
    if (kv := _seen(measured, "kv_used_ratio")).size:
        found["kv_used_max"], found["kv_used_mean"] = float(kv.max()), float(kv.mean())
    if (tpot := _seen(measured, "tpot_s")).size:
        found["tpot_s"], found["tpot_worst_s"] = float(np.median(tpot)), float(tpot.max())
    if (ttft := _seen(measured, "ttft_s")).size:
        found["ttft_s"] = float(np.median(ttft))
    if (hbm := _seen(measured, "hbm_ratio")).size:
        found["hbm_ratio"], found["hbm_worst"] = float(hbm.mean()), float(hbm.max())
    return found


def _rates(measured: Measured) -> dict[str, float]:
    """What is smoothed over ticks, as it was in this one."""
    raw: dict[str, float] = {}
    for name in ("prompt_tokens_per_s", "gen_tokens_per_s", "finished_per_s"):
        if (values := _seen(measured, name)).size:
            raw[name] = float(values.sum())
    if (finished := _seen(measured, "finished_per_s")).size:
        here = sum(member and e.gone_s is None for e, member in zip(measured.engines, measured.members, strict=True))
        raw["finished_share"] = min(finished.size / max(here, 1), 1.0)
    if (context := _seen(measured, "context_tokens")).size:
        raw["context_tokens"] = float(np.median(context))
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
    tpot = np.where(measured.usable & (measured.columns["running"] >= 2), measured.columns["tpot_s"], np.nan)
    context = measured.columns["context_tokens"]
    seen = np.isfinite(tpot) & np.isfinite(context)
    if seen.sum() < 3:
        return []
    median = float(np.median(tpot[seen]))
    tpot = np.where(context <= 1.3 * float(np.median(context[seen])), tpot, np.nan)
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
