"""The work of a model on one of its GPUs: GEMM shapes, attention shapes, bytes between kernels.

Tensor parallelism as Megatron-LM has it (arXiv 1909.08053): attention by heads, the MLP by width, an all-reduce after
each. Experts are cut the same way, or whole experts are spread over groups of GPUs (`expert_parallel`). It refuses
layouts that do not divide a model, and knows nothing of time.
"""

from dataclasses import dataclass

from flyball_core.errors import Rejected
from flyball_twin.physics.kernels import AttentionShape
from flyball_twin.physics.language import BYTES_PER_ACTIVATION, LanguageModel, bytes_per_weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """`count` GEMMs of a step that multiply every token by n x k weights."""

    n: int
    k: int
    count: int
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedExperts:
    """The routed experts of one layer, as far as they are on one GPU."""

    layers: int
    experts: int
    """On this GPU."""
    share: float
    """Chance that a token's choice of experts includes one certain expert."""
    hidden: int
    intermediate: int
    """Width of an expert's part on this GPU."""
    precision: str

    @property
    def weights(self) -> float:
        """Weights of one expert on this GPU."""
        return 3.0 * self.hidden * self.intermediate


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShapes:
    """What one GPU of an engine computes per step."""

    ranks: int
    gemms: tuple[Gemm, ...]
    head: Gemm
    """The vocabulary's: one row per sequence."""
    experts: RoutedExperts | None
    attention: AttentionShape
    attention_layers: int
    """Layers that look back all the way."""
    window_attention: AttentionShape | None
    window_layers: int
    latent: bool
    layers: int
    kernels_per_layer: int
    """Elementwise kernels."""
    elementwise_bytes: float
    """Bytes that elementwise kernels move per token, in all layers."""
    reduced_bytes: float
    """Bytes per token of one all-reduce; two per layer."""
    weight_bytes: float
    """Of everything on this GPU."""
    kv_bytes_per_token: float


def rank_shapes(
    model: LanguageModel, *, ranks: int, expert_parallel: int = 1, weights: str = "bf16", kv_cache: str = "bf16"
) -> RankShapes:
    """The shapes of one of `ranks` tensor parallel GPUs. Raises `Rejected` for a layout the model does not have."""
    _check_layout(model, ranks, expert_parallel)
    precision = model.layer_precision(weights)
    routed = _routed(model, ranks, expert_parallel, weights)
    gemms = (*_attention_gemms(model, ranks, precision), *_mlp_gemms(model, ranks, precision))
    head = Gemm(n=-(-model.vocabulary // ranks), k=model.hidden, count=1, precision="bf16")
    embeddings = 1.0 if model.tied_embeddings else 2.0
    weight_bytes = sum(gemm.n * gemm.k * gemm.count * bytes_per_weight(gemm.precision) for gemm in gemms)
    weight_bytes += head.n * head.k * bytes_per_weight("bf16") * embeddings
    if routed is not None:
        weight_bytes += routed.layers * routed.experts * routed.weights * bytes_per_weight(weights)
    return RankShapes(
        ranks=ranks,
        gemms=gemms,
        head=head,
        experts=routed,
        attention=_attention(model, ranks, kv_cache, 0),
        attention_layers=model.layers - model.window_layers,
        window_attention=_attention(model, ranks, kv_cache, model.window) if model.window_layers else None,
        window_layers=model.window_layers,
        latent=model.latent is not None,
        layers=model.layers,
        kernels_per_layer=9 if model.experts else 4,
        elementwise_bytes=_elementwise_bytes(model, ranks, expert_parallel),
        reduced_bytes=model.hidden * BYTES_PER_ACTIVATION,
        weight_bytes=weight_bytes,
        kv_bytes_per_token=model.kv_bytes_in(kv_cache, ranks),
    )


def _check_layout(model: LanguageModel, ranks: int, expert_parallel: int) -> None:
    if ranks < 1 or model.heads % ranks or model.intermediate % ranks:
        what = f"the {model.heads} heads and the MLP of {model.intermediate} of {model.name}"
        raise Rejected(f"{ranks} GPUs do not share {what} evenly")
    if expert_parallel < 1 or ranks % expert_parallel:
        raise Rejected(f"experts are spread over groups that divide the {ranks} GPUs, not over {expert_parallel}")
    if expert_parallel > 1 and (model.experts is None or model.experts.experts % expert_parallel):
        raise Rejected(f"{model.name} has no experts to spread over {expert_parallel} groups of GPUs")


def _attention(model: LanguageModel, ranks: int, kv_cache: str, window: int) -> AttentionShape:
    """Attention on one GPU; of a latent model that of its prefill, in which keys and values are made of the latent."""
    if latent := model.latent:
        heads = model.heads // ranks
        return AttentionShape(
            heads=heads, kv_heads=heads, head_dim=latent.nope_dim + latent.rope_dim, kv_precision=kv_cache
        )
    return AttentionShape(
        heads=model.heads // ranks,
        kv_heads=max(1, model.kv_heads // ranks),
        head_dim=model.head_dim,
        kv_precision=kv_cache,
        window=window,
    )


def _attention_gemms(model: LanguageModel, ranks: int, precision: str) -> tuple[Gemm, ...]:
    heads, layers, hidden = model.heads // ranks, model.layers, model.hidden

    def gemm(n: int, k: int) -> Gemm:
        return Gemm(n=n, k=k, count=layers, precision=precision)

    if latent := model.latent:
        query_head = latent.nope_dim + latent.rope_dim
        down = latent.query_rank + latent.values_per_token
        return (
            gemm(down if latent.query_rank else latent.values_per_token, hidden),
            gemm(heads * query_head, latent.query_rank or hidden),
            gemm(heads * (latent.nope_dim + latent.value_dim), latent.kv_rank),
            gemm(hidden, heads * latent.value_dim),
        )
    kv_heads = max(1, model.kv_heads // ranks)
    return gemm((heads + 2 * kv_heads) * model.head_dim, hidden), gemm(hidden, heads * model.head_dim)


def _mlp_gemms(model: LanguageModel, ranks: int, precision: str) -> tuple[Gemm, ...]:
    gemms: list[Gemm] = []

    def add(width: int, layers: int) -> None:
        if width and layers:
            gemms.append(Gemm(n=2 * width, k=model.hidden, count=layers, precision=precision))
            gemms.append(Gemm(n=model.hidden, k=width, count=layers, precision=precision))

    add(model.intermediate // ranks, model.layers - model.expert_layers)
    if experts := model.experts:
        add(experts.shared_intermediate // ranks, model.expert_layers)
        gemms.append(Gemm(n=experts.experts, k=model.hidden, count=model.expert_layers, precision="bf16"))
    return tuple(gemms)


def _routed(model: LanguageModel, ranks: int, expert_parallel: int, weights: str) -> RoutedExperts | None:
    if (experts := model.experts) is None:
        return None
    return RoutedExperts(
        layers=model.expert_layers,
        experts=experts.experts // expert_parallel,
        share=experts.per_token / experts.experts,
        hidden=model.hidden,
        intermediate=max(1, experts.intermediate * expert_parallel // ranks),
        precision=weights,
    )


def _elementwise_bytes(model: LanguageModel, ranks: int, expert_parallel: int) -> float:
    """Two norms that add a residual, rotary embedding of queries and keys, activation, per token, in all layers."""
    values = 8.0 * model.hidden
    if latent := model.latent:
        values += 2.0 * (latent.query_rank + model.heads // ranks * latent.rope_dim + latent.values_per_token)
    else:
        values += 2.0 * (model.heads // ranks + max(1, model.kv_heads // ranks)) * model.head_dim
    total = values * model.layers + 3.0 * (model.intermediate // ranks) * (model.layers - model.expert_layers)
    if experts := model.experts:
        routed = 3.0 * experts.per_token * experts.intermediate / ranks
        # Each choice is gathered, and its result scattered back and summed.
        routed += 4.0 * experts.per_token * model.hidden / expert_parallel
        total += model.expert_layers * (routed + 3.0 * experts.shared_intermediate / ranks)
    return total * BYTES_PER_ACTIVATION
