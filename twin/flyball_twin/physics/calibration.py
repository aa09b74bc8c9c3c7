"""A kernel file from a user's own tables: what `flyball twin calibrate` does, apart from its printing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from flyball_core.errors import Rejected
from flyball_twin.physics.compiling import Row, TableNotes, compile_attention, compile_gemm, compile_reduce
from flyball_twin.physics.hardware import GpuModel, gpu_named
from flyball_twin.physics.held_out import HeldOut, held_out
from flyball_twin.physics.kernel_file import KernelFile, write_kernel_file
from flyball_twin.physics.kernel_tables import read_datasheet, table_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was made of which tables."""

    gpu: GpuModel
    file: Path
    file_bytes: int
    notes: tuple[TableNotes, ...]
    held_out: tuple[HeldOut, ...]
    assumed: tuple[str, ...]
    """What engines on this GPU still assume, because no table was given."""


def calibrated(name: str, datasheet: Path | None, tables: Mapping[str, Sequence[Path]], out: Path) -> Calibrated:
    """Compile tables (by kind, as `kernel_tables.COLUMNS`) into a kernel file at `out`.

    Raises `Rejected` or `InvalidDocument` for a table, datasheet or name that cannot be used.
    """
    if not tables:
        raise Rejected("nothing to calibrate with: name at least one table (--gemm, --generation-attention, ...)")
    if out.suffix != ".npz":
        raise Rejected(f"a kernel file's name ends in .npz, not as {out.name}")
    gpu = gpu_named(name) if datasheet is None else read_datasheet(datasheet, name)
    gemm, gemm_notes = compile_gemm(_rows(tables, "gemm"))
    prefill, prefill_notes = compile_attention(_rows(tables, "context_attention"), "prefill")
    decode, decode_notes = compile_attention(_rows(tables, "generation_attention"), "decode")
    reduce, reduce_notes = compile_reduce(_rows(tables, "all_reduce"))
    notes = tuple(one for one in (gemm_notes, prefill_notes, decode_notes, reduce_notes) if one.rows)
    if not any(one.used for one in notes):
        raise Rejected("none of the rows can be used: " + ("; ".join(_why(one) for one in notes) or "there are none"))
    file = KernelFile(
        gpu=gpu.key,
        sources=tuple(path.name for paths in tables.values() for path in paths),
        gemm=gemm,
        decode=decode,
        prefill=prefill,
        reduce=reduce,
        datasheet=asdict(gpu),
    )
    try:
        write_kernel_file(out, file)
    except OSError as error:
        raise Rejected(f"{out}: cannot be written: {error.strerror or error}") from error
    return Calibrated(
        gpu=gpu,
        file=out,
        file_bytes=out.stat().st_size,
        notes=notes,
        held_out=held_out(gpu, file),
        assumed=tuple(_assumed(file)),
    )


def _rows(tables: Mapping[str, Sequence[Path]], kind: str) -> Iterator[Row]:
    return chain.from_iterable(table_rows(path, kind) for path in tables.get(kind, ()))


def _why(notes: TableNotes) -> str:
    reasons = ", ".join(f"{why} ({count})" for why, count in notes.left_out.items())
    return f"{notes.part}: {reasons or 'no rows'}"


def _assumed(file: KernelFile) -> Iterator[str]:
    for precision in ("bf16", "fp8"):
        if precision not in file.gemm:
            yield f"GEMM in {precision}"
    if not file.prefill:
        yield "attention in prefill"
    if not file.decode:
        yield "attention in decode"
    for launch in ("graph", "eager"):
        if launch not in file.reduce:
            yield f"all-reduce, {launch}"
