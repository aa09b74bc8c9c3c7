"""Kernel files hold what was measured, and say of everything else that it is assumed."""

import zipfile
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from flyball_core.errors import Rejected
from flyball_twin.physics import GPUS, H100, Kernels, kernel_file_of
from flyball_twin.physics.compiling import Row, compile_attention, compile_gemm, compile_reduce
from flyball_twin.physics.held_out import held_out
from flyball_twin.physics.kernel_file import (
    MISSING,
    KernelFile,
    decode,
    encode,
    read_kernel_file,
    write_kernel_file,
)
from flyball_twin.physics.kernels import AttentionShape
from measured_tables import CALIBRATION, measured

TABLES = {"a100_sxm": "vllm0.14.0", "h100_sxm": "vllm0.24.0", "h200_sxm": "vllm0.24.0"}
ROOT = Path(__file__).resolve().parents[2]
ROUNDING = 0.0014
"""Half a step of the codes."""
WITH_TABLES = pytest.mark.parametrize("gpu", sorted(TABLES))


def source(gpu: str, operation: str) -> list[Row]:
    """The rows of a measured table."""
    rows: list[Row] = list(pq.read_table(measured(f"aic_{gpu}_{TABLES[gpu]}_{operation}_perf")).to_pylist())
    return rows


def bundled(gpu: str) -> Kernels:
    """The kernels of a GPU with a bundled file."""
    return Kernels(gpu=GPUS[gpu], file=kernel_file_of(GPUS[gpu]))


def gemm(n: int, k: int, m: int, milliseconds: float, precision: str = "bfloat16") -> Row:
    """A row of a GEMM table."""
    return {"gemm_dtype": precision, "n": n, "k": k, "m": m, "latency": milliseconds}


def attention(heads: int, batch: int, length: int, milliseconds: float, **more: object) -> Row:
    """A row of an attention table."""
    return {
        "batch_size": batch,
        "isl": length,
        "num_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 128,
        "kv_cache_dtype": "bfloat16",
        "latency": milliseconds,
        **more,
    }


def save_archive(file: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """An archive of these arrays, pickles and all."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=True)


@WITH_TABLES
def test_a_measured_gemm_takes_what_was_measured(gpu: str) -> None:
    """At every tenth kept point of the source table the lookup answers its time, but for rounding."""
    kernels = bundled(gpu)
    rows = [row for row in source(gpu, "gemm") if row["gemm_dtype"] == "bfloat16" and row["m"] in (1, 16, 256, 4096)]
    wide = [row for row in rows if min(int(str(row["n"])), int(str(row["k"]))) >= 128][::10]

    assert len(wide) > 100
    for row in wide:
        n, k, m = (int(str(row[axis])) for axis in ("n", "k", "m"))
        assert kernels.gemm_s("bf16", np.array([float(m)]), n, k)[0] * 1e3 == pytest.approx(
            row["latency"], rel=ROUNDING
        )


def test_token_counts_that_were_thinned_out_are_interpolated_well() -> None:
    """Counts that the file leaves out are predicted within 3 % at half of the source's points, 12 % at 90 %."""
    kernels = bundled("h100_sxm")
    errors = []
    for row in source("h100_sxm", "gemm"):
        if row["gemm_dtype"] == "bfloat16" and row["m"] in (3, 6, 11, 14):
            n, k, m = (int(str(row[axis])) for axis in ("n", "k", "m"))
            if min(n, k) >= 1024:
                predicted = kernels.gemm_s("bf16", np.array([float(m)]), n, k)[0] * 1e3
                errors.append(abs(predicted / float(str(row["latency"])) - 1.0))

    assert len(errors) > 500
    assert np.median(errors) < 0.03
    assert np.quantile(errors, 0.9) < 0.12


@WITH_TABLES
def test_measured_decode_attention_takes_what_was_measured(gpu: str) -> None:
    """For 32 query and 8 KV heads each batch and length answers its time, but for rounding and for dips that are noise.

    Times never fall as batch or length grow: where the source's do, the longer of the two holds.
    """
    shape = AttentionShape(heads=32, kv_heads=8, head_dim=128, kv_precision="bf16")
    grid = bundled(gpu).decode_attention(shape)
    off = []
    for row in source(gpu, "generation_attention"):
        key = (row["num_heads"], row["num_key_value_heads"], row["head_dim"], row["kv_cache_dtype"])
        if key == (32, 8, 128, "bfloat16") and not row.get("window_size"):
            length = int(str(row["isl"])) + int(str(row["step"]))
            seconds = np.interp(length, grid.lengths, grid.row(float(str(row["batch_size"]))))
            off.append(seconds * 1e3 / float(str(row["latency"])) - 1.0)

    assert len(off) > 100
    assert min(off) > -2 * ROUNDING
    assert np.quantile(off, 0.9) < 0.02


@WITH_TABLES
def test_held_out_points_are_predicted(gpu: str) -> None:
    """Lines of the grids that are left out are predicted within 6 % at half of their points, 20 % at 90 %."""
    found = [one for one in held_out(GPUS[gpu], kernel_file_of(GPUS[gpu])) if "prefill" not in one.what]

    assert {"gemm bf16 by shape", "gemm bf16 by tokens"} <= {one.what for one in found}
    for one in found:
        assert one.points > 100, one
        assert one.median_ape < 6.0, one
        assert one.p90_ape < 20.0, one


@WITH_TABLES
def test_large_kernels_reach_plausible_shares_of_the_peaks(gpu: str) -> None:
    """No table beats its GPU's datasheet, and large kernels come near it: the units are right."""
    kernels, row = bundled(gpu), GPUS[gpu]
    compute = (
        2.0 * 4096 * 8192 * 8192 / kernels.gemm_s("bf16", np.array([4096.0]), 8192, 8192)[0] / row.bf16_flops_per_s
    )
    stream = 2.0 * 8192 * 8192 / kernels.gemm_s("bf16", np.array([1.0]), 8192, 8192)[0] / row.hbm_bytes_per_s
    shape = AttentionShape(heads=32, kv_heads=8, head_dim=128, kv_precision="bf16")
    grid = kernels.decode_attention(shape)
    read = 64 * 8192 * shape.kv_bytes / np.interp(8192, grid.lengths, grid.row(64)) / row.hbm_bytes_per_s
    size = np.array([2.0**28])
    wire = 2.0 * 7 / 8 * size[0] / kernels.all_reduce_s(8, size, graph=True)[0] / row.link_bytes_per_s

    for share in (compute, stream, read, wire):
        assert 0.6 < share <= 1.02


def test_other_measurements_of_the_same_gemms_are_as_fast_or_a_little_slower() -> None:
    """Vidur timed an H100 with older libraries, outside of graphs: the same shapes took 0 to 35 % longer."""
    kernels = bundled("h100_sxm")
    ratios = []
    for row in pq.read_table(measured("vidur_h100_Llama-2-70b-hf_mlp")).to_pylist():
        ranks, tokens = row["num_tensor_parallel_workers"], row["num_tokens"]
        if tokens >= 8:
            seconds = kernels.gemm_s("bf16", np.array([float(tokens)]), 2 * 28_672 // ranks, 8192)[0]
            ratios.append(row["time_stats.mlp_up_proj.median"] * 1e-3 / seconds)

    assert len(ratios) > 1000
    assert 1.0 < np.median(ratios) < 1.35


def test_other_measurements_of_all_reduces_agree() -> None:
    """Vidur's all-reduces of 1 to 64 MiB over 2 and 4 H100s took what ours take, within 15 % at the median."""
    kernels = bundled("h100_sxm")
    rows = [
        row
        for row in pq.read_table(measured("vidur_h100_dgx_all_reduce")).to_pylist()
        if row["size"] >= 2**20 and row["devices_per_node"] == row["num_workers"]
    ]
    for gpus in (2, 4):
        of_gpus = [row for row in rows if row["num_workers"] == gpus]
        seconds = kernels.all_reduce_s(gpus, np.array([float(row["size"]) for row in of_gpus]), graph=True)
        ratios = seconds * 1e3 / np.array([row["time_stats.all_reduce.median"] for row in of_gpus])

        assert len(of_gpus) > 500
        assert 0.85 < np.median(ratios) < 1.15


def test_a_graph_launches_small_all_reduces_faster() -> None:
    """Of 8 KiB over 8 GPUs the launch is most; of 64 MiB it is nothing."""
    kernels = bundled("h100_sxm")
    small, large = np.array([8192.0]), np.array([2.0**26])

    assert kernels.all_reduce_s(8, small, graph=False) > 3 * kernels.all_reduce_s(8, small, graph=True)
    assert kernels.all_reduce_s(8, large, graph=False) < 1.4 * kernels.all_reduce_s(8, large, graph=True)
    assert kernels.all_reduce_s(1, large, graph=True) == 0.0
    assert not kernels.assumed


def test_what_no_table_holds_is_named() -> None:
    """Other precisions, heads, head sizes and numbers of GPUs are answered, each with a word in `assumed`."""
    kernels = bundled("h100_sxm")
    tokens = np.array([8.0])
    bf16_s = kernels.gemm_s("bf16", tokens, 8192, 8192)
    odd = AttentionShape(heads=56, kv_heads=8, head_dim=128, kv_precision="bf16")
    other = AttentionShape(heads=16, kv_heads=8, head_dim=80, kv_precision="bf16")

    assert not kernels.assumed
    assert kernels.gemm_s("int4", tokens, 8192, 8192) < 0.5 * bf16_s
    assert kernels.decode_attention(odd).seconds.min() > 0.0
    assert kernels.prefill_attention(other).alone_s.min() > 0.0
    assert kernels.all_reduce_s(16, np.array([1e6]), graph=True)[0] > 0.0
    assert ["int4", "56/8", "prefill", "16 GPUs"] == [
        next(word for word in ("int4", "56/8", "16 GPUs", "prefill") if word in said) for said in kernels.assumed
    ]


def test_a_gpu_without_tables_has_roofline_times() -> None:
    """A datasheet row alone answers everything, in proportion to its peaks, and all of it is assumed."""
    kernels = Kernels(gpu=H100, file=KernelFile(gpu="none"))
    one, many = kernels.gemm_s("bf16", np.array([1.0, 16384.0]), 8192, 8192)
    shape = AttentionShape(heads=32, kv_heads=8, head_dim=128, kv_precision="bf16")
    grid = kernels.decode_attention(shape)

    assert 2.0 * 8192 * 8192 / H100.hbm_bytes_per_s < one < 2.0 * 2.0 * 8192 * 8192 / H100.hbm_bytes_per_s
    assert (
        2.0 * 16384 * 8192 * 8192 / H100.bf16_flops_per_s
        < many
        < 2.0 * 2.0 * 16384 * 8192 * 8192 / H100.bf16_flops_per_s
    )
    assert grid.row(64)[-1] > 60 * grid.row(1)[-1]
    assert len(kernels.assumed) == 2


def test_a_kernel_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Written twice the bytes are the same; read, every table is there, and missing points are missing."""
    tables, _ = compile_gemm([gemm(n, k, m, 1e-3 * n) for n in (256, 512) for k in (256, 512) for m in (1, 8) if m < k])
    prefill, _ = compile_attention([attention(8, 1, s, s * 1e-3) for s in (64, 128)], "prefill")
    reduce, _ = compile_reduce([{"num_gpus": 2, "message_size": 2**at, "latency": 2.0**at} for at in range(4)])
    file = KernelFile(gpu="mine", sources=("a",), gemm=tables, prefill=prefill, reduce=reduce, datasheet={"name": "x"})
    for name in ("one.npz", "two.npz"):
        write_kernel_file(tmp_path / name, file)
    back = read_kernel_file(tmp_path / "one.npz")

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (back.gpu, back.sources) == ("mine", ("a",))
    assert np.array_equal(back.gemm["bf16"].codes, tables["bf16"].codes)
    assert back.prefill.keys() == {(128, "bf16", 0)}
    assert back.reduce["graph"].sizes.tolist() == [2, 4, 8, 16]
    assert back.datasheet == {"name": "x"}


def test_codes_round_by_little_and_keep_gaps() -> None:
    """From a microsecond to ten seconds a time comes back within 0.14 %; none comes back as none."""
    seconds = np.geomspace(1e-6, 10.0, 1000)

    assert decode(encode(seconds)) == pytest.approx(seconds, rel=ROUNDING)
    assert encode(np.array([np.nan, 0.0])).tolist() == [MISSING, MISSING]
    assert np.isnan(decode(encode(np.array([np.nan])))).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\x03\x04 cut"],
)
def test_what_is_no_kernel_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """Files that are none are refused by name, and so is one that is not there."""
    file = tmp_path / "f.npz"
    file.write_bytes(content)

    with pytest.raises(Rejected, match=r"f\.npz is no kernel file"):
        read_kernel_file(file)
    with pytest.raises(Rejected, match=r"none\.npz: cannot be read: No such file"):
        read_kernel_file(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "spoil",
    [
        {"head": np.frombuffer(b'{"format": "other"}', dtype=np.uint8)},
        {"gemm:bf16:codes": np.zeros((1, 1, 1), dtype=np.int16)},
        {"gemm:bf16:n": np.array([512, 256], dtype=np.int32)},
        {"gemm:bf16:m": np.array([0.5])},
        {"head": np.array([{}], dtype=object)},
    ],
)
def test_an_archive_with_other_arrays_is_refused(tmp_path: Path, spoil: dict[str, NDArray[np.generic]]) -> None:
    """A format, a shape or a type that does not fit is refused, and nothing pickled is ever loaded."""
    tables, _ = compile_gemm([gemm(n, 256, 1, 1.0) for n in (256, 512)])
    write_kernel_file(tmp_path / "good.npz", KernelFile(gpu="mine", gemm=tables))
    with np.load(tmp_path / "good.npz") as good:
        arrays = {name: good[name] for name in good.files}
    save_archive(tmp_path / "bad.npz", {**arrays, **spoil})

    with pytest.raises(Rejected, match="is no kernel file"):
        read_kernel_file(tmp_path / "bad.npz")


def test_times_of_the_host_are_not_taken_for_times_of_the_gpu() -> None:
    """A table whose smallest shapes all take 60 us was launched by hand: only what is well above that is kept."""
    widths = (128, 512, 8192, 16384)
    rows = [gemm(n, k, m, max(0.06, n * k * 1e-9), "fp8") for n in widths for k in widths for m in (1, 16)]
    tables, notes = compile_gemm(rows)
    honest, no_notes = compile_gemm([row for row in rows if float(str(row["latency"])) > 0.06])

    assert int((tables["fp8"].codes != MISSING).sum()) == 6
    assert notes.left_out == {"fp8: timed through the host": len(rows) - 6}
    assert int((honest["fp8"].codes != MISSING).sum()) == 8
    assert not no_notes.left_out


def test_unaligned_token_counts_and_unusable_rows_are_left_out_with_a_word() -> None:
    """Of each kind of row that is not taken the notes keep count."""
    rows = [
        *(gemm(n, 256, 1, 5e-3) for n in (256, 512)),
        gemm(256, 256, 129, 5e-3),
        gemm(256, 256, 1, float("nan")),
        gemm(0, 256, 1, 5e-3),
        gemm(256, 256, 1, 5e-3, "int3"),
    ]
    _, notes = compile_gemm(rows)

    assert notes.left_out == {
        "tokens that are no multiple of 8": 1,
        "no time": 1,
        "a size that is none": 1,
        "precision int3": 1,
    }
    assert (notes.rows, notes.used) == (6, 2)


def test_rows_that_cannot_be_read_are_refused() -> None:
    """A word where a number belongs, a grid of nothing and attention at one length are refused, with the reason."""
    with pytest.raises(Rejected, match="latency"):
        compile_gemm([{**gemm(256, 256, 1, 1.0), "latency": "fast"}])
    with pytest.raises(Rejected, match="on no grid"):
        compile_gemm([gemm(1000 + at, 10_000 + at, 8 * at, 1.0) for at in range(1, 300)])
    with pytest.raises(Rejected, match="one length"):
        compile_attention([attention(8, 1, 64, 1.0)], "prefill")


def test_the_bundled_file_is_what_the_script_makes_of_the_tables() -> None:
    """Compiling the source tables of the A100 again gives every array of its bundled file."""
    measured("aic_a100_sxm_vllm0.14.0_gemm_perf")
    spec = spec_from_file_location("compile_kernels", ROOT / "scripts" / "compile_kernels.py")
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    made, kept = script.compiled(CALIBRATION, "a100_sxm"), kernel_file_of(GPUS["a100_sxm"])

    assert (made.gpu, made.sources, made.kernels) == (kept.gpu, kept.sources, kept.kernels)
    for part in ("gemm", "decode", "prefill", "reduce"):
        ours, theirs = getattr(made, part), getattr(kept, part)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert np.array_equal(ours[key].codes, theirs[key].codes)
