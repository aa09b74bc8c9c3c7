"""`flyball twin calibrate` makes a kernel file of measurements, says how good it is, and refuses what is none."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli_calls import Answer
from documented_shapes import same_shape
from flyball_twin.physics import FLASH_ATTN, EngineModel, hardware_of, model_named

Flyball = Callable[..., Answer]

SYSTEM = """\
gpu:
  mem_bw: 2.0e12   # a comment
  mem_capacity: 85899345920
  bfloat16_tc_flops: 4.0e14
  power: 400
node:
  intra_node_bw: 3.0e11
"""
DATASHEET = """\
name: Mine
hbm_bytes: 80e9
hbm_bytes_per_s: 2e12
bf16_flops_per_s: 4e14
fp8_flops_per_s: 8e14
link_bytes_per_s: 3e11
"""
WIDTHS = (256, 1024, 4096, 16_384)
TOKENS = (1, 8, 32, 128, 256, 512, 1024, 2048, 4096)
BANDWIDTH, FLOPS = 1.6e12, 3e14
"""What the GPU of these tests reaches, exactly."""


def gemm_ms(n: int, k: int, m: int) -> float:
    """What a GEMM takes on it."""
    return 1e3 * (3e-6 + max(2.0 * (n * k + m * (n + k)) / BANDWIDTH, 2.0 * m * n * k / FLOPS))


def csv(file: Path, columns: str, rows: Iterable[Iterable[object]]) -> Path:
    """A table as CSV."""
    file.write_text("\n".join([columns, *(",".join(str(cell) for cell in row) for row in rows)]) + "\n")
    return file


def gemm_table(folder: Path, *more: tuple[object, ...]) -> Path:
    """Its GEMM table, and further rows."""
    rows = [("bfloat16", m, n, k, gemm_ms(n, k, m)) for n in WIDTHS for k in WIDTHS for m in TOKENS]
    return csv(folder / "gemm.csv", "gemm_dtype,m,n,k,latency", [*rows, *more])


@pytest.fixture
def datasheet(tmp_path: Path) -> Path:
    """The datasheet of the GPU."""
    file = tmp_path / "mine.yaml"
    file.write_text(DATASHEET)
    return file


def test_every_table_becomes_part_of_a_file_that_engines_run_by(
    flyball: Flyball, tmp_path: Path, datasheet: Path
) -> None:
    """From CSV and Parquet, with the documented document; the engine's step is then what was measured."""
    attention = [
        {"batch_size": b, "isl": s, "step": 0, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
         "kv_cache_dtype": "bfloat16", "latency": 0.01 + b * s * 2.56e-6}
        for b in (1, 8, 64) for s in (16, 256, 4096)
    ]  # fmt: skip
    pq.write_table(
        pa.table({name: [row[name] for row in attention] for name in attention[0]}), tmp_path / "attention.parquet"
    )
    reduce = csv(
        tmp_path / "r.csv", "num_gpus,message_size,latency", [(2, 2**at, 0.01 + 2e-8 * 2**at) for at in range(20)]
    )
    unused = ("int8", 1, 256, 256, 1.0)
    answer = flyball(
        "twin", "calibrate", "--name", "mine", "--datasheet", datasheet, "--gemm", gemm_table(tmp_path, unused),
        "--context-attention", tmp_path / "attention.parquet", "--generation-attention", tmp_path / "attention.parquet",
        "--all-reduce", reduce, "-o", tmp_path / "mine.npz", "--json",
    )  # fmt: skip
    gpu, kernels = hardware_of("mine.npz", tmp_path)
    engine = EngineModel(gpu=gpu, kernels=kernels, model=model_named("llama-3.1-8b"), tensor_parallel=1)
    parts = engine.cost(FLASH_ATTN).parts(8, 8 * 256)
    gemms = ((6144, 4096), (4096, 4096), (28_672, 4096), (4096, 14_336))

    same_shape("twin-calibrate", answer.document)
    assert answer.document["assumed"] == ["GEMM in fp8"]
    assert [145, 9, 9, 20] == [table["rows"] for table in answer.document["tables"]]
    assert answer.document["tables"][0]["left_out"] == [{"why": "precision int8", "rows": 1}]
    assert all(one["median_ape"] < 20.0 for one in answer.document["held_out"] if "gemm" in one["what"])
    assert parts.gemm_s == pytest.approx(sum(32e-3 * gemm_ms(n, k, 8) for n, k in gemms), rel=0.05)
    assert parts.attention_decode_s == pytest.approx(32e-3 * (0.01 + 8 * 256 * 2.56e-6), rel=0.01)
    assert gpu.name == "Mine"


def test_a_system_file_is_a_datasheet_and_a_known_gpu_needs_none(flyball: Flyball, tmp_path: Path) -> None:
    """The system files of aiconfigurator do; of a GPU the twin knows the name is enough. In words it says the same."""
    (tmp_path / "system.yaml").write_text(SYSTEM)
    table = gemm_table(tmp_path)
    named = flyball("twin", "calibrate", "--name", "h100_sxm", "--gemm", table, "-o", tmp_path / "h.npz")
    given = flyball(
        "twin", "calibrate", "--name", "x", "--datasheet", tmp_path / "system.yaml", "--gemm", table, "-o",
        tmp_path / "x.npz",
    )  # fmt: skip
    gpu, _ = hardware_of("x.npz", tmp_path)

    assert (0, 0) == (named.code, given.code)
    assert "gemm: 144 of 144 rows" in given.out
    assert "assumed: attention in decode" in given.out
    assert (gpu.hbm_bytes_per_s, gpu.fp8_flops_per_s) == (2e12, 4e14)
    assert hardware_of("h.npz", tmp_path)[0].name == "H100 SXM 80 GB"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--name", "h100_sxm", "-o", "x.npz"), "name at least one table"),
        (("--name", "h100_sxm", "--gemm", "gemm.csv", "-o", "x.zip"), "ends in .npz"),
        (("--name", "mystery", "--gemm", "gemm.csv", "-o", "x.npz"), "gpu takes one of"),
        (("--name", "h100_sxm", "--gemm", "none.csv", "-o", "x.npz"), "none.csv"),
        (("--name", "h100_sxm", "--gemm", "none.parquet", "-o", "x.npz"), "none.parquet"),
        (("--name", "h100_sxm", "--all-reduce", "gemm.csv", "-o", "x.npz"), "num_gpus"),
        (("--name", "h100_sxm", "--gemm", "words.csv", "-o", "x.npz"), "words.csv:2: latency is a number, not 'fast'"),
        (("--name", "h100_sxm", "--gemm", "other.csv", "-o", "x.npz"), "none of the rows can be used"),
        (("--name", "x", "--datasheet", "none.yaml", "--gemm", "gemm.csv", "-o", "x.npz"), "cannot be read"),
        (("--name", "x", "--datasheet", "half.yaml", "--gemm", "gemm.csv", "-o", "x.npz"), "has no hbm_bytes"),
        (("--name", "x", "--datasheet", "bent.yaml", "--gemm", "gemm.csv", "-o", "x.npz"), "bent.yaml:2:12"),
        (("--name", "x", "--datasheet", "bare.yaml", "--gemm", "gemm.csv", "-o", "x.npz"), "no section node"),
        (("--name", "h100_sxm", "--gemm", "gemm.csv", "-o", "gemm.csv/x.npz"), "cannot be written"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    flyball: Flyball, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    """Exit code 2 and one line that says what is wrong, where; and no file is left."""
    monkeypatch.chdir(tmp_path)
    gemm_table(tmp_path)
    csv(tmp_path / "words.csv", "gemm_dtype,m,n,k,latency", [("bfloat16", 1, 256, 256, "fast")])
    csv(tmp_path / "other.csv", "gemm_dtype,m,n,k,latency", [("int3", 1, 256, 256, 1.0)])
    (tmp_path / "half.yaml").write_text("name: Half\n")
    (tmp_path / "bent.yaml").write_text("name: Bent\nhbm_bytes: plenty\n")
    (tmp_path / "bare.yaml").write_text(SYSTEM.partition("node")[0])
    answer = flyball("twin", "calibrate", *arguments)

    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "x.npz").exists()
