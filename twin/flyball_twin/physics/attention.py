"""What attending costs: decode by batch and context, prefill by prefix and chunk.

Decode attention of a batch is a line in its total context between the lengths that were measured. Prefill attention
of a chunk is what the chunk costs without a prefix plus its queries' work on the prefix, at the rate of long prompts
(no table holds chunks behind a prefix); never faster than the prefix can be read. Multi-head latent attention has no
table at all. It refuses to know about layers' GEMMs and hosts.
"""

from dataclasses import dataclass

import numpy as np

from flyball_twin.physics.kernel_file import Array
from flyball_twin.physics.kernels import (
    ATTENTION_BANDWIDTH,
    ATTENTION_COMPUTE,
    ATTENTION_S,
    AttentionShape,
    DecodeGrid,
    Kernels,
    PrefillCurve,
)
from flyball_twin.physics.language import BYTES_PER_KV, Latent
from flyball_twin.physics.shapes import RankShapes
from flyball_twin.physics.step_cost import GpuCondition

QUERY_TILE = 64
"""Query rows (tokens times query heads per KV head) below which a tile of the kernel is not full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLine:
    """Seconds of decode attention in all layers for one batch, as a broken line in the context of all sequences.

    They are `starts[i] + slopes[i] x context`, where `i` counts the `knots` that lie at or below the context.
    """

    knots: tuple[float, ...]
    starts: tuple[float, ...]
    slopes: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillSeconds:
    """Seconds of prefill attention in all layers, by tokens of a chunk.

    They are those of the first chunk of a step, of another beside it, and for each token of the chunk's prefix.
    """

    alone: Array
    more: Array
    per_prefix_token: Array


class Attention:
    """Attention of one engine's GPU. `latent` is its model's, where it has one; `kv_factor` is the variant's."""

    def __init__(
        self, shapes: RankShapes, kernels: Kernels, condition: GpuCondition, latent: Latent | None, kv_factor: float
    ) -> None:
        self._shapes = shapes
        self._kernels = kernels
        self._condition = condition
        self._kv_factor = kv_factor
        if latent is None:
            self._full = kernels.decode_attention(shapes.attention)
        else:
            self._full = _latent_grid(shapes.attention, latent, kernels)
        window = shapes.window_attention
        self._window = None if window is None else kernels.decode_attention(window)

    def decode_line(self, decodes: int) -> DecodeLine:
        """The line for `decodes` sequences."""
        if decodes < 1:
            return DecodeLine(knots=(), starts=(0.0,), slopes=(0.0,))
        lengths = self._full.lengths
        seconds = self._shapes.attention_layers * self._slowed(self._full, decodes)
        if self._window is not None:
            of_window = self._slowed(self._window, decodes)
            seconds = seconds + self._shapes.window_layers * np.interp(lengths, self._window.lengths, of_window)
        context = lengths * decodes
        slopes = np.diff(seconds) / np.diff(context)
        slopes = np.append(slopes, slopes[-1])
        starts = seconds - slopes * context
        # Below the first knot the line of the first stretch holds, so it has no knot of its own.
        return DecodeLine(
            knots=tuple(context[1:].tolist()), starts=tuple(starts.tolist()), slopes=tuple(slopes.tolist())
        )

    def _slowed(self, grid: DecodeGrid, decodes: int) -> Array:
        """A row of the grid for the variant and the condition: what is above the least time streams KV."""
        row = grid.row(decodes)
        least = row[0]
        return np.asarray(least + (row - least) * (self._kv_factor / self._condition.bandwidth), dtype=np.float64)

    def prefill(self, chunks: Array) -> PrefillSeconds:
        """The seconds for each size of chunk."""
        shapes = self._shapes
        curve = self._kernels.prefill_attention(shapes.attention)
        alone, more = _at(curve.lengths, curve.alone_s, chunks), _at(curve.lengths, curve.more_s, chunks)
        behind = self._behind_prefix(shapes.attention, curve, chunks)
        layers, clock = shapes.attention_layers, self._condition.clock
        total = PrefillSeconds(
            alone=layers * alone / clock,
            more=layers * more / clock,
            per_prefix_token=layers * behind,
        )
        if shapes.window_attention is None:
            return total
        windowed = self._kernels.prefill_attention(shapes.window_attention)
        # What a chunk sees of its prefix through a window does not grow with the prefix, and is left out.
        return PrefillSeconds(
            alone=total.alone + shapes.window_layers * _at(windowed.lengths, windowed.alone_s, chunks) / clock,
            more=total.more + shapes.window_layers * _at(windowed.lengths, windowed.more_s, chunks) / clock,
            per_prefix_token=total.per_prefix_token,
        )

    def _behind_prefix(self, shape: AttentionShape, curve: PrefillCurve, chunks: Array) -> Array:
        """Seconds of one layer for each prefix token behind which a chunk of this size is computed."""
        self._kernels.assume("prefill behind a prefix: at the rate of long prompts")
        longest = curve.lengths[-1]
        pair_s = curve.alone_s[-1] / (0.5 * longest * longest)
        group = shape.heads / shape.kv_heads
        rows = np.maximum(chunks, QUERY_TILE / group)
        read_s = shape.kv_bytes / (self._kernels.gpu.hbm_bytes_per_s * ATTENTION_BANDWIDTH * self._condition.bandwidth)
        return np.asarray(np.maximum(rows * pair_s / self._condition.clock, read_s), dtype=np.float64)


def _at(lengths: Array, seconds: Array, chunks: Array) -> Array:
    """A curve at other lengths, log-log between its points, and as work grows, with the square, beyond the last."""
    curve = np.log(np.maximum(seconds, 1e-9))
    inside = np.exp(np.interp(np.log(chunks), np.log(lengths), curve))
    return np.where(chunks > lengths[-1], inside * (chunks / lengths[-1]) ** 2, inside)


def _latent_grid(shape: AttentionShape, latent: Latent, kernels: Kernels) -> DecodeGrid:
    """Decode attention over latents: each is read once for all heads, and multiplied with every head's query."""
    kernels.assume(
        f"latent attention in decode: {ATTENTION_BANDWIDTH:.0%} of bandwidth or {ATTENTION_COMPUTE:.0%} of compute"
    )
    batches, lengths = np.exp2(np.arange(12.0)), np.exp2(np.arange(1.0, 18.0))
    tokens = np.outer(batches, lengths)
    read_s = tokens * latent.values_per_token * BYTES_PER_KV[shape.kv_precision]
    read_s = read_s / (kernels.gpu.hbm_bytes_per_s * ATTENTION_BANDWIDTH)
    flops = 2.0 * shape.heads * (2 * latent.kv_rank + latent.rope_dim)
    compute_s = tokens * flops / (kernels.gpu.bf16_flops_per_s * ATTENTION_COMPUTE)
    return DecodeGrid(batches=batches, lengths=lengths, seconds=ATTENTION_S + np.maximum(read_s, compute_s))
