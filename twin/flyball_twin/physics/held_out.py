"""How far interpolation in a kernel file is off: points are left out, predicted from the others, and compared.

One grid line at a time is left out (a token count, a width, a batch size, a length), so what is measured is the error
between neighbours twice as far apart as they are: an upper bound for points between those that are there. It refuses
to judge the measurements themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from flyball_twin.physics.hardware import GpuModel
from flyball_twin.physics.kernel_file import Array, AttentionTable, GemmTable, KernelFile, decode
from flyball_twin.physics.kernels import Kernels

LEAST_SHAPE = 256
"""Widths below this are no layer's on one GPU; they are not held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Absolute percentage errors at the points of grid lines that were left out."""

    what: str
    points: int
    median_ape: float
    p90_ape: float


def _held_out(what: str, errors: list[Array]) -> Iterator[HeldOut]:
    found = np.concatenate(errors) if errors else np.empty(0)
    found = found[~np.isnan(found)] * 100.0
    if found.size:
        yield HeldOut(
            what=what,
            points=int(found.size),
            median_ape=round(float(np.median(found)), 2),
            p90_ape=round(float(np.quantile(found, 0.9)), 2),
        )


def held_out(gpu: GpuModel, file: KernelFile) -> tuple[HeldOut, ...]:
    """The errors of every table that has three lines or more along an axis."""
    found: list[HeldOut] = []
    for precision, table in file.gemm.items():
        found.extend(_held_out(f"gemm {precision} by tokens", _gemm_tokens(gpu, precision, table)))
        found.extend(_held_out(f"gemm {precision} by shape", _gemm_shapes(gpu, precision, table)))
    for part, tables in (("decode", file.decode), ("prefill", file.prefill)):
        for key, attention in tables.items():
            name = f"{part} attention, head size {key[0]}, KV {key[1]}, window {key[2] or 'none'}"
            errors = _attention(attention, part)
            for axis, of_axis in errors.items():
                found.extend(_held_out(f"{name}, by {axis}", of_axis))
    return tuple(found)


def _gemm_tokens(gpu: GpuModel, precision: str, table: GemmTable) -> list[Array]:
    """Every measured token count predicted from the one before and the one after."""
    n, k, m = (axis.astype(np.float64) for axis in np.meshgrid(table.n, table.k, table.m, indexing="ij", sparse=True))
    ideal = Kernels(gpu=gpu, file=KernelFile(gpu=gpu.key)).roofline_s(precision, m, n, k)
    logs, at = np.log(decode(table.codes) / ideal), np.log(table.m.astype(np.float64))
    shares = (at[1:-1] - at[:-2]) / (at[2:] - at[:-2])
    between = logs[..., :-2] + shares * (logs[..., 2:] - logs[..., :-2])
    kept = np.ix_(table.n >= LEAST_SHAPE, table.k >= LEAST_SHAPE, np.ones(shares.size, dtype=bool))
    return [np.abs(np.exp(between - logs[..., 1:-1]) - 1.0)[kept].ravel()] if shares.size else []


def _gemm_shapes(gpu: GpuModel, precision: str, table: GemmTable) -> list[Array]:
    """Every width and depth but the outermost predicted from the tables without it."""
    seconds, tokens = decode(table.codes), table.m.astype(np.float64)
    errors: list[Array] = []
    for axis in (0, 1):
        grid = table.n if axis == 0 else table.k
        others = table.k if axis == 0 else table.n
        for at in range(1, grid.size - 1):
            if grid[at] < LEAST_SHAPE:
                continue
            codes = np.delete(table.codes, at, axis=axis)
            smaller = replace(table, **{"nk"[axis]: np.delete(grid, at)}, codes=codes)
            kernels = Kernels(gpu=gpu, file=KernelFile(gpu=gpu.key, gemm={precision: smaller}))
            for place, other in enumerate(others.tolist()):
                if other < LEAST_SHAPE:
                    continue
                n, k = (int(grid[at]), other) if axis == 0 else (other, int(grid[at]))
                truth = seconds[at, place] if axis == 0 else seconds[place, at]
                errors.append(np.abs(kernels.gemm_s(precision, tokens, n, k) / truth - 1.0))
    return errors


def _attention(table: AttentionTable, part: str) -> Mapping[str, list[Array]]:
    """Every batch size and length between two others predicted from these."""
    seconds = decode(table.codes)
    batches, lengths = table.batches.astype(np.float64), table.lengths.astype(np.float64)
    return {"batch": [_between(seconds, batches, 1, part)], "length": [_between(seconds, lengths, 2, part)]}


def _between(seconds: Array, grid: Array, axis: int, part: str) -> Array:
    """Relative errors of the inner points; lengths of prompts go log-log, everything else in a line."""
    log_log = part == "prefill" and axis == 2
    values = np.moveaxis(np.log(seconds) if log_log else seconds, axis, -1)
    places = np.log(grid) if log_log else grid
    if places.size < 3:
        return np.empty(0)
    shares = (places[1:-1] - places[:-2]) / (places[2:] - places[:-2])
    between = values[..., :-2] + shares * (values[..., 2:] - values[..., :-2])
    truth = values[..., 1:-1]
    errors = np.exp(between - truth) if log_log else between / truth
    return np.abs(errors - 1.0).ravel()
