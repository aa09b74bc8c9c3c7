"""Tables of end-to-end rows, as aiconfigurator's silicon table has them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def a_row(**changed: object) -> dict[str, object]:
    """A row that can be compared: Qwen3-32B under TensorRT-LLM, 16 clients."""
    row: dict[str, object] = {
        "backend": "trtllm",
        "backend_version": "1.0.0rc3",
        "model_path": "Qwen/Qwen3-32B",
        "system": "h100_sxm",
        "precision": None,
        "mode": "agg",
        "isl": 1024,
        "osl": 128,
        "gemm_quant_mode": "fp8",
        "moe_quant_mode": None,
        "tp_size": 1.0,
        "pp_size": 1.0,
        "attention_dp_size": None,
        "moe_tp_size": 1.0,
        "moe_ep_size": 1.0,
        "silicon_data_source": "source_file=h100_sxm/trtllm/1.0.0rc3/Qwen_Qwen3-32B.csv",
        "silicon_ttft_ms": 309.0,
        "silicon_tpot_ms": 24.25,
        "x_silicon_concurrency": 16.0,
    }
    return row | changed


def silicon_table(path: Path, rows: Iterable[Mapping[str, object]]) -> Path:
    """A Parquet file of these rows, which all have the same columns."""
    known = list(rows)
    pq.write_table(pa.table({name: [row[name] for row in known] for name in known[0]}), path)
    return path
