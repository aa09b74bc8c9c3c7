"""What one engine step costs, as a plain roofline over datasheet numbers: the shape of the curve and no more.

A step takes `T = t0 + c_s*B + max(mem, flop) + alpha*min(mem, flop)`, where `mem` streams the weights once and the KV
cache of every sequence, and `flop` multiplies every token through the model and prefilled tokens through attention.
"""

from flyball_twin.physics.engine_model import EngineModel
from flyball_twin.physics.kernels import ATTENTION_COMPUTE, GEMM_BANDWIDTH, GEMM_COMPUTE
from flyball_twin.physics.step_cost import GpuCondition
from flyball_twin.physics.variants import Variant

OVERLAP_ALPHA = 0.2


class Roofline:
    """Step times of one engine model under one variant and one bandwidth factor."""

    __slots__ = ("_mem_base", "_overhead", "_per_context", "_per_pair", "_per_seq", "_per_token")

    def __init__(self, engine: EngineModel, variant: Variant, bandwidth_factor: float) -> None:
        GpuCondition(bandwidth=bandwidth_factor)
        gpu, model = engine.gpu, engine.model
        bandwidth = gpu.hbm_bytes_per_s * GEMM_BANDWIDTH * bandwidth_factor
        self._overhead = 2.5e-3 + variant.step_overhead_s
        self._per_seq = 20e-6 + variant.sequence_overhead_s
        self._mem_base = engine.weight_bytes / bandwidth
        self._per_context = engine.kv_bytes_per_token * variant.kv_factor / bandwidth
        self._per_token = 2.0 * model.active_parameters / (gpu.bf16_flops_per_s * GEMM_COMPUTE)
        self._per_pair = model.attention_flops_per_pair() / (gpu.bf16_flops_per_s * ATTENTION_COMPUTE)

    def step_s(self, sequences: int, context: int, tokens: int, pairs: float) -> float:
        """Seconds of one step."""
        mem = self._mem_base + self._per_context * context
        flop = self._per_token * tokens + self._per_pair * pairs
        wide, narrow = (mem, flop) if mem > flop else (flop, mem)
        return self._overhead + self._per_seq * sequences + wide + OVERLAP_ALPHA * narrow

    def overhead_s(self, sequences: int) -> float:
        """The part of a step in which the GPU waits for its host."""
        return self._overhead + self._per_seq * sequences
