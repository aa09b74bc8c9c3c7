"""Compile measured kernel times of aiconfigurator into the twin's kernel files.

    python scripts/compile_kernels.py TABLES [--out FOLDER]

TABLES is a folder with the tables of `ai-dynamo/aiconfigurator` (aic-core/src/aiconfigurator_core/systems/data, commit
095f58a51c4ca8e61b66ec108d86f223f8d559ce, Apache-2.0), one Parquet file for each of GPU, software and operation, named
`aic_GPU_SOFTWARE_OPERATION_perf.parquet`. For each GPU it writes `GPU.npz`, and says what thinning changed at the
points of the tables. Left out are the shapes that no layer has, token counts between powers of two up to 16, between
multiples of 8, and beyond 16384, and attention with head sizes and windows of no bundled model.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flyball_twin.physics.compiling import Row, compile_attention, compile_gemm, compile_reduce
from flyball_twin.physics.engine_model import KERNELS
from flyball_twin.physics.hardware import GPUS, GpuModel
from flyball_twin.physics.kernel_file import GemmTable, KernelFile, decode, read_kernel_file, write_kernel_file
from flyball_twin.physics.kernel_tables import table_rows
from flyball_twin.physics.kernels import Kernels

COMMIT = "095f58a51c4ca8e61b66ec108d86f223f8d559ce"
SOFTWARE = {"a100_sxm": "vllm0.14.0", "h100_sxm": "vllm0.24.0", "h200_sxm": "vllm0.24.0"}
KINDS = {"custom_allreduce": "all_reduce"}
LEFT_OUT_TOKENS = {3, 5, 6, 7, *range(9, 16), 32768}
LEAST_WIDTH = 128
PROMPTS = (1, 8, 64, 256)
"""Of prefill attention the lookup uses one prompt alone and the most that were measured together."""
ATTENTION = [
    (size, kv, window) for size, window in ((64, 0), (64, 128), (128, 0), (192, 0), (256, 0)) for kv in ("bf16", "fp8")
]


def rows(tables: Path, gpu: str, operation: str) -> list[Row]:
    """The rows of one table."""
    file = tables / f"aic_{gpu}_{SOFTWARE[gpu]}_{operation}_perf.parquet"
    return list(table_rows(file, KINDS.get(operation, operation)))


def wanted(gemms: list[Row]) -> Iterator[Row]:
    """The GEMM rows that are kept."""
    for row in gemms:
        n, k, m = row["n"], row["k"], row["m"]
        if isinstance(n, int) and isinstance(k, int) and min(n, k) >= LEAST_WIDTH and m not in LEFT_OUT_TOKENS:
            yield row


def compiled(tables: Path, gpu: str) -> KernelFile:
    """The kernel file of one GPU."""
    gemm, _ = compile_gemm(wanted(rows(tables, gpu, "gemm")))
    decoding, _ = compile_attention(rows(tables, gpu, "generation_attention"), "decode", ATTENTION)
    prompts = [row for row in rows(tables, gpu, "context_attention") if row["batch_size"] in PROMPTS]
    prefill, _ = compile_attention(prompts, "prefill", ATTENTION)
    reduce, _ = compile_reduce(rows(tables, gpu, "custom_allreduce"))
    return KernelFile(
        gpu=gpu,
        sources=(f"ai-dynamo/aiconfigurator@{COMMIT}, {SOFTWARE[gpu]}, Apache-2.0",),
        gemm=gemm,
        decode=decoding,
        prefill=prefill,
        reduce=reduce,
        kernels={
            part: ", ".join(sorted({str(row["kernel_source"]) for row in rows(tables, gpu, operation)}))
            for part, operation in (
                ("gemm", "gemm"),
                ("decode", "generation_attention"),
                ("prefill", "context_attention"),
            )
        },
    )


def thinning(gpu: GpuModel, file: KernelFile, whole: dict[str, GemmTable]) -> str:
    """What thinning changed at the points of the whole tables, in words."""
    kernels = Kernels(gpu=gpu, file=file)
    changes = []
    for precision, table in whole.items():
        seconds, tokens = decode(table.codes), table.m.astype(np.float64)
        for at_n, n in enumerate(table.n.tolist()):
            for at_k, k in enumerate(table.k.tolist()):
                if min(n, k) >= LEAST_WIDTH:
                    changes.append(kernels.gemm_s(precision, tokens, n, k) / seconds[at_n, at_k] - 1.0)
    change = np.abs(np.concatenate(changes))
    change = change[~np.isnan(change)] * 100.0
    beyond = np.quantile(change, [0.5, 0.9, 0.99])
    shares = ", ".join(f"{off:.2f} % at {share}" for off, share in zip(beyond, ("half", "90 %", "99 %"), strict=True))
    return f"GEMM off by {shares} of {change.size} points"


def main() -> None:
    """Compile every GPU."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tables", type=Path)
    parser.add_argument("--out", type=Path, default=KERNELS)
    given = parser.parse_args()
    for gpu in SOFTWARE:
        target = given.out / f"{gpu}.npz"
        write_kernel_file(target, compiled(given.tables, gpu))
        whole, notes = compile_gemm(rows(given.tables, gpu, "gemm"))
        print(f"{target.name}: {target.stat().st_size} bytes; {thinning(GPUS[gpu], read_kernel_file(target), whole)}")
        for why, count in notes.left_out.items():
            print(f"  left out {why}: {count} of {notes.rows} GEMM rows")


if __name__ == "__main__":
    main()
