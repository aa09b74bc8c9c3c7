"""The seam between an engine and the physics: what a step costs, whoever computes it.

It refuses to know how: measured tables, a roofline and a test's constant all fit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flyball_core.errors import Rejected

BLOCK_TOKENS = 16
"""Tokens in one KV block, as vLLM's default."""

Chunk = tuple[int, int]
"""A piece of prefill in a step: tokens of the sequence that are in the cache already, and tokens computed now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCondition:
    """What is left of a GPU: shares above 0 and at most 1 (1: healthy). Raises `Rejected` for others."""

    bandwidth: float = 1.0
    clock: float = 1.0

    def __post_init__(self) -> None:
        for name, share in (("bandwidth", self.bandwidth), ("clock", self.clock)):
            if not 0.0 < share <= 1.0:
                raise Rejected(f"a {name} factor lies above 0 and at most at 1, not at {share!r}")


HEALTHY = GpuCondition()
"""A GPU that has all it was built with."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """Where the seconds of one step go. Each part has its fitted factor in it already."""

    gemm_s: float
    """Multiplying the tokens through the layers: attention's projections, MLP, experts."""
    attention_decode_s: float
    attention_prefill_s: float
    all_reduce_s: float
    elementwise_s: float
    """Norms, rotary embedding, activation, residuals, routing."""
    logits_s: float
    """The vocabulary's GEMM, gathering over tensor parallel ranks, sampling."""
    draft_s: float
    """Proposing tokens, where the engine speculates."""
    launch_s: float
    """What the host needs to launch the kernels that no graph holds; the GPU is never faster than that."""
    host_s: float
    """Scheduling, preparing inputs, handling outputs."""
    gap_s: float
    """The part of host work that never overlaps with the GPU."""
    host_overlap: float
    """Share of the shorter of GPU and host time that hides behind the longer."""

    @property
    def gpu_s(self) -> float:
        """Seconds from the first kernel to the last."""
        kernels = (
            self.gemm_s
            + self.attention_decode_s
            + self.attention_prefill_s
            + self.all_reduce_s
            + self.elementwise_s
            + self.logits_s
            + self.draft_s
        )
        return max(kernels, self.launch_s)

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        gpu, host = self.gpu_s, self.host_s
        return self.gap_s + max(gpu, host) + (1.0 - self.host_overlap) * min(gpu, host)
