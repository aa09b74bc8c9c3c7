"""From tables of kernel times, one row a measurement, to a kernel file: grids, and a word on what is missing.

The rows are those of aiconfigurator's tables: GEMM by `gemm_dtype, m, n, k`; attention by `batch_size, isl, step,
num_heads, num_key_value_heads, head_dim, kv_cache_dtype` and, where there is one, `window_size`; all-reduce by
`num_gpus, message_size` and `backend`; all with `latency` in milliseconds. It refuses to read files, and to invent a
time: what was not measured stays missing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan, prod
from statistics import median

import numpy as np

from flyball_core.errors import Rejected
from flyball_twin.physics.kernel_file import (
    Array,
    AttentionKey,
    AttentionTable,
    GemmTable,
    ReduceTable,
    encode,
)

Row = Mapping[str, object]

PRECISIONS = {"bfloat16": "bf16", "float16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block"}
KV_PRECISIONS = {"bfloat16": "bf16", "float16": "bf16", "fp8": "fp8"}
BYTES_PER_ELEMENT = 2
"""`message_size` counts 16-bit elements, not bytes: read as bytes, eight H100s would reach a third of their links."""
_INT32 = 2**31 - 1
GRID_POINTS = 16 * 1024 * 1024
"""Most points of one grid, measured or not."""
LEAST_LENGTHS = 2
ALIGNED, ALIGNED_BEYOND = 8, 16

HOST_BOUND = 1.2
"""A time within this factor of what tiny shapes take for so many tokens is its launch's, not its work's."""
TINY_WEIGHTS = 512 * 512
HOST_FLOOR_S = 20e-6
"""Launched from a graph nothing small takes that long: a table whose shortest times do was timed through its host."""


@dataclass(slots=True)
class TableNotes:
    """What compiling one table saw: counts of its rows, its grid in words, and what it lacks."""

    part: str
    rows: int = 0
    used: int = 0
    grids: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """Count a row that is not used."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Rejected(f"column {name} of a kernel table holds numbers, not {value!r}")
    return float(value)


def _latency_s(row: Row) -> float:
    seconds = _number(row, "latency") * 1e-3
    return seconds if 0.0 < seconds < float("inf") else float("nan")


def _size(row: Row, name: str) -> int:
    """A size of a shape; 0 for one that is none."""
    value = _number(row, name)
    return int(value) if 1.0 <= value <= _INT32 and value == int(value) else 0


def _grid_of(*axes: int) -> Array:
    """A grid on which nothing was measured yet. Raises `Rejected` if its axes have too many points together."""
    points = prod(axes)
    if points > GRID_POINTS:
        raise Rejected(f"the shapes of a kernel table lie on no grid: {points} points, of at most {GRID_POINTS}")
    return np.full(axes, np.nan)


def _axis(values: Iterable[int]) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], dict[int, int]]:
    ordered = sorted(set(values))
    return np.array(ordered, dtype=np.int32), {value: index for index, value in enumerate(ordered)}


def compile_gemm(rows: Iterable[Row]) -> tuple[dict[str, GemmTable], TableNotes]:
    """GEMM tables by precision. Raises `Rejected` for an unreadable row.

    Beyond 16 tokens only multiples of 8 are taken: some kernels fall back for others, and a curve through both kinds
    would swing between them.
    """
    notes = TableNotes(part="gemm")
    points: dict[str, dict[tuple[int, int, int], float]] = {}
    for row in rows:
        notes.rows += 1
        precision = PRECISIONS.get(str(row.get("gemm_dtype")))
        seconds = _latency_s(row)
        if precision is None:
            notes.leave_out(f"precision {row.get('gemm_dtype')}")
        elif isnan(seconds):
            notes.leave_out("no time")
        else:
            place = (_size(row, "n"), _size(row, "k"), _size(row, "m"))
            if not all(place):
                notes.leave_out("a size that is none")
            elif place[2] > ALIGNED_BEYOND and place[2] % ALIGNED:
                notes.leave_out(f"tokens that are no multiple of {ALIGNED}")
            else:
                points.setdefault(precision, {})[place] = seconds
    tables = {}
    for precision, times in points.items():
        host_bound = _drop_host_bound(times)
        if host_bound:
            notes.left_out[f"{precision}: timed through the host"] = host_bound
        if times:
            tables[precision] = _gemm_table(times, precision, notes)
        notes.used += len(times)
    return tables, notes


def _drop_host_bound(times: dict[tuple[int, int, int], float]) -> int:
    """Remove times that are their launch's; returns how many.

    Some kernels were launched one by one from Python, so that small shapes show the host's time. The sign is a
    floor: shapes of next to no work take far longer than a launch from a graph does.
    """
    tiny: dict[int, list[float]] = {}
    for (n, k, m), seconds in times.items():
        if n * k <= TINY_WEIGHTS:
            tiny.setdefault(m, []).append(seconds)
    floors = {m: median(of_tiny) for m, of_tiny in tiny.items()}
    if not floors or median(floors.values()) < HOST_FLOOR_S:
        return 0
    bound = [place for place, seconds in times.items() if seconds < HOST_BOUND * floors.get(place[2], 0.0)]
    for place in bound:
        del times[place]
    return len(bound)


def _gemm_table(times: Mapping[tuple[int, int, int], float], precision: str, notes: TableNotes) -> GemmTable:
    n, at_n = _axis(place[0] for place in times)
    k, at_k = _axis(place[1] for place in times)
    m, at_m = _axis(place[2] for place in times)
    seconds = _grid_of(n.size, k.size, m.size)
    for (of_n, of_k, of_m), value in times.items():
        seconds[at_n[of_n], at_k[of_k], at_m[of_m]] = value
    notes.grids.append(f"{precision}: n {_span(n)}, k {_span(k)}, m {_span(m)}")
    _note_missing(notes, precision, seconds)
    return GemmTable(n=n, k=k, m=m, codes=encode(seconds))


def compile_attention(
    rows: Iterable[Row], part: str, keys: Iterable[AttentionKey] | None = None
) -> tuple[dict[AttentionKey, AttentionTable], TableNotes]:
    """Attention tables by head size, KV precision and window; `keys` keeps only those.

    `part` is `prefill` (lengths are `isl`) or `decode` (`isl + step`). Raises `Rejected` for an unreadable row.
    """
    notes = TableNotes(part=part)
    wanted = None if keys is None else set(keys)
    points: dict[AttentionKey, dict[tuple[tuple[int, int], int, int], list[float]]] = {}
    for row in rows:
        notes.rows += 1
        precision = KV_PRECISIONS.get(str(row.get("kv_cache_dtype")))
        seconds = _latency_s(row)
        if precision is None or isnan(seconds):
            notes.leave_out(f"KV precision {row.get('kv_cache_dtype')}" if precision is None else "no time")
            continue
        key = (
            _size(row, "head_dim"),
            precision,
            _size(row, "window_size") if "window_size" in row else 0,
        )
        if wanted is not None and key not in wanted:
            notes.leave_out(f"head size {key[0]}, KV {key[1]}, window {key[2]}: not kept")
            continue
        heads = (_size(row, "num_heads"), _size(row, "num_key_value_heads"))
        length = _size(row, "isl") + (_size(row, "step") if part == "decode" else 0)
        place = (heads, _size(row, "batch_size"), length)
        if not all((key[0], *heads, place[1], length)):
            notes.leave_out("a size that is none")
            continue
        points.setdefault(key, {}).setdefault(place, []).append(seconds)
        notes.used += 1
    return {key: _attention_table(key, times, notes) for key, times in points.items()}, notes


def _attention_table(
    key: AttentionKey, times: Mapping[tuple[tuple[int, int], int, int], list[float]], notes: TableNotes
) -> AttentionTable:
    pairs = sorted({place[0] for place in times})
    at_pair = {pair: index for index, pair in enumerate(pairs)}
    batches, at_batch = _axis(place[1] for place in times)
    lengths, at_length = _axis(place[2] for place in times)
    name = f"head size {key[0]}, KV {key[1]}, window {key[2] or 'none'}"
    if lengths.size < LEAST_LENGTHS:
        raise Rejected(f"attention, {name}: one length says nothing of others")
    seconds = _grid_of(len(pairs), batches.size, lengths.size)
    for (pair, batch, length), values in times.items():
        seconds[at_pair[pair], at_batch[batch], at_length[length]] = float(np.median(values))
    notes.grids.append(f"{name}: {len(pairs)} pairs of heads, batch {_span(batches)}, length {_span(lengths)}")
    _note_missing(notes, name, seconds)
    return AttentionTable(
        heads=np.array(pairs, dtype=np.int32), batches=batches, lengths=lengths, codes=encode(seconds)
    )


def compile_reduce(rows: Iterable[Row]) -> tuple[dict[str, ReduceTable], TableNotes]:
    """All-reduce tables by how they are launched: `graph` or `eager`. Raises `Rejected` for an unreadable row.

    The columns `backend` and `kernel_source` say which; rows that say neither count as both.
    """
    notes = TableNotes(part="reduce")
    points: dict[str, dict[tuple[int, int], float]] = {}
    for row in rows:
        notes.rows += 1
        if str(row.get("op_name", "all_reduce")) != "all_reduce":
            notes.leave_out(f"operation {row.get('op_name')}")
            continue
        if row.get("nccl_dtype", "half") != "half":
            notes.leave_out(f"type {row.get('nccl_dtype')}")
            continue
        seconds = _latency_s(row)
        if isnan(seconds):
            notes.leave_out("no time")
            continue
        place = (_size(row, "num_gpus"), min(_size(row, "message_size"), _INT32 // 2) * BYTES_PER_ELEMENT)
        if not all(place):
            notes.leave_out("a size that is none")
            continue
        how = f"{row.get('backend', '')} {row.get('kernel_source', '')}"
        for launch in ("graph", "eager"):
            if launch in how or ("graph" not in how and "eager" not in how):
                points.setdefault(launch, {})[place] = seconds
        notes.used += 1
    tables = {}
    for launch, times in points.items():
        gpus, at_gpus = _axis(place[0] for place in times)
        sizes, at_size = _axis(place[1] for place in times)
        seconds_of = _grid_of(gpus.size, sizes.size)
        for (of_gpus, size), value in times.items():
            seconds_of[at_gpus[of_gpus], at_size[size]] = value
        notes.grids.append(f"{launch}: {_span(gpus)} GPUs, {_span(sizes)} bytes")
        _note_missing(notes, launch, seconds_of)
        tables[launch] = ReduceTable(gpus=gpus, sizes=sizes, codes=encode(seconds_of))
    return tables, notes


def _span(grid: np.ndarray[tuple[int], np.dtype[np.int32]]) -> str:
    return f"{grid[0]}..{grid[-1]} ({grid.size})" if grid.size > 1 else str(grid[0])


def _note_missing(notes: TableNotes, name: str, seconds: Array) -> None:
    gone = int(np.isnan(seconds).sum())
    if gone:
        notes.missing.append(f"{name}: {gone} of {seconds.size} points of the grid")
