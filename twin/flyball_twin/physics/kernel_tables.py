"""Reading a user's own measurements: tables of kernel times, and the datasheet row of the GPU they were taken on.

Tables are Parquet or CSV in aiconfigurator's columns (see `compiling`); a datasheet is YAML, either a row of `GpuModel`
or one of aiconfigurator's system files. It refuses files without the columns or keys it needs, and names them.
"""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import yaml

from flyball_core.errors import Rejected
from flyball_policies.strict_yaml import DocumentReader, compose
from flyball_twin.physics.compiling import Row
from flyball_twin.physics.hardware import GpuModel
from flyball_twin.traffic.files import csv_rows, open_parquet

COLUMNS = {
    "gemm": ("gemm_dtype", "m", "n", "k", "latency"),
    "context_attention": (
        "batch_size",
        "isl",
        "num_heads",
        "num_key_value_heads",
        "head_dim",
        "kv_cache_dtype",
        "latency",
    ),
    "generation_attention": (
        "batch_size",
        "isl",
        "step",
        "num_heads",
        "num_key_value_heads",
        "head_dim",
        "kv_cache_dtype",
        "latency",
    ),
    "all_reduce": ("num_gpus", "message_size", "latency"),
}
"""The columns that a table of each kind must have."""
OPTIONAL = ("window_size", "op_name", "backend", "kernel_source", "nccl_dtype")
_NUMBERS = {*COLUMNS["gemm"][1:], *COLUMNS["generation_attention"], *COLUMNS["all_reduce"], "window_size"} - {
    "kv_cache_dtype"
}
MAX_DATASHEET_BYTES = 64 * 1024
"""Largest datasheet taken."""
_LARGEST = 1e18


def table_rows(file: Path, kind: str) -> Iterator[Row]:
    """The rows of a table of that kind. Raises `Rejected` for a file that cannot be read or lacks a column."""
    needed = COLUMNS[kind]
    if file.suffix != ".parquet":
        for line, cells in csv_rows(file, needed):
            yield {name: _cell(file, line, name, text) for name, text in cells.items() if name in (*needed, *OPTIONAL)}
        return
    parquet = open_parquet(file, needed)
    columns = [name for name in parquet.schema_arrow.names if name in (*needed, *OPTIONAL)]
    for batch in parquet.iter_batches(columns=columns):
        yield from batch.to_pylist()


def _cell(file: Path, line: int, name: str, text: str) -> float | str:
    if name not in _NUMBERS:
        return text
    try:
        return float(text)
    except ValueError:
        raise Rejected(f"{file}:{line}: {name} is a number, not {text!r}") from None


def read_datasheet(file: Path, key: str) -> GpuModel:
    """The GPU of a datasheet, under the short name `key`. Raises `Rejected`, `InvalidDocument` with the place."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_DATASHEET_BYTES + 1).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise Rejected(f"{file}: cannot be read: {error.strerror or error}") from error
    reader = DocumentReader(str(file))
    root = compose(text, str(file), MAX_DATASHEET_BYTES)
    if any(name == "gpu" for name, _, _ in reader.items(root, "the datasheet")):
        return _system_file(reader, root, key)
    number = reader.number(1.0, _LARGEST)
    names = [field.name for field in fields(GpuModel) if field.name not in ("name", "key")]
    known = {name: (name, number) for name in names}
    values = reader.section(
        root, "the datasheet", {"name": ("name", lambda node: reader.scalar(node, "a name")), **known}
    )
    for name in ("name", *names):
        if name not in values:
            raise reader.wrong(root, f"the datasheet has no {name}", f"it needs name, {', '.join(names)}")
    return GpuModel(key=key, **values)


def _system_file(reader: DocumentReader, root: yaml.Node, key: str) -> GpuModel:
    """A GPU from one of aiconfigurator's system files."""
    number = reader.number(1.0, _LARGEST)
    sections = {name: node for name, _, node in reader.items(root, "the system file")}

    def value(section: str, name: str, default: float | None = None) -> float:
        if section not in sections:
            raise reader.wrong(root, f"the system file has no section {section}")
        for found, _, node in reader.items(sections[section], section):
            if found == name:
                return float(number(node))
        if default is None:
            raise reader.wrong(sections[section], f"{section} has no {name}")
        return default

    bf16 = value("gpu", "bfloat16_tc_flops")
    return GpuModel(
        name=key,
        key=key,
        hbm_bytes=value("gpu", "mem_capacity"),
        hbm_bytes_per_s=value("gpu", "mem_bw"),
        bf16_flops_per_s=bf16,
        fp8_flops_per_s=value("gpu", "fp8_tc_flops", bf16),
        link_bytes_per_s=value("node", "intra_node_bw"),
    )
