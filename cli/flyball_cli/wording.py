"""Numbers as people read them: with a unit, and no more digits than they carry.

A feature's unit follows from its name, as everywhere in Flyball; this module only spells
it out. JSON output never goes through here: there the plain numbers stand.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

from flyball_core.knobs import Value

_SHARES = ("kv_used_max", "kv_used_mean", "hbm_ratio", "hbm_worst", "prefill_share", "finished_share")
_COUNTS = {
    "running": "requests",
    "waiting": "requests",
    "queued": "requests",
    "context_tokens": "tokens",
    "first_tokens": "first tokens/s",
}
_RATES = {
    "prompt_tokens_per_s": "tokens/s",
    "gen_tokens_per_s": "tokens/s",
    "finished_per_s": "requests/s",
    "arrivals_per_s": "requests/s",
    "preemptions_per_s": "preemptions/s",
}
_NAMES = {
    "tpot_s": "TPOT",
    "tpot_worst_s": "worst TPOT",
    "ttft_s": "TTFT",
    "queue_s": "wait in queue",
    "kv_used_max": "fullest KV cache",
    "kv_used_mean": "mean KV cache",
    "hbm_ratio": "HBM bandwidth",
    "hbm_worst": "busiest HBM",
    "prefill_share": "prefill share",
    "finished_share": "engines heard of",
    "context_tokens": "context per request",
    "gen_tokens_per_s": "generated",
    "prompt_tokens_per_s": "prompts",
    "finished_per_s": "finished",
    "arrivals_per_s": "arriving",
    "preemptions_per_s": "preempted",
    "engines_fresh": "engines with telemetry",
}


def seconds(value: float) -> str:
    """A duration: `12.3 ms`, `4.20 s`, `96 s`."""
    if abs(value) < 1.0:
        return f"{value * 1e3:.1f} ms"
    return f"{value:.2f} s" if abs(value) < 10.0 else f"{value:.0f} s"


def span(value: float) -> str:
    """A longer stretch of time, in its two leading units: `45 s`, `5 min 3 s`, `2 h 10 min`, `3 d 4 h`."""
    if not math.isfinite(value):
        return f"{value:g} s"
    if abs(value) < 60.0:
        return f"{value:.1f} s" if abs(value) < 10.0 else f"{value:.0f} s"
    left = int(abs(value))
    parts: list[str] = []
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        number, left = divmod(left, unit_s)
        if number or parts:
            parts.append(f"{number} {unit}" if number else "")
    return " ".join(part for part in parts[:2] if part)


def calendar(wall_s: float, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A moment of Unix time, in UTC; as plain seconds where no calendar has it."""
    try:
        return datetime.fromtimestamp(wall_s, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{wall_s:g} s after 1970"


def instant(value: float) -> str:
    """A time of the machine's clock, which counts from its first tick."""
    return f"{value:.0f} s"


def quantity(name: str, value: float) -> str:
    """A feature's value with its unit."""
    if not math.isfinite(value):
        return f"{value:g}"
    if name in _SHARES:
        return f"{value:.1%}"
    unit = _RATES.get(name) or _COUNTS.get(name)
    if unit is not None:
        return f"{value:,.0f} {unit}" if abs(value) >= 10 or value == int(value) else f"{value:.2f} {unit}"
    if name.endswith("_s"):
        return seconds(value)
    return f"{value:,g}"


def feature(name: str, value: float) -> str:
    """A feature in words: what it is, and how much of it."""
    return f"{_NAMES.get(name, name.replace('_', ' '))} {quantity(name, value)}"


def features(values: Mapping[str, float]) -> list[str]:
    """All features in words, those one asks for first in front."""
    order = list(_NAMES)
    names = sorted(values, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [feature(name, values[name]) for name in names]


def change(old: Value | None, new: Value | None) -> str:
    """`64 -> 52`; what is not known is a dash."""
    return f"{'-' if old is None else old} -> {'-' if new is None else new}"


def counted(number: int, noun: str) -> str:
    """`1 input`, `2,400 inputs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def tally(counts: Mapping[str, int]) -> str:
    """`8 by dwell, 4 by budget`, the most first; `none` if there are none."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} by {rule}" for rule, number in ordered) or "none"


def aligned(rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of cells as lines with straight columns; the last column is as long as it likes."""
    rows = [tuple(row) for row in rows]
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows)))]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows
    ]


def nearest(asked: str, known: Iterable[str]) -> str:
    """The names nearest to one that there is none of, as a sentence's end; or all, if they are few."""
    names = sorted(known)
    near = get_close_matches(asked, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if not names:
        return "there is none at all"
    shown = ", ".join(names[:8])
    return f"there is {shown}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def nearest_decisions(asked: str, known: Iterable[str]) -> str:
    """The decisions of the same pool nearest in the log to one that there is none of, as `nearest`."""
    pool, _, number = asked.rpartition("@")
    offsets = sorted(int(name.rpartition("@")[2]) for name in known if name.rpartition("@")[0] == pool)
    if not offsets:
        return nearest(pool, {name.rpartition("@")[0] for name in known})
    near = sorted(sorted(offsets, key=lambda offset: abs(offset - int(number)))[:2])
    return f"did you mean {' or '.join(f'{pool}@{offset}' for offset in near)}?"
