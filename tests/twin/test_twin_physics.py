"""What a step costs has the shape that physics gives it, and the sizes that others measured."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Rejected
from flyball_twin.physics import (
    BLOCK_TOKENS,
    ENGINE_MODEL,
    FLASH_ATTN,
    GRAPHS,
    HEALTHY,
    SPLITKV,
    VARIANTS,
    EngineModel,
    Fitted,
    GpuCondition,
    KernelCost,
    captured_sizes,
    fitted_for,
    gpu_named,
    model_named,
    variant_named,
)

ENGINES = (
    ENGINE_MODEL,
    EngineModel(gpu=gpu_named("a100_sxm"), model=model_named("llama-3.1-8b")),
    EngineModel(gpu=gpu_named("h200_sxm"), model=model_named("deepseek-r1"), tensor_parallel=8, weights="fp8_block"),
    EngineModel(gpu=gpu_named("h100_sxm"), model=model_named("gpt-oss-120b"), weights="mxfp4"),
    EngineModel(gpu=gpu_named("l40s"), model=model_named("llama-3.1-8b"), weights="fp8", kv_cache="fp8"),
    replace(ENGINE_MODEL, backend="sglang", draft_tokens=3),
)
ENGINE = st.sampled_from(ENGINES)
NAMES = st.sampled_from(sorted(VARIANTS))
DECODES = st.integers(1, 256)
CONTEXT = st.integers(0, 400_000)
CHUNKS = st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 2048)), min_size=1, max_size=4)


def cost_of(gpu: str, model: str, ranks: int, weights: str, backend: str = "trtllm") -> KernelCost:
    """The cost of an engine by names."""
    engine = EngineModel(
        gpu=gpu_named(gpu), model=model_named(model), tensor_parallel=ranks, weights=weights, backend=backend
    )
    return engine.cost(FLASH_ATTN)


@settings(max_examples=200)
@given(engine=ENGINE, name=NAMES, decodes=DECODES, context=CONTEXT, chunks=CHUNKS, more=st.integers(1, 20_000))
def test_more_context_never_makes_a_step_shorter(
    engine: EngineModel, name: str, decodes: int, context: int, chunks: list[tuple[int, int]], more: int
) -> None:
    """A step grows with the context that its decodes read, with prefixes, and with another chunk."""
    cost = engine.cost(name)
    alone_s, mixed_s = cost.step_s(decodes, context), cost.step_s(decodes, context, chunks)
    done, chunk = chunks[-1]

    assert alone_s <= cost.step_s(decodes, context + more)
    assert mixed_s <= cost.step_s(decodes, context + more, chunks)
    assert mixed_s < cost.step_s(decodes, context, [*chunks[:-1], (done + more, chunk)])
    assert alone_s < mixed_s


@settings(max_examples=200)
@given(
    engine=ENGINE, name=NAMES, decodes=DECODES, context=CONTEXT, chunks=st.just([]) | CHUNKS, left=st.floats(0.1, 0.9)
)
def test_a_worse_gpu_never_makes_a_step_shorter(
    engine: EngineModel, name: str, decodes: int, context: int, chunks: list[tuple[int, int]], left: float
) -> None:
    """Less bandwidth makes every step longer, a lower clock none shorter."""
    healthy_s = engine.cost(name).step_s(decodes, context, chunks)

    assert healthy_s < engine.cost(name, GpuCondition(bandwidth=round(left, 1))).step_s(decodes, context, chunks)
    assert healthy_s <= engine.cost(name, GpuCondition(clock=round(left, 1))).step_s(decodes, context, chunks)


@settings(max_examples=200)
@given(engine=ENGINE, name=NAMES, decodes=st.integers(0, 256), context=CONTEXT, chunks=st.just([]) | CHUNKS)
def test_the_parts_of_a_step_are_the_step(
    engine: EngineModel, name: str, decodes: int, context: int, chunks: list[tuple[int, int]]
) -> None:
    """What `parts` names adds up to `step_s`, and the overhead of no context is what its GPU does not work."""
    cost = engine.cost(name)
    parts = cost.parts(decodes, context, chunks)
    idle = cost.parts(decodes, 0, chunks)

    assert parts.step_s == pytest.approx(cost.step_s(decodes, context, chunks), rel=1e-9)
    assert idle.step_s - idle.gpu_s == pytest.approx(cost.overhead_s(decodes, chunks), rel=1e-9, abs=1e-12)


@given(engine=ENGINE, decodes=DECODES, context=st.integers(0, 100_000))
def test_a_step_is_nearly_a_line_in_its_context(engine: EngineModel, decodes: int, context: int) -> None:
    """Half-way over 32 further tokens per sequence the cost is that of the line between, within half a percent."""
    cost = engine.cost(FLASH_ATTN)
    width = 32 * decodes
    low_s, mid_s, high_s = (cost.step_s(decodes, context + at) for at in (0, width // 2, width))

    assert mid_s == pytest.approx((low_s + high_s) / 2.0, rel=5e-3)


def test_lost_bandwidth_costs_a_decode_its_memory_time() -> None:
    """At 40 % of the bandwidth a decode of 14 billion weights takes 2.2 to 2.5 times as long."""
    healthy, slow = (ENGINE_MODEL.cost(FLASH_ATTN, condition) for condition in (HEALTHY, GpuCondition(bandwidth=0.4)))

    assert 2.2 < slow.parts(8, 40_000).gpu_s / healthy.parts(8, 40_000).gpu_s < 2.5


def test_a_throttled_clock_costs_prefill_and_hardly_decode() -> None:
    """At half the clock a long prefill takes nearly twice as long, a small decode at most a tenth longer."""
    healthy, slow = (ENGINE_MODEL.cost(FLASH_ATTN, condition) for condition in (HEALTHY, GpuCondition(clock=0.5)))

    assert slow.step_s(0, 0, [(0, 8192)]) > 1.7 * healthy.step_s(0, 0, [(0, 8192)])
    assert slow.step_s(8, 10_000) < 1.1 * healthy.step_s(8, 10_000)


@pytest.mark.parametrize("share", [0.0, -0.4, 1.01, float("nan"), float("inf")])
def test_a_condition_outside_its_range_is_refused(share: float) -> None:
    """Nothing below or at 0, above 1, or not a number is a share of bandwidth or clock."""
    with pytest.raises(Rejected, match="bandwidth factor"):
        GpuCondition(bandwidth=share)
    with pytest.raises(Rejected, match="clock factor"):
        GpuCondition(clock=share)


def test_each_assumed_variant_wins_in_its_own_regime() -> None:
    """`graphs` decodes a chat batch faster, `splitkv` a long-context batch."""
    graphs, splitkv = ENGINE_MODEL.cost(GRAPHS), ENGINE_MODEL.cost("splitkv")

    assert graphs.step_s(24, 24 * 1300) < splitkv.step_s(24, 24 * 1300)
    assert splitkv.step_s(9, 9 * 14_000) < graphs.step_s(9, 9 * 14_000)


def test_assumed_variants_say_so_and_the_measured_one_does_not() -> None:
    """What no table holds is in `Variant.assumed` and among what the cost assumes; an unknown name is refused."""
    assert FLASH_ATTN.assumed == ""
    for variant in (GRAPHS, SPLITKV):
        assert any(variant.assumed in said for said in ENGINE_MODEL.cost(variant).assumed)
    with pytest.raises(Rejected, match="graphs, splitkv, flash_attn"):
        variant_named("flash")


def test_batches_are_padded_to_the_next_graph() -> None:
    """17 to 24 sequences cost the same but for their attention and host; vLLM captures up to 512 or twice the cap."""
    cost = ENGINE_MODEL.cost(FLASH_ATTN)

    assert cost.parts(17, 17_000).gemm_s == cost.parts(24, 24_000).gemm_s < cost.parts(128, 24_000).gemm_s
    assert (1, 2, 4, 8, 16, 24) == captured_sizes(12)
    assert (51, 512) == (len(captured_sizes(256)), captured_sizes(1024)[-1])


def test_beyond_the_largest_graph_the_host_launches_each_kernel() -> None:
    """A batch one beyond the largest graph takes the launches of every layer; a slow host shows it."""
    slow_host = Fitted(launch_per_layer_s=1e-3)
    cost = replace(ENGINE_MODEL, max_active_requests=16, fitted=slow_host).cost(FLASH_ATTN)
    layers = ENGINE_MODEL.model.layers

    assert cost.parts(32, 32_000).launch_s == 0.0
    assert cost.parts(33, 32_000).launch_s == pytest.approx(layers * 1e-3)
    assert cost.step_s(33, 32_000) > cost.step_s(32, 32_000) + 0.02


def test_a_small_chunk_hides_behind_memory_and_a_large_one_does_not() -> None:
    """Prefilling beside decodes costs little until the step is bound by arithmetic."""
    cost = ENGINE_MODEL.cost(FLASH_ATTN)
    decode_s = cost.step_s(16, 20_000)

    assert cost.step_s(16, 20_000, [(0, 128)]) < 1.2 * decode_s
    assert cost.step_s(16, 20_000, [(0, 8000)]) > 10 * decode_s


def test_host_time_hides_behind_the_gpu_as_far_as_it_overlaps() -> None:
    """Without overlap host time adds to the step; with it only what is longer than the GPU's does."""
    added = replace(ENGINE_MODEL, fitted=Fitted(host_base_s=5e-3, host_overlap=0.0)).cost(FLASH_ATTN)
    hidden = replace(ENGINE_MODEL, fitted=Fitted(host_base_s=5e-3, host_overlap=1.0)).cost(FLASH_ATTN)
    longer = replace(ENGINE_MODEL, fitted=Fitted(host_base_s=50e-3, host_overlap=1.0)).cost(FLASH_ATTN)
    gpu_s = added.parts(8, 8000).gpu_s

    assert added.step_s(8, 8000) - gpu_s > 5e-3
    assert hidden.step_s(8, 8000) - gpu_s == pytest.approx(Fitted().gap_s)
    assert longer.step_s(8, 8000) > 50e-3


def test_speculation_verifies_for_little_more_than_one_token() -> None:
    """Four rows per sequence cost a small batch a quarter more at most, draft included; and they are assumed."""
    plain = ENGINE_MODEL.cost(FLASH_ATTN)
    drafting = replace(ENGINE_MODEL, draft_tokens=3).cost(FLASH_ATTN)

    assert plain.step_s(8, 10_000) < drafting.step_s(8, 10_000) < 1.25 * plain.step_s(8, 10_000)
    assert drafting.parts(8, 10_000).draft_s > 0.0
    assert any("draft" in said for said in drafting.assumed)


def test_experts_are_read_as_far_as_the_batch_reaches_them() -> None:
    """One token of Qwen3-30B-A3B reads 8 of 128 experts, 256 tokens all of them."""
    engine = EngineModel(gpu=gpu_named("h100_sxm"), model=model_named("qwen3-30b-a3b"))
    cost, expert_bytes = engine.cost(FLASH_ATTN), 2.0 * engine.model.expert_weights
    shared = engine.weight_bytes - expert_bytes - 2.0 * engine.model.vocabulary * engine.model.hidden

    assert cost.read_bytes(1, 0) == pytest.approx(shared + expert_bytes * 8 / 128, rel=1e-6)
    assert cost.read_bytes(256, 0) == pytest.approx(shared + expert_bytes, rel=1e-5)
    assert cost.step_s(64, 64_000) > 1.7 * cost.step_s(1, 1000)


def test_bytes_and_flops_of_a_step_are_those_of_its_model() -> None:
    """A dense model reads its weights but for the embeddings and the cache; it multiplies each token with them."""
    cost, model = ENGINE_MODEL.cost(FLASH_ATTN), ENGINE_MODEL.model
    embeddings = model.vocabulary * model.hidden
    kv = model.kv_bytes_in("bf16")

    assert cost.read_bytes(8, 10_000) == pytest.approx(2.0 * (model.parameters - embeddings) + 10_000 * kv)
    assert cost.read_bytes(8, 10_000, [(500, 100)]) - cost.read_bytes(8, 10_000) == pytest.approx(600 * kv)
    assert cost.flops(8, 0) == pytest.approx(8 * 2.0 * model.active_parameters)
    assert cost.flops(0, 0, [(0, 100)]) == pytest.approx(
        2.0 * 100 * (model.active_parameters - embeddings) + 2.0 * embeddings + 5050 * model.attention_flops_per_pair()
    )


def test_the_kv_cache_is_what_the_weights_leave() -> None:
    """Weights, reserve and KV blocks fill the engine's share of HBM up to less than one block."""
    block_bytes = BLOCK_TOKENS * ENGINE_MODEL.kv_bytes_per_token
    left = ENGINE_MODEL.gpu.hbm_bytes * ENGINE_MODEL.memory_share
    left -= ENGINE_MODEL.weight_bytes + ENGINE_MODEL.reserved_bytes + ENGINE_MODEL.kv_blocks * block_bytes

    assert 0 <= left < block_bytes
    assert ENGINE_MODEL.kv_blocks > replace(ENGINE_MODEL, reserved_bytes=10e9).kv_blocks


def test_a_model_that_does_not_fit_is_refused() -> None:
    """70 billion BF16 weights leave no room on one H100, and the message says so."""
    with pytest.raises(Rejected, match=r"llama-3.1-70b in bf16 does not fit 1 x H100"):
        assert EngineModel(gpu=gpu_named("h100_sxm"), model=model_named("llama-3.1-70b")).kv_blocks


@pytest.mark.parametrize(
    ("cost", "decodes", "context", "chunks", "low_ms", "high_ms"),
    [
        (cost_of("h100_sxm", "llama-3.1-8b", 1, "bf16"), 8, 8 * 1280, (), 6.4, 7.6),
        (cost_of("h100_sxm", "qwen3-32b", 1, "fp8"), 8, 8 * 1280, (), 14.5, 17.5),
        (cost_of("h100_sxm", "qwen3-32b", 8, "fp8"), 0, 0, ((0, 4096),), 60.0, 110.0),
        (cost_of("h100_sxm", "qwen3-32b", 2, "bf16", "vllm"), 8, 8 * 1100, (), 14.0, 17.5),
        (cost_of("h200_sxm", "deepseek-r1", 8, "fp8_block"), 4, 4 * 1500, (), 7.0, 12.0),
    ],
)
def test_steps_take_what_served_models_took(
    cost: KernelCost, decodes: int, context: int, chunks: tuple[tuple[int, int], ...], low_ms: float, high_ms: float
) -> None:
    """Steps of models that others have served lie about where their token times lay, before anything is fitted."""
    assert low_ms < cost.parts(decodes, context, chunks).gpu_s * 1e3 < high_ms


def test_tensor_parallelism_trades_bandwidth_for_all_reduce() -> None:
    """Two, four and eight GPUs make a decode shorter each, by ever less, because the all-reduces grow."""
    steps = [cost_of("h100_sxm", "llama-3.1-70b", ranks, "fp8").parts(8, 8000) for ranks in (1, 2, 4, 8)]
    gains = [before.gpu_s / after.gpu_s for before, after in pairwise(steps)]

    assert 2.0 > gains[0] > gains[1] > gains[2] > 1.0
    assert steps[0].all_reduce_s == 0.0
    assert 0.0 < steps[1].all_reduce_s <= steps[2].all_reduce_s <= steps[3].all_reduce_s


def test_dense_models_on_measured_gpus_assume_next_to_nothing() -> None:
    """Of a dense BF16 engine on an H100 only prefill behind a prefix is assumed; an L40S assumes every kernel."""
    whole = EngineModel(gpu=gpu_named("l40s"), model=model_named("llama-3.1-8b"), tensor_parallel=2)

    assert [said.partition(":")[0] for said in ENGINE_MODEL.cost(FLASH_ATTN).assumed] == ["prefill behind a prefix"]
    assert {"bf16 GEMM", "decode attention", "prefill attention", "all-reduce over 2 GPUs"} <= {
        said.partition(":")[0] for said in whole.cost(FLASH_ATTN).assumed
    }


def test_an_unknown_backend_or_gpu_is_refused_with_what_there_is() -> None:
    """The message lists the names that are known."""
    with pytest.raises(Rejected, match="vllm, sglang, trtllm"):
        fitted_for("tgi")
    with pytest.raises(Rejected, match="h100_sxm"):
        gpu_named("h1000")
    assert gpu_named("RTX PRO 6000") is gpu_named("RTXPRO6000") is gpu_named("rtx_pro_6000")


def test_limits_beyond_those_it_started_with_are_priced_too() -> None:
    """More tokens or sequences than an engine was made for cost more, not an error."""
    cost = replace(ENGINE_MODEL, max_active_requests=8, max_batched_tokens=512).cost(FLASH_ATTN)

    assert cost.step_s(8, 8000) < cost.step_s(2000, 8000)
    assert cost.step_s(0, 0, [(0, 512)]) < cost.step_s(0, 0, [(0, 9000)])


def test_a_request_path_is_its_backends_constants() -> None:
    """A base and a little for each token of the prompt, by what was fitted, or by the constants in its place."""
    slow = replace(ENGINE_MODEL, fitted=replace(ENGINE_MODEL.constants, ttft_base_s=0.25, ttft_per_token_s=1e-3))

    assert slow.path_s(100) == 0.35
    assert 0.0 < ENGINE_MODEL.path_s(0) < ENGINE_MODEL.path_s(10_000) < 0.1
    assert replace(ENGINE_MODEL, backend="trtllm").path_s(0) != ENGINE_MODEL.path_s(0)
