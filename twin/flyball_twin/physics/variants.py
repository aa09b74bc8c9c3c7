"""The kernel choices an engine can be started with, each either what tables measured or said to be assumed.

A variant is a factor on what streams the KV cache and host time on top of every step. It refuses to pass an
assumption off as a measurement: `assumed` says what of it no table holds, and is empty where one does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flyball_core.errors import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A restart-class kernel configuration, over the tables of a GPU."""

    name: str
    kv_factor: float = 1.0
    """Time to read KV in decode over that of the tables' kernel. The bytes are the same."""
    step_overhead_s: float = 0.0
    """Host time that every step takes more."""
    sequence_overhead_s: float = 0.0
    """The same, per sequence in the step."""
    assumed: str = ""
    """What of it is assumed; empty: it is the kernel that the tables measured."""


FLASH_ATTN = Variant(name="flash_attn")
"""What vLLM chooses on these GPUs, and what the tables measured: FlashAttention 2 on Ampere, 3 on Hopper."""

GRAPHS = Variant(
    name="graphs",
    kv_factor=2.3,
    assumed="reads KV at 1/2.3 of the measured kernel's speed",
)
"""Full CUDA graphs, one thread block per sequence and KV head: cheap steps, but a few long
sequences keep too few of the GPU's multiprocessors busy to saturate HBM. Suits short chat."""

SPLITKV = Variant(
    name="splitkv",
    step_overhead_s=4e-3,
    sequence_overhead_s=40e-6,
    assumed="pays 4 ms a step and 40 us a sequence for what it does not capture",
)
"""Splits each sequence's KV over many thread blocks and reduces: streams long contexts at
the measured speed, but launches more and captures less. Suits long context."""

VARIANTS: Mapping[str, Variant] = MappingProxyType({v.name: v for v in (GRAPHS, SPLITKV, FLASH_ATTN)})
"""The kernel choices an engine can be started with, by name."""


def variant_named(name: str) -> Variant:
    """The variant of that name. Raises `Rejected` for another."""
    if name not in VARIANTS:
        raise Rejected(f"variant takes one of {', '.join(VARIANTS)}, not {name!r}")
    return VARIANTS[name]
