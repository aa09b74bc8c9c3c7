"""GPUs as their datasheets have them: one row each, and nothing that was measured.

A datasheet says what a GPU could do; how much of it kernels reach is in the kernel tables
(`kernel_file`) where somebody measured it, and assumed (`datasheet_kernels`) where nobody did.
A new GPU is a row here, and a kernel file if there is one. This module refuses to know about
models and kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from flyball_core.errors import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """One accelerator as its datasheet has it. All throughputs are peaks."""

    name: str
    key: str
    """Its short name, which scenarios use; also that of its kernel file."""
    hbm_bytes: float
    """What NVML reports as total memory."""
    hbm_bytes_per_s: float
    """As NVML's clocks and bus width give it: 2 x memory clock x bus width."""
    bf16_flops_per_s: float
    """Dense, with 32-bit accumulation."""
    fp8_flops_per_s: float
    """Dense; that of BF16 where the GPU has no FP8: then weights are widened before they are multiplied."""
    link_bytes_per_s: float
    """To the other GPUs of its node, one direction: NVLink, or PCIe without it."""

    def flops_per_s(self, precision: str) -> float:
        """Peak for GEMMs whose inputs have this precision (`fp8...`, or anything else: BF16)."""
        return self.fp8_flops_per_s if precision.startswith("fp8") else self.bf16_flops_per_s


H100 = GpuModel(
    name="H100 SXM 80 GB",
    key="h100_sxm",
    hbm_bytes=85.5e9,
    hbm_bytes_per_s=3.352e12,
    bf16_flops_per_s=989e12,
    fp8_flops_per_s=1978e12,
    link_bytes_per_s=450e9,
)

_ROWS = (
    H100,
    GpuModel(
        name="A100 SXM 80 GB",
        key="a100_sxm",
        hbm_bytes=85.9e9,
        hbm_bytes_per_s=2.039e12,
        bf16_flops_per_s=312e12,
        fp8_flops_per_s=312e12,
        link_bytes_per_s=300e9,
    ),
    GpuModel(
        name="H200 SXM 141 GB",
        key="h200_sxm",
        hbm_bytes=150.75e9,
        hbm_bytes_per_s=4.8e12,
        bf16_flops_per_s=989e12,
        fp8_flops_per_s=1978e12,
        link_bytes_per_s=450e9,
    ),
    GpuModel(
        name="H20 SXM 96 GB",
        key="h20_sxm",
        hbm_bytes=102.6e9,
        hbm_bytes_per_s=4.0e12,
        bf16_flops_per_s=148e12,
        fp8_flops_per_s=296e12,
        link_bytes_per_s=450e9,
    ),
    GpuModel(
        name="B200 SXM 180 GB",
        key="b200_sxm",
        hbm_bytes=192.0e9,
        hbm_bytes_per_s=8.0e12,
        bf16_flops_per_s=2250e12,
        fp8_flops_per_s=4500e12,
        link_bytes_per_s=900e9,
    ),
    GpuModel(
        name="L40S 48 GB",
        key="l40s",
        hbm_bytes=48.3e9,
        hbm_bytes_per_s=0.864e12,
        bf16_flops_per_s=362e12,
        fp8_flops_per_s=733e12,
        link_bytes_per_s=32e9,
    ),
    GpuModel(
        name="RTX PRO 6000 Blackwell 96 GB",
        key="rtx_pro_6000",
        hbm_bytes=102.6e9,
        hbm_bytes_per_s=1.792e12,
        bf16_flops_per_s=503e12,
        fp8_flops_per_s=1007e12,
        link_bytes_per_s=64e9,
    ),
    GpuModel(
        name="RTX 4090 24 GB",
        key="rtx_4090",
        hbm_bytes=25.7e9,
        hbm_bytes_per_s=1.008e12,
        bf16_flops_per_s=165.2e12,
        fp8_flops_per_s=330.3e12,
        link_bytes_per_s=32e9,
    ),
    GpuModel(
        name="RTX 5090 32 GB",
        key="rtx_5090",
        hbm_bytes=34.2e9,
        hbm_bytes_per_s=1.792e12,
        bf16_flops_per_s=209.5e12,
        fp8_flops_per_s=419e12,
        link_bytes_per_s=64e9,
    ),
)

GPUS: Mapping[str, GpuModel] = MappingProxyType({gpu.key: gpu for gpu in _ROWS})
"""The datasheet rows by short name."""


def gpu_named(name: str) -> GpuModel:
    """The GPU of that short name, in any case and with or without separators. Raises `Rejected` for another."""
    wanted = _letters(name)
    for key, gpu in GPUS.items():
        if _letters(key) == wanted:
            return gpu
    raise Rejected(f"gpu takes one of {', '.join(GPUS)}, not {name!r}")


def gpu_of_datasheet(row: Mapping[str, object]) -> GpuModel:
    """A GPU from a row by field of `GpuModel`. Raises `Rejected` for a field that is missing, unknown or no number."""
    texts, numbers = ("name", "key"), tuple(field.name for field in fields(GpuModel))[2:]
    for name in row:
        if name not in (*texts, *numbers):
            raise Rejected(f"a datasheet has {', '.join((*texts, *numbers))}; not {name}")
    for name in texts:
        if not isinstance(row.get(name), str) or not row[name]:
            raise Rejected(f"{name} of a datasheet is a text, not {row.get(name)!r}")
    values: dict[str, float] = {}
    for name in numbers:
        value = row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise Rejected(f"{name} of a datasheet is a number above 0, not {value!r}")
        values[name] = value
    return GpuModel(name=str(row["name"]), key=str(row["key"]), **values)


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
