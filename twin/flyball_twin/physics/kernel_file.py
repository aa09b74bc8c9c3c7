"""Measured kernel times of one GPU, as a file: read, written, and nothing computed.

A kernel file is a `.npz` without pickles. Times are whole numbers of a 256th of an octave of microseconds
(rounding is at most 0.14 %), `MISSING` where nothing was measured. Grids are kept whole, so a lookup is two searches.
It refuses a file that is not of this form, and knows nothing of interpolation.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyball_core.errors import Rejected

Array = NDArray[np.float64]
Codes = NDArray[np.int16]
Grid = NDArray[np.int32]

FORMAT = "flyball.kernels/1"
STEPS_PER_OCTAVE = 256.0
MISSING = -32768
PAIR = 2
MAX_KERNEL_FILE_BYTES = 32 * 1024 * 1024
"""Of a file, and of what is in it once unpacked."""


def encode(seconds: Array) -> Codes:
    """Times as codes; what is not above 0 (or not a number) is missing."""
    codes = np.full(seconds.shape, MISSING, dtype=np.int16)
    there = seconds > 0.0
    codes[there] = np.round(np.log2(seconds[there] * 1e6) * STEPS_PER_OCTAVE).astype(np.int16)
    return codes


def decode(codes: Codes) -> Array:
    """Seconds; not a number where nothing was measured."""
    seconds = np.exp2(codes.astype(np.float64) / STEPS_PER_OCTAVE) * 1e-6
    seconds[codes == MISSING] = np.nan
    return seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmTable:
    """Times of (m x k) times (k x n) by n, k and m, for one precision of weights and inputs."""

    n: Grid
    k: Grid
    m: Grid
    codes: Codes
    """Axes n, k, m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTable:
    """Times of one layer's attention for one head size, KV precision and window, by heads."""

    heads: Grid
    """Rows of query heads and KV heads, of one GPU."""
    batches: Grid
    lengths: Grid
    codes: Codes
    """Axes heads, batches, lengths (prompt tokens of each, or KV tokens of each)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceTable:
    """Times of an all-reduce by GPUs and bytes."""

    gpus: Grid
    sizes: Grid
    codes: Codes
    """Axes GPUs, sizes."""


AttentionKey = tuple[int, str, int]
"""Head size, KV precision, window (0: none)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """Everything measured on one GPU. A table that is not there is simply not in its mapping."""

    gpu: str
    """Short name of its datasheet row."""
    sources: tuple[str, ...] = ()
    """Where the numbers come from, in words."""
    gemm: Mapping[str, GemmTable] = field(default_factory=dict)
    """By precision."""
    decode: Mapping[AttentionKey, AttentionTable] = field(default_factory=dict)
    prefill: Mapping[AttentionKey, AttentionTable] = field(default_factory=dict)
    reduce: Mapping[str, ReduceTable] = field(default_factory=dict)
    """By how it is launched: `graph` or `eager`."""
    kernels: Mapping[str, str] = field(default_factory=dict)
    """The kernel that a part was measured with, by part."""
    datasheet: Mapping[str, float | str] = field(default_factory=dict)
    """A datasheet row that came with the tables, by field of `GpuModel`; empty: the bundled one holds."""


_FIELDS = {
    "gemm": (GemmTable, ("n", "k", "m", "codes")),
    "decode": (AttentionTable, ("heads", "batches", "lengths", "codes")),
    "prefill": (AttentionTable, ("heads", "batches", "lengths", "codes")),
    "reduce": (ReduceTable, ("gpus", "sizes", "codes")),
}


def write_kernel_file(file: Path, kernels: KernelFile) -> None:
    """Write a kernel file; the same tables give the same bytes."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for part, (_, names) in _FIELDS.items():
        for key, table in getattr(kernels, part).items():
            label = key if isinstance(key, str) else "/".join(str(piece) for piece in key)
            for name in names:
                arrays[f"{part}:{label}:{name}"] = getattr(table, name)
    head = {
        "format": FORMAT,
        "gpu": kernels.gpu,
        "sources": list(kernels.sources),
        "kernels": dict(kernels.kernels),
        "datasheet": dict(kernels.datasheet),
    }
    arrays["head"] = np.frombuffer(json.dumps(head, sort_keys=True).encode(), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(arrays[name]), allow_pickle=False)


_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    SyntaxError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
"""What the readers of archives and arrays raise for files that are damaged, or encrypted, or something else."""


def read_kernel_file(file: Path) -> KernelFile:
    """Read a kernel file. Raises `Rejected` if there is none, or none of this form."""
    try:
        if file.stat().st_size > MAX_KERNEL_FILE_BYTES:
            raise Rejected(f"{file} is larger than {MAX_KERNEL_FILE_BYTES} bytes, the most a kernel file may have")
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_KERNEL_FILE_BYTES:
                raise Rejected(f"{file} unpacks to more than {MAX_KERNEL_FILE_BYTES} bytes")
        with np.load(file, allow_pickle=False) as archive:
            return _from_arrays({name: archive[name] for name in archive.files})
    except Rejected:
        raise
    except OSError as error:
        raise Rejected(f"{file}: cannot be read: {error.strerror or error}") from error
    except _DAMAGE as error:
        raise Rejected(f"{file} is no kernel file: {' '.join(str(error).split())}") from error


def _from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> KernelFile:
    head = json.loads(arrays["head"].tobytes())
    if head.get("format") != FORMAT:
        raise ValueError(f"its format is {head.get('format')!r}, not {FORMAT!r}")
    parts: dict[str, dict[str, dict[str, NDArray[np.generic]]]] = {part: {} for part in _FIELDS}
    for label, array in arrays.items():
        part, _, rest = label.partition(":")
        if part in parts:
            key, _, name = rest.rpartition(":")
            parts[part].setdefault(key, {})[name] = array
    if not isinstance(head["gpu"], str) or not isinstance(head["datasheet"], dict):
        raise TypeError("its head names no GPU")
    return KernelFile(
        gpu=head["gpu"],
        sources=tuple(head["sources"]),
        kernels=head["kernels"],
        datasheet=head["datasheet"],
        gemm={key: _gemm(a) for key, a in parts["gemm"].items()},
        decode={_key(key): _attention(a) for key, a in parts["decode"].items()},
        prefill={_key(key): _attention(a) for key, a in parts["prefill"].items()},
        reduce={key: _reduce(a) for key, a in parts["reduce"].items()},
    )


def _key(label: str) -> AttentionKey:
    head_dim, precision, window = label.split("/")
    return int(head_dim), precision, int(window)


def _gemm(arrays: Mapping[str, NDArray[np.generic]]) -> GemmTable:
    n, k, m = (_grid(arrays[axis]) for axis in ("n", "k", "m"))
    return GemmTable(n=n, k=k, m=m, codes=_codes(arrays["codes"], n.size, k.size, m.size))


def _reduce(arrays: Mapping[str, NDArray[np.generic]]) -> ReduceTable:
    gpus, sizes = _grid(arrays["gpus"]), _grid(arrays["sizes"])
    return ReduceTable(gpus=gpus, sizes=sizes, codes=_codes(arrays["codes"], gpus.size, sizes.size))


def _attention(arrays: Mapping[str, NDArray[np.generic]]) -> AttentionTable:
    heads = arrays["heads"]
    pairs = heads.astype(np.int32)
    if heads.ndim != PAIR or heads.shape[1] != PAIR or heads.dtype != np.int32 or np.any(pairs < 1):
        raise ValueError("the heads of an attention table are pairs of whole numbers above 0")
    batches, lengths = _grid(arrays["batches"]), _grid(arrays["lengths"])
    codes = _codes(arrays["codes"], heads.shape[0], batches.size, lengths.size)
    return AttentionTable(heads=pairs, batches=batches, lengths=lengths, codes=codes)


def _grid(array: NDArray[np.generic]) -> Grid:
    if array.ndim != 1 or array.dtype != np.int32 or not array.size:
        raise ValueError("a grid is a list of whole numbers")
    grid = array.astype(np.int32)
    if grid[0] < 1 or np.any(np.diff(grid) <= 0):
        raise ValueError("a grid rises from 1 or more")
    return grid


def _codes(array: NDArray[np.generic], *shape: int) -> Codes:
    if array.shape != shape or array.dtype != np.int16:
        raise ValueError(f"its codes are {array.dtype} of {array.shape}, not 16-bit numbers of {shape}")
    codes = array.astype(np.int16)
    if not (codes.reshape(shape[0], -1) != MISSING).any(axis=1).all():
        raise ValueError("a part of a table is empty")
    return codes
