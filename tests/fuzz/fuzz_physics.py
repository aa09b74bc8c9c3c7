"""Targets: what the twin's physics is read from, kernel files, tables of kernel times and models' configs.

The promises: a wrong one is refused with `Rejected`, in text that can be written anywhere; a right one answers every
question about kernels and weights with finite times and bytes.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flyball_core.errors import Rejected
from flyball_twin.physics import H100, Kernels, rank_shapes, read_model
from flyball_twin.physics.compiling import compile_attention, compile_gemm, compile_reduce
from flyball_twin.physics.kernel_file import KernelFile, read_kernel_file, write_kernel_file
from flyball_twin.physics.kernel_tables import COLUMNS, table_rows
from flyball_twin.physics.kernels import AttentionShape
from fuzz_bytes import says

TOKENS = np.array([1.0, 7.0, 4096.0])


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flyball-fuzz-") as folder:
        (file := Path(folder) / name).write_bytes(data)
        yield file


def kernel_file(data: bytes) -> None:
    """A kernel file: refused, or it answers and is written again as it is."""
    with _file("kernels.npz", data) as file:
        try:
            kernels = read_kernel_file(file)
        except Rejected as error:
            says(error)
            return
        _answers(kernels)
        write_kernel_file(file, kernels)
        assert kernels.gemm.keys() == read_kernel_file(file).gemm.keys()


def _answers(file: KernelFile) -> None:
    """Every kernel has a time above 0."""
    kernels = Kernels(gpu=H100, file=file)
    times = [kernels.gemm_s(precision, TOKENS, 5120, 3000) for precision in ("bf16", "fp8", "fp8_block", "int4")]
    times += [kernels.all_reduce_s(gpus, TOKENS * 1e3, graph=graph) for gpus in (2, 8) for graph in (True, False)]
    keys = {(128, "bf16", 0), *file.decode, *file.prefill}
    for head_dim, precision, window in keys:
        if precision in ("bf16", "fp8") and head_dim > 0 and window >= 0:
            shape = AttentionShape(heads=32, kv_heads=8, head_dim=head_dim, kv_precision=precision, window=window)
            times += [kernels.decode_attention(shape).row(batch) for batch in (1, 24, 5000)]
            times.append(kernels.prefill_attention(shape).alone_s)
    for seconds in times:
        assert seconds.size
        assert np.isfinite(seconds).all()
        assert (seconds > 0.0).all()


def kernel_table(data: bytes) -> None:
    """A table of kernel times as CSV, its first byte saying of which kind: refused, or made a file that answers."""
    kind = list(COLUMNS)[data[0] % len(COLUMNS)] if data else "gemm"
    with _file("table.csv", data[1:]) as file:
        try:
            rows = table_rows(file, kind)
            if kind == "gemm":
                compiled = KernelFile(gpu="mine", gemm=compile_gemm(rows)[0])
            elif kind == "all_reduce":
                compiled = KernelFile(gpu="mine", reduce=compile_reduce(rows)[0])
            elif kind == "context_attention":
                compiled = KernelFile(gpu="mine", prefill=compile_attention(rows, "prefill")[0])
            else:
                compiled = KernelFile(gpu="mine", decode=compile_attention(rows, "decode")[0])
        except Rejected as error:
            says(error)
            return
        _answers(compiled)
        write_kernel_file(file, compiled)
        read_kernel_file(file)


def model_config(data: bytes) -> None:
    """A model's config: refused, or its weights are some and are what its GPU holds."""
    with _file("config.json", data) as file:
        try:
            model = read_model(file)
            shapes = rank_shapes(model, ranks=1, weights="fp8")
        except Rejected as error:
            says(error)
            return
        assert 0.0 < model.active_parameters <= model.parameters * (2.0 if model.tied_embeddings else 1.0) + 1.0
        assert shapes.weight_bytes > 0.0
        assert model.kv_bytes_in("fp8") >= 0.0
