"""What tokens cost whatever they attend to: GEMMs, experts, all-reduce and elementwise kernels, by tokens in the step.

Computed once per engine, for every count of tokens that a step may have. The grouped GEMM of a mixture of experts,
which no table holds, is taken as one GEMM over the weights of all touched experts laid side by side, with as many
rows as an expert gets tokens: the same bytes and the same work. It refuses to know about sequences and caches.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball_twin.physics.fitted import Fitted
from flyball_twin.physics.kernel_file import Array
from flyball_twin.physics.kernels import Kernels
from flyball_twin.physics.language import BYTES_PER_ACTIVATION, bytes_per_weight
from flyball_twin.physics.shapes import Gemm, RankShapes, RoutedExperts
from flyball_twin.physics.step_cost import GpuCondition

ELEMENTWISE_S = 2.5e-6
"""Least time of an elementwise kernel within a graph, with the gap to the next."""
ELEMENTWISE_BANDWIDTH = 0.75
"""Share of the peak bandwidth that it streams at."""
SAMPLING_S = 60e-6
"""Least time of sampling: a dozen small kernels."""
LOGITS_PASSES = 4.0
"""Times that sampling reads or writes the logits, in 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSeconds:
    """Seconds by count of tokens; `tokens` is the axis of each."""

    tokens: Array
    gemm: Array
    all_reduce: Array
    elementwise: Array


def dense_seconds(
    shapes: RankShapes,
    kernels: Kernels,
    fitted: Fitted,
    condition: GpuCondition,
    tokens: Array,
    *,
    graph: NDArray[np.bool_],
) -> DenseSeconds:
    """The seconds of a forward pass without attention and vocabulary; `graph` says which counts a graph holds."""
    gemm = np.zeros_like(tokens)
    for one in shapes.gemms:
        gemm += one.count * fitted.gemm * _conditioned(one, kernels, condition, tokens)
    if shapes.experts is not None:
        gemm += fitted.gemm * fitted.experts * _experts_s(shapes.experts, kernels, condition, tokens)
    sizes = tokens * shapes.reduced_bytes
    in_graph = kernels.all_reduce_s(shapes.ranks, sizes, graph=True)
    alone = kernels.all_reduce_s(shapes.ranks, sizes, graph=False)
    reduce = 2.0 * shapes.layers * fitted.all_reduce * np.where(graph, in_graph, alone)
    bandwidth = kernels.gpu.hbm_bytes_per_s * ELEMENTWISE_BANDWIDTH * condition.bandwidth
    launches = shapes.layers * shapes.kernels_per_layer * ELEMENTWISE_S
    elementwise = fitted.elementwise * (launches + tokens * shapes.elementwise_bytes / bandwidth)
    return DenseSeconds(tokens=tokens, gemm=gemm, all_reduce=reduce, elementwise=elementwise)


def logits_seconds(shapes: RankShapes, kernels: Kernels, fitted: Fitted, condition: GpuCondition, rows: Array) -> Array:
    """Seconds of the vocabulary's GEMM, of gathering its parts, and of sampling, by rows."""
    head = _conditioned(shapes.head, kernels, condition, rows)
    logits = rows * shapes.head.n * shapes.ranks
    # Every GPU receives what the others hold: about half of an all-reduce of the same size.
    gather = 0.5 * kernels.all_reduce_s(shapes.ranks, logits * BYTES_PER_ACTIVATION, graph=False)
    bandwidth = kernels.gpu.hbm_bytes_per_s * ELEMENTWISE_BANDWIDTH * condition.bandwidth
    sampling = SAMPLING_S + LOGITS_PASSES * 4.0 * logits / bandwidth
    return np.asarray(fitted.logits * (head + gather + sampling), dtype=np.float64)


def touched_experts(experts: RoutedExperts, tokens: float | Array) -> Array:
    """Experts of this GPU that so many tokens reach if routing is even: E(1 - (1 - k/E)^tokens)."""
    return np.asarray(experts.experts * (1.0 - (1.0 - experts.share) ** np.asarray(tokens)), dtype=np.float64)


def _conditioned(gemm: Gemm, kernels: Kernels, condition: GpuCondition, tokens: Array) -> Array:
    """A GEMM on a GPU in that condition: slower by bandwidth where memory bounds it, by clock where compute does."""
    seconds = kernels.gemm_s(gemm.precision, tokens, gemm.n, gemm.k)
    if condition.bandwidth == 1.0 and condition.clock == 1.0:
        return seconds
    return seconds * _slowing(kernels, gemm.precision, tokens, gemm.n, gemm.k, condition)


def _slowing(kernels: Kernels, precision: str, tokens: Array, n: float, k: float, condition: GpuCondition) -> Array:
    memory, compute = kernels.bounds_s(precision, tokens, n, k)
    healthy = np.maximum(memory, compute)
    return np.asarray(np.maximum(memory / condition.bandwidth, compute / condition.clock) / healthy, dtype=np.float64)


def _experts_s(experts: RoutedExperts, kernels: Kernels, condition: GpuCondition, tokens: Array) -> Array:
    kernels.assume("grouped GEMM of experts: as one GEMM over the touched experts' weights")
    # Smooth in the tokens, and a search for each count would be slow: computed on a grid, and between along lines.
    last = float(tokens.max())
    grid = np.unique(np.round(np.concatenate([np.arange(1.0, 17.0), np.geomspace(16.0, max(last, 32.0), 48)])))
    seconds = np.empty_like(grid)
    for at, count in enumerate(grid):
        touched = max(1.0, float(touched_experts(experts, count)))
        rows = max(1.0, float(count) * experts.experts * experts.share / touched)
        up = (2.0 * experts.intermediate * touched, float(experts.hidden))
        down = (experts.hidden * touched, float(experts.intermediate))
        seconds[at] = sum(
            kernels.grouped_gemm_s(experts.precision, rows, n, k)
            * float(_slowing(kernels, experts.precision, np.array([rows]), n, k, condition)[0])
            for n, k in (up, down)
        )
    return np.asarray(experts.layers * np.interp(tokens, grid, seconds), dtype=np.float64)


def weight_read_bytes(shapes: RankShapes, tokens: Array) -> Array:
    """Bytes of weights that a step reads, by tokens."""
    dense = sum(
        gemm.n * gemm.k * gemm.count * bytes_per_weight(gemm.precision) for gemm in (*shapes.gemms, shapes.head)
    )
    if (experts := shapes.experts) is None:
        return np.full_like(tokens, dense)
    per_expert = experts.weights * bytes_per_weight(experts.precision)
    return dense + experts.layers * per_expert * touched_experts(experts, tokens)


def flops_per_token(shapes: RankShapes) -> float:
    """Flops of the GEMMs that every token passes, of one GPU, without the vocabulary's."""
    dense = sum(2.0 * gemm.n * gemm.k * gemm.count for gemm in shapes.gemms)
    if experts := shapes.experts:
        dense += 2.0 * experts.layers * experts.weights * experts.experts * experts.share
    return dense
