"""Transformers as far as serving them costs anything: what a model's config says, and what follows from it.

Weights, KV bytes and the shapes of GEMMs follow from a dozen numbers of a config. This module refuses to know
about GPUs, kernels and time.
"""

from dataclasses import dataclass

from flyball_core.errors import Rejected

BYTES_PER_WEIGHT = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int4": 0.5 + 2.0 / 32, "mxfp4": 0.5 + 1.0 / 32}
"""With the scales of groups of 32 where a precision has them; block-wise FP8's are a part in 8192."""
NARROW = ("int4", "mxfp4")
"""Precisions that hold only experts where a model has them; the rest of it stays BF16, as checkpoints do."""
BYTES_PER_KV = {"bf16": 2.0, "fp8": 1.0}
BYTES_PER_ACTIVATION = 2.0
"""Of a value between kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts in place of the MLP."""

    experts: int
    per_token: int
    intermediate: int
    """Width of one expert."""
    shared_intermediate: int = 0
    """Width of what every token passes beside its experts; 0: nothing."""
    dense_layers: int = 0
    """Leading layers that have an MLP instead."""

    def touched(self, tokens: float) -> float:
        """Experts that a batch of so many tokens reaches, if routing is even: E(1 - (1 - k/E)^tokens)."""
        missed: float = (1.0 - self.per_token / self.experts) ** tokens
        return self.experts * (1.0 - missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latent:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the cache holds one latent per token."""

    query_rank: int
    """0: queries are projected directly."""
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int

    @property
    def values_per_token(self) -> int:
        """Values of the latent that a layer keeps per token."""
        return self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModel:
    """One decoder-only transformer with gated MLPs. Counts are of the whole model."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the MLP of a layer that has one."""
    vocabulary: int
    max_context_tokens: int
    tied_embeddings: bool = False
    experts: Experts | None = None
    latent: Latent | None = None
    window: int = 0
    """Tokens that a sliding-window layer looks back; 0: there is none."""
    window_layers: int = 0

    @property
    def expert_layers(self) -> int:
        """Layers whose MLP is a mixture of experts."""
        return self.layers - self.experts.dense_layers if self.experts else 0

    @property
    def attention_weights(self) -> float:
        """Weights of one layer's attention."""
        if latent := self.latent:
            query_head = latent.nope_dim + latent.rope_dim
            query = (
                self.hidden * latent.query_rank + latent.query_rank * self.heads * query_head
                if latent.query_rank
                else self.hidden * self.heads * query_head
            )
            key_value = self.hidden * latent.values_per_token
            key_value += latent.kv_rank * self.heads * (latent.nope_dim + latent.value_dim)
            return float(query + key_value + self.heads * latent.value_dim * self.hidden)
        return float(self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads))

    @property
    def shared_weights(self) -> float:
        """Weights that every token passes: attention, MLPs, routers, shared experts; without the vocabulary."""
        total = self.layers * self.attention_weights
        total += (self.layers - self.expert_layers) * 3.0 * self.hidden * self.intermediate
        if experts := self.experts:
            per_layer = 3.0 * self.hidden * experts.shared_intermediate + self.hidden * experts.experts
            total += self.expert_layers * per_layer
        return total

    @property
    def expert_weights(self) -> float:
        """Weights of all routed experts."""
        if self.experts is None:
            return 0.0
        return self.expert_layers * self.experts.experts * 3.0 * self.hidden * self.experts.intermediate

    @property
    def vocabulary_weights(self) -> float:
        """Weights of embeddings and of the head."""
        return float(self.vocabulary * self.hidden) * (1.0 if self.tied_embeddings else 2.0)

    @property
    def parameters(self) -> float:
        """All weights (norms and biases, below a thousandth, left out)."""
        return self.shared_weights + self.expert_weights + self.vocabulary_weights

    @property
    def active_parameters(self) -> float:
        """Weights that one token is multiplied with, the head's included."""
        routed = self.expert_weights * self.experts.per_token / self.experts.experts if self.experts else 0.0
        return self.shared_weights + routed + float(self.vocabulary * self.hidden)

    def weight_bytes_in(self, precision: str) -> float:
        """Bytes of the weights, the vocabulary's in BF16. Raises `Rejected` for an unknown precision."""
        layers = bytes_per_weight(self.layer_precision(precision)) * self.shared_weights
        experts = bytes_per_weight(precision) * self.expert_weights
        return layers + experts + BYTES_PER_WEIGHT["bf16"] * self.vocabulary_weights

    def layer_precision(self, precision: str) -> str:
        """The precision of what is no routed expert, where weights are called `precision`."""
        return "bf16" if self.experts and precision in NARROW else precision

    def kv_bytes_in(self, precision: str, ranks: int = 1) -> float:
        """KV bytes per token that one of `ranks` tensor parallel ranks keeps.

        Heads are spread over ranks and repeated where there are fewer; a latent is kept by every rank whole.
        Layers with a sliding window keep no more than it and are not counted. Raises `Rejected` for an
        unknown precision.
        """
        if precision not in BYTES_PER_KV:
            raise Rejected(f"a KV cache holds one of {', '.join(BYTES_PER_KV)}, not {precision!r}")
        if self.latent is not None:
            return self.layers * self.latent.values_per_token * BYTES_PER_KV[precision]
        heads = max(1, self.kv_heads // ranks)
        return (self.layers - self.window_layers) * 2.0 * heads * self.head_dim * BYTES_PER_KV[precision]

    def attention_flops_per_pair(self, layers: int | None = None) -> float:
        """Flops for one query token to attend to one key, in all layers without a window."""
        of_layers = self.layers - self.window_layers if layers is None else layers
        if latent := self.latent:
            return 2.0 * self.heads * (latent.nope_dim + latent.rope_dim + latent.value_dim) * of_layers
        return 4.0 * self.heads * self.head_dim * of_layers


def bytes_per_weight(precision: str) -> float:
    """Bytes of one weight. Raises `Rejected` for an unknown precision."""
    if precision not in BYTES_PER_WEIGHT:
        raise Rejected(f"weights take one of {', '.join(BYTES_PER_WEIGHT)}, not {precision!r}")
    return BYTES_PER_WEIGHT[precision]
