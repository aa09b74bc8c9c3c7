"""How long a kernel takes on a GPU: looked up where it was measured, interpolated between, assumed beyond.

Three kinds of kernels make up a step: GEMMs, attention and all-reduce. Between measured points of a GEMM its
*efficiency* runs (what a roofline says over what was measured), in the logarithms of tokens and shape, because that
changes far less from point to point than time does. Attention runs linearly in batch and length, as its cost does.
What no table holds is a roofline at assumed efficiencies, and `assumed` says so in words.
This module refuses to know about models.
"""

from dataclasses import dataclass, field

import numpy as np

from flyball_twin.physics.hardware import GpuModel
from flyball_twin.physics.kernel_file import Array, AttentionTable, Codes, GemmTable, KernelFile, ReduceTable, decode
from flyball_twin.physics.language import BYTES_PER_ACTIVATION, BYTES_PER_KV, BYTES_PER_WEIGHT

LAUNCH_S = 2e-6
"""Least time of a kernel inside a graph; what the smallest GEMMs of the tables take."""
GEMM_BANDWIDTH = 0.80
GEMM_COMPUTE = 0.70
"""Assumed shares of the peaks that a GEMM reaches where nothing was measured: the medians over large shapes of the
bundled tables."""
GROUPED_DEPTH = 2048
"""Assumed: grouped GEMMs are as efficient as one of at least that depth."""
ATTENTION_BANDWIDTH = 0.75
ATTENTION_COMPUTE = 0.55
ATTENTION_S = 10e-6
"""The same for attention, and its least time."""
LINK_SHARE = 0.7
REDUCE_S = 8e-6
REDUCE_EAGER_S = 20e-6
"""The same for an all-reduce, within a graph and launched by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """One layer's attention on one GPU."""

    heads: int
    kv_heads: int
    head_dim: int
    kv_precision: str
    window: int = 0

    @property
    def kv_bytes(self) -> float:
        """Bytes of keys and values that one token keeps."""
        return 2.0 * self.kv_heads * self.head_dim * BYTES_PER_KV[self.kv_precision]

    @property
    def flops_per_pair(self) -> float:
        """Flops for one query token to attend to one key."""
        return 4.0 * self.heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeGrid:
    """Seconds of decode attention by batch and tokens of each sequence; every point is there."""

    batches: Array
    lengths: Array
    seconds: Array

    def row(self, batch: float) -> Array:
        """Seconds at every length, for one batch size; beyond the grid in proportion to the batch."""
        last = self.batches[-1]
        if batch >= last:
            return np.asarray(self.seconds[-1] * (batch / last), dtype=np.float64)
        at = int(np.searchsorted(self.batches, batch, side="right")) - 1
        if at < 0:
            return np.asarray(self.seconds[0], dtype=np.float64)
        share = (batch - self.batches[at]) / (self.batches[at + 1] - self.batches[at])
        return np.asarray(self.seconds[at] + share * (self.seconds[at + 1] - self.seconds[at]), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillCurve:
    """Seconds of prefill attention by tokens of a prompt without prefix: of one alone, and of one more beside it."""

    lengths: Array
    alone_s: Array
    more_s: Array


@dataclass(slots=True)
class Kernels:
    """Kernel times of one healthy GPU. `assumed` collects, in words, what was asked for and not measured."""

    gpu: GpuModel
    file: KernelFile
    assumed: dict[str, None] = field(default_factory=dict)
    _gemm: dict[str, tuple[GemmTable, Array]] = field(default_factory=dict)

    def assume(self, what: str) -> None:
        """Note an ingredient that no table holds."""
        self.assumed[what] = None

    # GEMM

    def gemm_s(self, precision: str, tokens: Array, n: float, k: float) -> Array:
        """Seconds of (tokens x k) times (k x n) for each count of tokens, above 0."""
        source = self._gemm_source(precision)
        if source is None:
            return LAUNCH_S + np.maximum(
                self._bytes_s(precision, tokens, n, k) / GEMM_BANDWIDTH,
                self._flops_s(precision, tokens, n, k) / GEMM_COMPUTE,
            )
        table, slowness = self._gemm_table(source)
        curve = _between(table, slowness, n, k)
        grid = table.m.astype(np.float64)
        # Beyond the measured counts, at the efficiency of the last.
        ideal = self.roofline_s(precision, tokens, n, k)
        return np.asarray(ideal * np.exp(np.interp(np.log(tokens), np.log(grid), curve)), dtype=np.float64)

    def grouped_gemm_s(self, precision: str, rows: float, n: float, k: float) -> float:
        """Seconds of many GEMMs in one kernel, `rows` x k times k x n in all, as one at the efficiency of a deep one.

        Many shallow GEMMs side by side keep a GPU as busy as few deep ones; one wide and shallow GEMM does not.
        """
        tokens, deep = np.array([rows]), max(k, GROUPED_DEPTH)
        seconds = self.gemm_s(precision, tokens, n, deep)
        ideal, reference = (self.roofline_s(precision, tokens, n, depth) for depth in (k, deep))
        return float((seconds * ideal / reference)[0])

    def _gemm_source(self, precision: str) -> str | None:
        """The precision whose table serves: its own, or a nearby one's efficiency."""
        tables = self.file.gemm
        if precision in tables:
            return precision
        for other in ("fp8", "bf16") if precision.startswith("fp8") else ("bf16",):
            if other in tables:
                self.assume(f"{precision} GEMM: efficiency of {other}")
                return other
        self.assume(f"{precision} GEMM: {GEMM_BANDWIDTH:.0%} of bandwidth, {GEMM_COMPUTE:.0%} of compute")
        return None

    def _gemm_table(self, precision: str) -> tuple[GemmTable, Array]:
        """The table, and the logarithm of measured time over roofline at every point; gaps filled."""
        if precision not in self._gemm:
            table = self.file.gemm[precision]
            slowness = self._slowness(precision, table)
            if precision == "fp8_block" and "fp8" in self.file.gemm and np.isnan(slowness).any():
                slowness = self._patched(table, slowness)
            self._gemm[precision] = (table, _filled(slowness))
        return self._gemm[precision]

    def _slowness(self, precision: str, table: GemmTable) -> Array:
        n, k, tokens = (
            axis.astype(np.float64) for axis in np.meshgrid(table.n, table.k, table.m, indexing="ij", sparse=True)
        )
        ideal = self.roofline_s(precision, tokens, n, k)
        return np.asarray(np.log(decode(table.codes) / ideal), dtype=np.float64)

    def _patched(self, table: GemmTable, slowness: Array) -> Array:
        """Block-wise FP8 where its own times were the host's: plain FP8's slowness, times the usual ratio of both."""
        other = self.file.gemm["fp8"]
        if any(not np.array_equal(getattr(table, axis), getattr(other, axis)) for axis in ("n", "k", "m")):
            return slowness
        self.assume("fp8_block GEMM: small shapes from plain fp8")
        plain = self._slowness("fp8", other)
        ratio = float(np.nanmedian(slowness - plain))
        return np.where(np.isnan(slowness), plain + ratio, slowness)

    def roofline_s(self, precision: str, tokens: Array, n: float | Array, k: float | Array) -> Array:
        """What a GEMM would take at the peaks, with the least time of a kernel."""
        return LAUNCH_S + np.maximum(self._bytes_s(precision, tokens, n, k), self._flops_s(precision, tokens, n, k))

    def bounds_s(self, precision: str, tokens: Array, n: float, k: float) -> tuple[Array, Array]:
        """Seconds that memory and compute would take at their peaks."""
        return self._bytes_s(precision, tokens, n, k), self._flops_s(precision, tokens, n, k)

    def _bytes_s(self, precision: str, tokens: Array, n: float | Array, k: float | Array) -> Array:
        inputs = 1.0 if precision.startswith("fp8") else BYTES_PER_ACTIVATION
        moved = BYTES_PER_WEIGHT[precision] * n * k + tokens * (inputs * k + BYTES_PER_ACTIVATION * n)
        return np.asarray(moved / self.gpu.hbm_bytes_per_s, dtype=np.float64)

    def _flops_s(self, precision: str, tokens: Array, n: float | Array, k: float | Array) -> Array:
        return np.asarray(2.0 * tokens * n * k / self.gpu.flops_per_s(precision), dtype=np.float64)

    # Attention

    def decode_attention(self, shape: AttentionShape) -> DecodeGrid:
        """Times of one layer's decode attention."""
        found = self._attention("decode", shape)
        if found is None:
            return self._assumed_decode(shape)
        table, codes, scale = found
        seconds = decode(codes)
        lengths = table.lengths.astype(np.float64)
        keep = ~np.isnan(seconds).all(axis=1)
        batches = table.batches.astype(np.float64)[keep]
        seconds = _extended(seconds[keep], lengths)
        floor = seconds.min(axis=1, keepdims=True)
        return DecodeGrid(batches=batches, lengths=lengths, seconds=floor + (seconds - floor) * scale)

    def _assumed_decode(self, shape: AttentionShape) -> DecodeGrid:
        self.assume(f"decode attention: {ATTENTION_BANDWIDTH:.0%} of bandwidth")
        batches = np.exp2(np.arange(12.0))
        lengths = np.exp2(np.arange(1.0, 18.0))
        seen = np.minimum(lengths, shape.window) if shape.window else lengths
        bandwidth = self.gpu.hbm_bytes_per_s * ATTENTION_BANDWIDTH
        seconds = ATTENTION_S + np.outer(batches, seen) * shape.kv_bytes / bandwidth
        return DecodeGrid(batches=batches, lengths=lengths, seconds=seconds)

    def prefill_attention(self, shape: AttentionShape) -> PrefillCurve:
        """Times of one layer's prefill attention."""
        found = self._attention("prefill", shape)
        if found is None:
            return self._assumed_prefill(shape)
        table, codes, scale = found
        seconds = decode(codes)
        lengths = table.lengths.astype(np.float64)
        measured = ~np.isnan(seconds).all(axis=0)
        seconds, lengths, batches = seconds[:, measured], lengths[measured], table.batches.astype(np.float64)
        alone, more = np.empty_like(lengths), np.empty_like(lengths)
        for at in range(lengths.size):
            there = np.flatnonzero(~np.isnan(seconds[:, at]))
            few, many = int(there[0]), int(there[-1])
            alone[at] = seconds[few, at] / batches[few]
            beside = max(batches[many] - 1.0, 1.0)
            more[at] = (seconds[many, at] - alone[at]) / beside if batches[many] > 1.0 else alone[at]
        more = np.clip(more, 0.0, alone)
        floor = float(alone.min())
        return PrefillCurve(lengths=lengths, alone_s=floor + (alone - floor) * scale, more_s=more * scale)

    def _assumed_prefill(self, shape: AttentionShape) -> PrefillCurve:
        self.assume(f"prefill attention: {ATTENTION_COMPUTE:.0%} of compute")
        lengths = np.exp2(np.arange(0.0, 17.0))
        pairs = 0.5 * lengths**2
        if shape.window:
            pairs = np.minimum(pairs, shape.window * lengths)
        # Short prompts leave most of the multiprocessors idle; half of what they reach at 512 tokens.
        reached = ATTENTION_COMPUTE * lengths / (lengths + 512.0)
        more = pairs * shape.flops_per_pair / (self.gpu.bf16_flops_per_s * reached)
        return PrefillCurve(lengths=lengths, alone_s=ATTENTION_S + more, more_s=more)

    def _attention(self, part: str, shape: AttentionShape) -> tuple[AttentionTable, Codes, float] | None:
        """The times for these heads or the nearest, and the factor from their work to that of `shape`."""
        tables = self.file.decode if part == "decode" else self.file.prefill
        table = tables.get((shape.head_dim, shape.kv_precision, shape.window))
        scale = 1.0
        if table is None:
            table = tables.get((shape.head_dim, "bf16", shape.window))
            if table is None:
                return None
            self.assume(f"{part} attention with a KV cache in {shape.kv_precision}: that of bf16 by its bytes")
            if part == "decode":
                scale = BYTES_PER_KV[shape.kv_precision] / BYTES_PER_KV["bf16"]
        wanted = np.array([shape.heads, shape.kv_heads], dtype=np.float64)
        distance = np.abs(np.log(table.heads / wanted)).sum(axis=1)
        at = int(distance.argmin())
        heads, kv_heads = (int(value) for value in table.heads[at])
        if distance[at] > 0.0:
            self.assume(f"{part} attention of {shape.heads}/{shape.kv_heads} heads: that of {heads}/{kv_heads}")
            scale *= shape.kv_heads / kv_heads if part == "decode" else shape.heads / heads
        return table, table.codes[at], scale

    # All-reduce

    def all_reduce_s(self, gpus: int, sizes: Array, *, graph: bool) -> Array:
        """Seconds of an all-reduce of so many bytes over `gpus`, within a graph or launched by itself."""
        if gpus < 2:
            return np.zeros_like(sizes)
        launch = "graph" if graph else "eager"
        table: ReduceTable | None = self.file.reduce.get(launch)
        if table is None or gpus not in table.gpus:
            self.assume(f"all-reduce over {gpus} GPUs: {LINK_SHARE:.0%} of the link")
            wire_s = 2.0 * (gpus - 1) / gpus * sizes / (self.gpu.link_bytes_per_s * LINK_SHARE)
            return (REDUCE_S if graph else REDUCE_EAGER_S) + np.asarray(wire_s, dtype=np.float64)
        seconds = decode(table.codes[int(np.flatnonzero(table.gpus == gpus)[0])])
        there = ~np.isnan(seconds)
        known = table.sizes.astype(np.float64)[there]
        inside = np.exp(np.interp(np.log(sizes), np.log(known), np.log(seconds[there])))
        return np.where(sizes > known[-1], inside * sizes / known[-1], inside)


def _between(table: GemmTable, slowness: Array, n: float, k: float) -> Array:
    """The slowness at every m for a shape, bilinear in the logarithms of n and k; the nearest edge beyond the grid."""
    at_n, share_n = _place(table.n.astype(np.float64), n)
    at_k, share_k = _place(table.k.astype(np.float64), k)
    next_n, next_k = min(at_n + 1, table.n.size - 1), min(at_k + 1, table.k.size - 1)
    low = slowness[at_n, at_k] + share_k * (slowness[at_n, next_k] - slowness[at_n, at_k])
    high = slowness[next_n, at_k] + share_k * (slowness[next_n, next_k] - slowness[next_n, at_k])
    return np.asarray(low + share_n * (high - low), dtype=np.float64)


def _place(grid: Array, value: float) -> tuple[int, float]:
    """Index of the grid point below, and how far on to the next, in logarithms; at most at the edges."""
    if grid.size == 1:
        return 0, 0.0
    at = int(np.clip(np.searchsorted(grid, value, side="right") - 1, 0, grid.size - 2))
    share = (np.log(value) - np.log(grid[at])) / (np.log(grid[at + 1]) - np.log(grid[at]))
    return at, float(np.clip(share, 0.0, 1.0))


def _filled(slowness: Array) -> Array:
    """Gaps along m take the nearest measured count's, shapes without any those of the next smaller n."""
    filled = slowness.copy()
    for at_n in range(filled.shape[0]):
        for at_k in range(filled.shape[1]):
            curve = filled[at_n, at_k]
            gone = np.isnan(curve)
            if gone.all():
                filled[at_n, at_k] = filled[at_n - 1, at_k] if at_n else 0.0
            elif gone.any():
                places = np.arange(curve.size)
                curve[gone] = np.interp(places[gone], places[~gone], curve[~gone])
    return filled


def _extended(seconds: Array, lengths: Array) -> Array:
    """Decode times beyond the longest measured length of each batch: on along the last two points' slope.

    Rows that end early take a slope of their own bytes: no less than in proportion to the batch of the row before.
    """
    filled = seconds.copy()
    for row in filled:
        there = np.flatnonzero(~np.isnan(row))
        last = int(there[-1])
        before = int(there[max(0, there.size - 2)])
        step = lengths[last] - lengths[before]
        slope = max(0.0, (row[last] - row[before]) / step) if step > 0.0 else row[last] / lengths[last]
        row[last + 1 :] = row[last] + slope * (lengths[last + 1 :] - lengths[last])
        gone = np.isnan(row)
        row[gone] = np.interp(lengths[gone], lengths[~gone], row[~gone])
        np.maximum.accumulate(row, out=row)
    return np.maximum.accumulate(filled, axis=0)
