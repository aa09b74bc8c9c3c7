"""The roofline has the shape it claims: monotone, additive where it says so, and with a crossover."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from flyball_core.errors import Rejected
from flyball_twin.physics import BLOCK_TOKENS, ENGINE_MODEL, GRAPHS, SPLITKV, VARIANTS, Roofline

VARIANT_NAMES = st.sampled_from(sorted(VARIANTS))
SEQUENCES = st.integers(1, 256)
CONTEXT = st.integers(0, 260_000)
TOKENS = st.integers(1, 8192)


def healthy(variant: str) -> Roofline:
    """The usual engine on a healthy GPU."""
    return Roofline(ENGINE_MODEL, VARIANTS[variant], 1.0)


@given(variant=VARIANT_NAMES, sequences=SEQUENCES, context=CONTEXT, tokens=TOKENS, more=st.integers(1, 5000))
def test_more_of_anything_never_makes_a_step_shorter(
    variant: str, sequences: int, context: int, tokens: int, more: int
) -> None:
    """A step grows with its sequences, the context it reads, its tokens and its attention pairs."""
    roofline = healthy(variant)
    base_s = roofline.step_s(sequences, context, tokens, 0.0)

    assert base_s < roofline.step_s(sequences + more, context, tokens, 0.0)
    assert base_s < roofline.step_s(sequences, context + more, tokens, 0.0)
    assert base_s < roofline.step_s(sequences, context, tokens + more, 0.0)
    assert base_s < roofline.step_s(sequences, context, tokens, more * 1e6)


@given(variant=VARIANT_NAMES, sequences=SEQUENCES, context=CONTEXT, low=st.floats(0.1, 0.9))
def test_less_bandwidth_never_makes_a_step_shorter(variant: str, sequences: int, context: int, low: float) -> None:
    """A GPU that lost bandwidth is slower at every decode."""
    slow = Roofline(ENGINE_MODEL, VARIANTS[variant], low)

    assert healthy(variant).step_s(sequences, context, sequences, 0.0) < slow.step_s(sequences, context, sequences, 0.0)


@pytest.mark.parametrize("variant", [GRAPHS, SPLITKV])
def test_lost_bandwidth_costs_a_decode_exactly_its_memory_time(variant: object) -> None:
    """A memory-bound step at 40 % of the bandwidth takes 1.5 times its healthy memory time more."""
    assert variant in (GRAPHS, SPLITKV)
    kernel = GRAPHS if variant is GRAPHS else SPLITKV
    model, gpu = ENGINE_MODEL.model, ENGINE_MODEL.gpu
    context = 40_000
    moved = model.weight_bytes + model.kv_bytes_per_token * kernel.kv_factor * context
    memory_s = moved / (gpu.hbm_bytes_per_s * gpu.hbm_efficiency)
    healthy_s = Roofline(ENGINE_MODEL, kernel, 1.0).step_s(8, context, 8, 0.0)
    degraded_s = Roofline(ENGINE_MODEL, kernel, 0.4).step_s(8, context, 8, 0.0)

    assert memory_s * 1.5 == pytest.approx(degraded_s - healthy_s, rel=1e-9)


def test_each_variant_wins_in_its_own_regime() -> None:
    """`graphs` decodes a chat batch faster, `splitkv` a long-context batch."""
    graphs, splitkv = healthy("graphs"), healthy("splitkv")

    assert graphs.step_s(24, 24 * 1300, 24, 0.0) < splitkv.step_s(24, 24 * 1300, 24, 0.0)
    assert splitkv.step_s(9, 9 * 14_000, 9, 0.0) < graphs.step_s(9, 9 * 14_000, 9, 0.0)


def test_a_small_chunk_hides_behind_memory_and_a_large_one_does_not() -> None:
    """Prefilling beside decodes costs little until the step is bound by arithmetic."""
    roofline = healthy("graphs")
    decode_s = roofline.step_s(16, 20_000, 16, 0.0)

    assert roofline.step_s(17, 20_000, 16 + 128, 0.0) < 1.1 * decode_s
    assert roofline.step_s(17, 20_000, 16 + 8000, 0.0) > 10 * decode_s


@pytest.mark.parametrize("factor", [0.0, -0.4, 1.01, float("nan"), float("inf")])
def test_a_bandwidth_factor_outside_its_range_is_refused(factor: float) -> None:
    """Nothing below or at 0, above 1, or not a number is a share of bandwidth."""
    with pytest.raises(Rejected, match="bandwidth factor"):
        Roofline(ENGINE_MODEL, GRAPHS, factor)


def test_the_kv_cache_is_what_the_weights_leave() -> None:
    """Weights, reserve and KV blocks fill the engine's share of HBM up to less than one block."""
    model = ENGINE_MODEL.model
    block_bytes = BLOCK_TOKENS * model.kv_bytes_per_token
    left = (
        ENGINE_MODEL.gpu.hbm_bytes * ENGINE_MODEL.memory_share
        - model.weight_bytes
        - ENGINE_MODEL.reserved_bytes
        - ENGINE_MODEL.kv_blocks * block_bytes
    )

    assert 0 <= left < block_bytes
    assert ENGINE_MODEL.kv_blocks > replace(ENGINE_MODEL, reserved_bytes=10e9).kv_blocks
