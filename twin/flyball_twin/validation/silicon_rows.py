"""Measured end-to-end rows: one engine under a closed loop of clients, its mean time to first token and per token.

The columns are those of aiconfigurator's silicon table. A row is read strictly: a cell that is no number where one has
to stand is an error with file and row. What is read but cannot be compared is left out and counted, for reasons that
depend on what a row says of its setting, never on how well it is predicted.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan
from pathlib import Path
from statistics import median

from flyball_core.errors import Rejected
from flyball_twin.physics import (
    BACKENDS,
    BLOCK_TOKENS,
    EngineModel,
    LanguageModel,
    gpu_named,
    kernel_file_of,
    model_named,
)
from flyball_twin.traffic.files import open_parquet
from flyball_twin.validation.rows import Row, rows_of

NEEDED = (
    "backend",
    "model_path",
    "system",
    "mode",
    "isl",
    "osl",
    "tp_size",
    "silicon_ttft_ms",
    "silicon_tpot_ms",
)
KNOWN_BY = frozenset(("isl", "osl", "silicon_ttft_ms", "silicon_tpot_ms"))
OPTIONAL = (
    "backend_version",
    "precision",
    "gemm_quant_mode",
    "moe_quant_mode",
    "attention_dp_size",
    "pp_size",
    "moe_tp_size",
    "moe_ep_size",
    "silicon_data_source",
    "x_silicon_concurrency",
    "x_measured",
)
MEASURED_RANKS = (1, 2, 4, 8)
"""Tensor parallel sizes that the tables of all-reduces hold."""
PRECISIONS: Mapping[str, str] = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_static": "fp8",
    "fp8_block": "fp8_block",
    "int4": "int4",
    "int4_wo": "int4",
    "mxfp4": "mxfp4",
    "w4a16_mxfp4": "mxfp4",
}
ALIKE: Mapping[str, str] = {"deepseek-ai/DeepSeek-V3": "deepseek-ai/DeepSeek-R1"}
"""Models that another one's config describes."""
_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+(?:\.\d+)?)")
_WIP = re.compile(r"\bwip=true\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was measured: an engine and its clients. Rows alike in it are repeats."""

    model: LanguageModel
    model_path: str
    gpu: str
    backend: str
    version: str
    weights: str
    kv_cache: str
    tensor_parallel: int
    expert_parallel: int
    prompt_tokens: int
    output_tokens: int
    clients: int
    source: str
    """The campaign that the row comes from, as far as the row says."""

    @property
    def group(self) -> tuple[str, str]:
        """Model and backend: what is held out together."""
        return self.model.name, self.backend

    @property
    def moe(self) -> bool:
        """Whether the model is a mixture of experts."""
        return self.model.experts is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SiliconRow:
    """One setting and what was measured of it."""

    setting: Setting
    ttft_s: float
    tpot_s: float
    repeats: int = 1
    """Measurements that this is the median of."""


@dataclass(slots=True)
class Readings:
    """Rows to compare, and how many were left out for which reason."""

    rows: list[SiliconRow] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_rows(files: Sequence[Path]) -> Readings:
    """The rows of some files, duplicates and repeats folded. Raises `InvalidDocument` (file, row) or `Rejected`."""
    readings = Readings()
    seen: list[SiliconRow] = []
    for path in files:
        there = open_parquet(path, NEEDED).schema_arrow.names
        columns = (*NEEDED, *(name for name in OPTIONAL if name in there))
        for row in rows_of(path, columns):
            reason, read = _read(row)
            if read is None:
                readings.left_out[reason] += 1
            else:
                seen.append(read)
    readings.rows = _folded(seen, readings.left_out)
    return readings


def _read(row: Row) -> tuple[str, SiliconRow | None]:
    """A row to compare; or the reason why it is none."""
    if reason := _unusable(row):
        return reason, None
    path = row.name("model_path")
    try:
        model = model_named(ALIKE.get(path, path))
    except Rejected:
        return "unknown_model", None
    weights = _weights(row, moe=model.experts is not None)
    ranks, expert_parallel = row.count("tp_size", least=1), _count(row, "moe_ep_size", 1)
    if weights is None:
        return "unknown_precision", None
    if ranks not in MEASURED_RANKS:
        return "ranks_not_measured", None
    if _attends_in_parallel(row, ranks, moe=model.experts is not None):
        return "attention_data_parallel", None
    clients = _clients(row)
    if clients is None:
        return "no_concurrency", None
    setting = Setting(
        model=model,
        model_path=path,
        gpu=gpu_named(row.name("system")).key,
        backend=row.name("backend"),
        version=_text(row, "backend_version"),
        weights=weights,
        kv_cache=_kv_cache(row, weights),
        tensor_parallel=ranks,
        expert_parallel=expert_parallel if model.experts is not None else 1,
        prompt_tokens=row.count("isl", least=1),
        output_tokens=row.count("osl", least=1),
        clients=clients,
        source=_text(row, "silicon_data_source").split(";")[0],
    )
    if not _fits(setting):
        return "does_not_fit", None
    ttft_s, tpot_s = row.real("silicon_ttft_ms", least=0.0) / 1e3, row.real("silicon_tpot_ms", least=0.0) / 1e3
    if not (ttft_s > 0.0 and tpot_s > 0.0):
        return "not_measured", None
    return "", SiliconRow(setting=setting, ttft_s=ttft_s, tpot_s=tpot_s)


def _unusable(row: Row) -> str:
    """The reason why a row cannot be compared that needs no model to see; empty: none."""
    if not (_there(row, "silicon_ttft_ms") and _there(row, "silicon_tpot_ms")):
        return "not_measured"
    if row.name("mode") != "agg":
        return "disaggregated"
    if row.count("osl", least=1) == 1:
        return "single_token"
    if _WIP.search(_text(row, "silicon_data_source")):
        return "work_in_progress"
    if row.name("backend") not in BACKENDS:
        return "unknown_backend"
    try:
        gpu = gpu_named(row.name("system"))
    except Rejected:
        return "unknown_gpu"
    if not kernel_file_of(gpu).gemm:
        return "gpu_without_kernel_table"
    return "pipeline_parallel" if _count(row, "pp_size", 1) > 1 else ""


def _attends_in_parallel(row: Row, ranks: int, *, moe: bool) -> bool:
    """Whether attention runs in data parallel: said so, or its ranks are not those of the experts."""
    if _count(row, "attention_dp_size", 1) > 1:
        return True
    of_experts = _count(row, "moe_tp_size", 1) * _count(row, "moe_ep_size", 1)
    return moe and of_experts > 1 and of_experts != ranks


def _weights(row: Row, *, moe: bool) -> str | None:
    """Precision of the weights; None where the physics has none like it."""
    names = ("moe_quant_mode", "gemm_quant_mode", "precision") if moe else ("gemm_quant_mode", "precision")
    for name in names:
        if said := _text(row, name):
            return PRECISIONS.get(said.lower())
    return "bf16"


def _kv_cache(row: Row, weights: str) -> str:
    """FP8 where the checkpoint brings its scales: those that NVIDIA quantized per tensor, which TensorRT-LLM serves."""
    scaled = row.name("backend") == "trtllm" or row.name("model_path").startswith("nvidia/")
    return "fp8" if weights == "fp8" and scaled else "bf16"


def _clients(row: Row) -> int | None:
    if _there(row, "x_silicon_concurrency"):
        return row.count("x_silicon_concurrency", least=1)
    found = _CONCURRENCY.search(_text(row, "silicon_data_source"))
    return int(float(found[1])) if found else None


def _count(row: Row, name: str, default: int) -> int:
    """A whole number that may be missing; 0 says no more than that."""
    return (row.count(name) or default) if _there(row, name) else default


def _text(row: Row, name: str) -> str:
    return row.name(name) if _there(row, name) else ""


def _there(row: Row, name: str) -> bool:
    """Whether a cell says anything: writers leave it empty, or put what is not a number."""
    value = row.cells.get(name)
    return value is not None and not (isinstance(value, float) and isnan(value))


def engine_of(setting: Setting, max_active_requests: int = 256, max_batched_tokens: int = 8192) -> EngineModel:
    """The engine of a setting, started with these limits."""
    return EngineModel(
        gpu=gpu_named(setting.gpu),
        model=setting.model,
        backend=setting.backend,
        tensor_parallel=setting.tensor_parallel,
        expert_parallel=setting.expert_parallel,
        weights=setting.weights,
        kv_cache=setting.kv_cache,
        max_active_requests=max_active_requests,
        max_batched_tokens=max_batched_tokens,
    )


def _fits(setting: Setting) -> bool:
    try:
        room = engine_of(setting).kv_blocks * BLOCK_TOKENS
    except Rejected:
        return False
    return setting.prompt_tokens + setting.output_tokens <= min(room, setting.model.max_context_tokens)


def _folded(seen: Iterable[SiliconRow], left_out: Counter[str]) -> list[SiliconRow]:
    """One row of each setting, its median; and none that carries another row's very numbers."""
    numbers: dict[tuple[int, int, float, float], SiliconRow] = {}
    of_setting: dict[Setting, list[SiliconRow]] = {}
    # A DeepSeek-V3 row with the numbers of an R1 row is R1's, so R1 comes first.
    for row in sorted(seen, key=lambda row: row.setting.model_path in ALIKE):
        setting = row.setting
        key = (setting.prompt_tokens, setting.output_tokens, row.ttft_s, row.tpot_s)
        first = numbers.setdefault(key, row)
        if first is not row:
            same = first.setting.model_path == setting.model_path
            left_out["copy_of_a_row" if same else "copy_of_another_model"] += 1
            continue
        of_setting.setdefault(replace(setting, source=""), []).append(row)
    folded = []
    for rows in of_setting.values():
        if len(rows) > 1:
            left_out["repeat"] += len(rows) - 1
        ttft_s, tpot_s = median(row.ttft_s for row in rows), median(row.tpot_s for row in rows)
        folded.append(replace(rows[0], ttft_s=ttft_s, tpot_s=tpot_s, repeats=len(rows)))
    return folded
