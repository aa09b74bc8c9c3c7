"""What one engine step costs: a plain roofline over datasheet numbers.

The twin stands in for GPUs that are not there, so its constants are *assumed*, not
fitted: datasheet peaks times an efficiency, and two kernel variants whose costs are
round numbers of the right order. A step takes

    T = t0 + c_s*B + max(mem, flop) + alpha*min(mem, flop)

where `mem` streams the weights once and the KV cache of every sequence, `flop`
multiplies every token through the model and prefilled tokens through attention, and
`alpha` says how badly the two overlap. This module refuses to know about time,
requests or scheduling, and it claims no accuracy beyond the shape of the curve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flyball_core.errors import Rejected

BLOCK_TOKENS = 16
"""Tokens in one KV block, as vLLM's default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """One accelerator as its datasheet has it; an efficiency is the share a kernel reaches."""

    name: str
    hbm_bytes: float
    hbm_bytes_per_s: float
    """Theoretical peak, as NVML would report it."""
    hbm_efficiency: float
    flops_per_s: float
    """Dense peak at the precision of the weights."""
    flop_efficiency: float
    attention_flops_per_s: float
    """What prefill attention reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """A dense transformer as far as serving it costs anything."""

    name: str
    parameters: float
    weight_bytes: float
    kv_bytes_per_token: float
    attention_flops_per_pair: float
    """Flops for one query token to attend to one key: 4 x heads x head size x layers."""
    max_context_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A restart-class kernel configuration: what it costs a step, and how well it streams KV."""

    name: str
    step_overhead_s: float
    """t0: scheduling, launches and sampling, paid by every step."""
    sequence_overhead_s: float
    """c_s: paid per sequence in the step."""
    kv_factor: float
    """Time to read KV over the time at the GPU's efficient bandwidth; 1 is ideal. The bytes are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """One engine: a model on a GPU, and how its memory is shared out."""

    gpu: GpuModel
    model: LanguageModel
    memory_share: float = 0.9
    """Share of HBM the engine takes at start (vLLM's `gpu_memory_utilization`)."""
    reserved_bytes: float = 4.5e9
    """Activations, captured graphs and workspaces, within that share."""
    overlap_alpha: float = 0.2
    cold_start_s: float = 40.0
    """From the end of one incarnation until the next takes requests."""

    @property
    def kv_blocks(self) -> int:
        """KV blocks that fit beside the weights."""
        room = self.gpu.hbm_bytes * self.memory_share - self.model.weight_bytes - self.reserved_bytes
        return int(room // (self.model.kv_bytes_per_token * BLOCK_TOKENS))


Chunk = tuple[int, int]
"""A piece of prefill in a step: tokens of the sequence that are in the cache already, and tokens computed now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCondition:
    """What is left of a GPU: shares above 0 and at most 1 (1: healthy)."""

    bandwidth: float = 1.0
    clock: float = 1.0


class StepCost(Protocol):
    """What steps cost one engine, as it was started and in the condition that its GPU is in.

    Between changes of the batch the cost of a step is close to affine in `context`, so the sum over many
    steps follows from a few of them; an implementation must keep it smooth enough for that.
    """

    def step_s(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Seconds of one step: `decodes` sequences read `context` KV tokens in all for a token each, with `chunks`."""
        ...

    def overhead_s(self, decodes: int, chunks: Sequence[Chunk] = ()) -> float:
        """The part of that step in which the GPU waits for its host."""
        ...

    def read_bytes(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Bytes that the step reads from HBM, of one GPU."""
        ...

    def flops(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Floating-point operations of the step, of one GPU."""
        ...


class Roofline:
    """Step times of one engine model under one variant and one bandwidth factor.

    `bandwidth_factor` is the share of its HBM bandwidth that the GPU still has (1: healthy).
    Raises `Rejected` unless it is above 0 and at most 1.
    """

    __slots__ = ("_alpha", "_mem_base", "_overhead", "_per_context", "_per_pair", "_per_seq", "_per_token")

    def __init__(self, engine: EngineModel, variant: Variant, bandwidth_factor: float) -> None:
        if not 0.0 < bandwidth_factor <= 1.0:
            raise Rejected(f"a bandwidth factor lies above 0 and at most at 1, not at {bandwidth_factor!r}")
        bandwidth = engine.gpu.hbm_bytes_per_s * engine.gpu.hbm_efficiency * bandwidth_factor
        self._alpha = engine.overlap_alpha
        self._overhead = variant.step_overhead_s
        self._per_seq = variant.sequence_overhead_s
        self._mem_base = engine.model.weight_bytes / bandwidth
        self._per_context = engine.model.kv_bytes_per_token * variant.kv_factor / bandwidth
        self._per_token = 2.0 * engine.model.parameters / (engine.gpu.flops_per_s * engine.gpu.flop_efficiency)
        self._per_pair = engine.model.attention_flops_per_pair / engine.gpu.attention_flops_per_s

    def step_s(self, sequences: int, context: int, tokens: int, pairs: float) -> float:
        """Seconds of one step.

        `sequences` and `tokens` are those scheduled in it, `context` the KV tokens read,
        `pairs` the (query, key) pairs of prefill attention.
        """
        mem = self._mem_base + self._per_context * context
        flop = self._per_token * tokens + self._per_pair * pairs
        wide, narrow = (mem, flop) if mem > flop else (flop, mem)
        return self._overhead + self._per_seq * sequences + wide + self._alpha * narrow

    def overhead_s(self, sequences: int) -> float:
        """The part of a step in which the GPU waits for its host."""
        return self._overhead + self._per_seq * sequences


H100 = GpuModel(
    name="H100 SXM 80 GB",
    hbm_bytes=85.5e9,
    hbm_bytes_per_s=3.352e12,
    hbm_efficiency=0.80,
    flops_per_s=989e12,
    flop_efficiency=0.60,
    attention_flops_per_s=550e12,
)
"""Datasheet: 3.35 TB/s, 989 Tflop/s dense BF16. The efficiencies are assumed."""

QWEN3_14B = LanguageModel(
    name="Qwen3-14B, BF16 weights and KV",
    parameters=14.8e9,
    weight_bytes=29.6e9,
    kv_bytes_per_token=40 * 8 * 128 * 2 * 2.0,
    attention_flops_per_pair=4.0 * 40 * 128 * 40,
    max_context_tokens=131_072,
)
"""40 layers, 40 query and 8 KV heads of 128; its published context of 131,072 tokens (with YaRN)."""

ENGINE_MODEL = EngineModel(gpu=H100, model=QWEN3_14B)
"""What every engine of the small fleet is."""

GRAPHS = Variant(name="graphs", step_overhead_s=2.5e-3, sequence_overhead_s=20e-6, kv_factor=2.5)
"""Full CUDA graphs, one thread block per sequence and KV head: cheap steps, but a few long
sequences keep too few of the GPU's 132 multiprocessors busy to saturate HBM. Suits short chat."""

SPLITKV = Variant(name="splitkv", step_overhead_s=6.5e-3, sequence_overhead_s=60e-6, kv_factor=1.1)
"""Splits each sequence's KV over many thread blocks and reduces: streams long contexts at
nearly full bandwidth, but launches more and captures less. Suits long context."""

VARIANTS = {variant.name: variant for variant in (GRAPHS, SPLITKV)}
"""The kernel choices an engine can be started with, by name."""
