"""Step times of one engine from kernel times: everything that can be summed beforehand is, so a step is a few lookups.

    step = gap + max(gpu, host) + (1 - overlap) x min(gpu, host)
    gpu  = max(GEMM + attention + all-reduce + elementwise + logits + draft, launches)

A decode batch is padded up to the next captured CUDA graph; beyond the largest, and by the layer in steps with prefill,
the host launches kernels itself. A sequence that speculates verifies its draft in the same step: 1 + k rows in every
GEMM over one reading of its cache. This class refuses to know about time, requests and scheduling.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyball_twin.physics.attention import Attention, PrefillSeconds
from flyball_twin.physics.dense import (
    DenseSeconds,
    dense_seconds,
    flops_per_token,
    logits_seconds,
    weight_read_bytes,
)
from flyball_twin.physics.fitted import Fitted
from flyball_twin.physics.kernel_file import Array
from flyball_twin.physics.kernels import Kernels
from flyball_twin.physics.language import LanguageModel
from flyball_twin.physics.shapes import RankShapes
from flyball_twin.physics.step_cost import Chunk, GpuCondition, StepParts
from flyball_twin.physics.variants import Variant

CAPTURED_MOST = 512
"""Tokens of the largest CUDA graph that vLLM captures; or twice the request cap, if that is less."""
DRAFT_SHARE = 0.05
"""Assumed: proposing one token takes that share of the GEMMs of verifying it (one layer and the head, as EAGLE's)."""


def captured_sizes(max_active: int, query_tokens: int = 1) -> tuple[int, ...]:
    """The batch sizes, in tokens, that vLLM captures graphs for: 1, 2, 4, then every 8 to 256, then every 16."""
    most = min(2 * max_active * query_tokens, CAPTURED_MOST)
    return tuple(size for size in (1, 2, 4, *range(8, 257, 8), *range(272, CAPTURED_MOST + 1, 16)) if size <= most)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInputs:
    """What a cost is computed from."""

    model: LanguageModel
    shapes: RankShapes
    kernels: Kernels
    variant: Variant
    condition: GpuCondition
    fitted: Fitted
    max_active: int
    max_batched_tokens: int
    draft_tokens: int = 0
    """Tokens that each decode verifies beside the one it is sure of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seconds:
    """Seconds by tokens in the step, by rows of logits, and by chunk; index 0 is for one of them."""

    dense: DenseSeconds
    logits: Array
    prefill: PrefillSeconds


_Row = tuple[float, float, tuple[float, ...], tuple[float, ...], tuple[float, ...]]
"""Of a decode batch: GPU seconds beside attention, host seconds, and its attention's knots, starts and slopes."""


class KernelCost:
    """What steps cost one engine, as it was started and in the condition that its GPU is in (a `StepCost`)."""

    __slots__ = (
        "_alone",
        "_attention",
        "_behind",
        "_captured",
        "_dense",
        "_drafting",
        "_exposed",
        "_flops_per_token",
        "_gap",
        "_host",
        "_inputs",
        "_largest",
        "_launch",
        "_logits",
        "_more",
        "_most",
        "_piecewise",
        "_queries",
        "_rows",
        "_seconds",
        "_weight_bytes",
    )

    def __init__(self, inputs: CostInputs) -> None:
        fitted, variant, shapes = inputs.fitted, inputs.variant, inputs.shapes
        self._inputs = inputs
        self._queries = 1 + inputs.draft_tokens
        self._drafting = DRAFT_SHARE * inputs.draft_tokens
        self._captured = np.array(captured_sizes(inputs.max_active, self._queries), dtype=np.float64)
        self._largest = int(self._captured[-1])
        self._gap = fitted.gap_s
        self._exposed = 1.0 - fitted.host_overlap
        self._host = (
            fitted.host_base_s + variant.step_overhead_s,
            fitted.host_per_sequence_s + variant.sequence_overhead_s,
            fitted.host_per_token_s,
        )
        self._launch = shapes.layers * fitted.launch_per_layer_s
        self._piecewise = shapes.layers * fitted.launch_per_attention_s
        self._attention = Attention(shapes, inputs.kernels, inputs.condition, inputs.model.latent, variant.kv_factor)
        self._flops_per_token = flops_per_token(shapes)
        self._rows: dict[int, _Row] = {}
        self._fill(max(inputs.max_batched_tokens, inputs.max_active * self._queries))
        if variant.assumed:
            inputs.kernels.assume(f"variant {variant.name}: {variant.assumed}")
        if inputs.draft_tokens:
            inputs.kernels.assume(f"draft: {DRAFT_SHARE:.0%} of a step's GEMMs for each proposed token")

    def _fill(self, most: int) -> None:
        """Compute what up to `most` tokens cost. An engine that keeps its limits makes this happen once."""
        inputs = self._inputs
        shapes, kernels, fitted, condition = inputs.shapes, inputs.kernels, inputs.fitted, inputs.condition
        tokens = np.arange(1.0, most + 1.0)
        at = np.searchsorted(self._captured, tokens)
        graph = at < self._captured.size
        padded = np.where(graph, self._captured[np.minimum(at, self._captured.size - 1)], tokens)
        seconds = _Seconds(
            dense=dense_seconds(shapes, kernels, fitted, condition, padded, graph=graph),
            logits=logits_seconds(shapes, kernels, fitted, condition, tokens[:CAPTURED_MOST]),
            prefill=self._attention.prefill(tokens),
        )
        dense, prefill = seconds.dense, seconds.prefill
        self._seconds = seconds
        self._most = most
        # As plain lists, with nothing at 0 so that a count is its own index: indexing them is the hot path.
        self._dense: list[float] = [0.0, *(dense.gemm + dense.all_reduce + dense.elementwise).tolist()]
        self._logits: list[float] = [0.0, *seconds.logits.tolist()]
        self._alone: list[float] = [0.0, *(fitted.attention_prefill * (prefill.alone - prefill.more)).tolist()]
        self._more: list[float] = [0.0, *(fitted.attention_prefill * prefill.more).tolist()]
        self._behind: list[float] = [0.0, *(fitted.attention_prefill * prefill.per_prefix_token).tolist()]
        self._weight_bytes: list[float] = [0.0, *weight_read_bytes(shapes, tokens).tolist()]

    @property
    def assumed(self) -> tuple[str, ...]:
        """Every ingredient that no table holds, in words."""
        return tuple(self._inputs.kernels.assumed)

    def _row(self, decodes: int) -> _Row:
        """The row of a batch size, computed when it is first met."""
        tokens = decodes * self._queries
        if tokens > self._most:
            self._fill(2 * tokens)
        line = self._attention.decode_line(decodes)
        factor = self._inputs.fitted.attention_decode
        row = (
            (self._dense[tokens] + self._logits_s(tokens)) * (1.0 + self._drafting),
            self._host_s(decodes, tokens),
            line.knots,
            tuple(factor * start for start in line.starts),
            tuple(factor * slope for slope in line.slopes),
        )
        self._rows[decodes] = row
        return row

    def _logits_s(self, rows: int) -> float:
        logits = self._logits
        return logits[rows] if rows < len(logits) else logits[-1] * rows / (len(logits) - 1)

    def _host_s(self, sequences: int, tokens: int) -> float:
        base, per_sequence, per_token = self._host
        return base + per_sequence * sequences + per_token * tokens

    def step_s(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Seconds of one step: `decodes` sequences read `context` KV tokens in all for a token each, with `chunks`."""
        row = self._rows.get(decodes) or self._row(decodes)
        gpu, host, knots, starts, slopes = row
        at = bisect_right(knots, context)
        attention = starts[at] + slopes[at] * context
        if chunks:
            gpu, host = self._mixed_s(decodes, attention, chunks)
        else:
            gpu += attention
            if decodes * self._queries > self._largest and gpu < self._launch:
                gpu = self._launch
        return self._gap + (gpu + self._exposed * host if gpu > host else host + self._exposed * gpu)

    def _mixed_s(self, decodes: int, attention: float, chunks: Sequence[Chunk]) -> tuple[float, float]:
        """GPU and host seconds of a step with prefill, whose decodes attend for so long."""
        tokens = verified = decodes * self._queries
        for _, chunk in chunks:
            tokens += chunk
        if tokens > self._most:
            self._fill(2 * tokens)
        more, behind = self._more, self._behind
        attention += self._alone[chunks[0][1]]
        for done, chunk in chunks:
            attention += more[chunk] + behind[chunk] * done
        gpu = self._dense[tokens] + self._logits_s(verified + len(chunks)) + attention
        if self._drafting:
            gpu += self._drafting * (self._dense[verified] + self._logits_s(verified))
        launch = self._launch if tokens > self._largest else self._piecewise
        return max(gpu, launch), self._host_s(decodes + len(chunks), tokens)

    def overhead_s(self, decodes: int, chunks: Sequence[Chunk] = ()) -> float:
        """The part of that step in which the GPU waits for its host (its decodes' attention counted for no context)."""
        gpu, host, _, starts, _ = self._rows.get(decodes) or self._row(decodes)
        if chunks:
            gpu, host = self._mixed_s(decodes, starts[0], chunks)
        else:
            gpu += starts[0]
        return self._gap + (self._exposed * host if gpu > host else host - gpu + self._exposed * gpu)

    def parts(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> StepParts:
        """Where the seconds of that step go; they add up to `step_s`."""
        _, _, knots, starts, slopes = self._rows.get(decodes) or self._row(decodes)
        at = bisect_right(knots, context)
        verified = decodes * self._queries
        tokens = verified + sum(chunk for _, chunk in chunks)
        if tokens > self._most:
            self._fill(2 * tokens)
        prefill = sum(self._more[chunk] + self._behind[chunk] * done for done, chunk in chunks)
        eager = tokens > self._largest
        dense, fitted = self._seconds.dense, self._inputs.fitted
        return StepParts(
            gemm_s=float(dense.gemm[tokens - 1]) if tokens else 0.0,
            attention_decode_s=starts[at] + slopes[at] * context,
            attention_prefill_s=prefill + (self._alone[chunks[0][1]] if chunks else 0.0),
            all_reduce_s=float(dense.all_reduce[tokens - 1]) if tokens else 0.0,
            elementwise_s=float(dense.elementwise[tokens - 1]) if tokens else 0.0,
            logits_s=self._logits_s(verified + len(chunks)),
            draft_s=self._drafting * (self._dense[verified] + self._logits_s(verified)),
            launch_s=self._launch if eager else self._piecewise if chunks else 0.0,
            host_s=self._host_s(decodes + len(chunks), tokens),
            gap_s=self._gap,
            host_overlap=fitted.host_overlap,
        )

    def read_bytes(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Bytes that the step reads from HBM, of one GPU: weights once, and every KV token that is attended to."""
        tokens = decodes * self._queries
        for done, chunk in chunks:
            tokens += chunk
            context += done + chunk
        if tokens > self._most:
            self._fill(2 * tokens)
        return self._weight_bytes[tokens] + self._inputs.shapes.kv_bytes_per_token * context

    def flops(self, decodes: int, context: int, chunks: Sequence[Chunk] = ()) -> float:
        """Floating-point operations of the step, of one GPU."""
        shapes = self._inputs.shapes
        rows = decodes * self._queries
        tokens, pairs = rows, float(context * self._queries)
        for done, chunk in chunks:
            tokens += chunk
            pairs += chunk * (done + 0.5 * (chunk + 1))
        head = 2.0 * shapes.head.n * shapes.head.k * (rows + len(chunks))
        attention = shapes.attention.flops_per_pair * shapes.attention_layers * pairs
        return self._flops_per_token * tokens + head + attention
