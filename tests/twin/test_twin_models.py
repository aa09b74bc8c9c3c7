"""A model's config gives its weights, its cache and the work of each GPU; a wrong one gives a line."""

import json
from pathlib import Path

import pytest

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.physics import LANGUAGE_MODELS, model_named, rank_shapes, read_model
from flyball_twin.physics.language import bytes_per_weight
from flyball_twin.physics.model_configs import BUNDLED

CONFIGS = json.loads(BUNDLED.read_text(encoding="utf-8"))


def written(folder: Path, **changes: object) -> Path:
    """A `config.json` of Llama-3.1-8B with some keys changed, one key a line; None leaves one out."""
    config = {**CONFIGS["llama-3.1-8b"], **changes}
    file = folder / "config.json"
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}, indent=1))
    return file


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("llama-3.1-8b", 8.03, 7.5),
        ("llama-3.1-70b", 70.6, 69.5),
        ("llama-2-70b", 69.0, 68.7),
        ("qwen3-14b", 14.8, 14.0),
        ("qwen3-32b", 32.8, 32.0),
        ("qwen3-30b-a3b", 30.5, 3.0),
        ("qwen3-235b-a22b", 235.1, 21.5),
        ("deepseek-r1", 671.0, 36.6),
        ("gpt-oss-120b", 116.8, 5.1),
        ("minimax-m2.5", 229.0, 10.0),
        ("kimi-k2.5", 1026.0, 31.5),
    ],
)
def test_bundled_models_have_the_published_numbers_of_parameters(name: str, billions: float, active: float) -> None:
    """All weights and those that a token meets are within 1 % and 5 % of what is published."""
    model = LANGUAGE_MODELS[name]

    assert model.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert model.active_parameters / 1e9 == pytest.approx(active, rel=0.05)


def test_kv_bytes_follow_heads_latents_and_windows() -> None:
    """Heads are cut over GPUs, latents are not, and layers with a window do not count."""
    llama, deepseek, oss = (LANGUAGE_MODELS[name] for name in ("llama-3.1-8b", "deepseek-r1", "gpt-oss-120b"))

    assert [131_072, 65_536, 16_384, 16_384] == [llama.kv_bytes_in("bf16", ranks) for ranks in (1, 2, 8, 16)]
    assert llama.kv_bytes_in("fp8") == 65_536
    assert deepseek.kv_bytes_in("bf16") == deepseek.kv_bytes_in("bf16", 8) == 61 * 576 * 2
    assert oss.kv_bytes_in("bf16") == 18 * 2 * 8 * 64 * 2
    with pytest.raises(Rejected, match="bf16, fp8"):
        llama.kv_bytes_in("fp4")


def test_narrow_precisions_hold_experts_only() -> None:
    """MXFP4 makes the experts of gpt-oss small and leaves the rest BF16: 65 GB in all; a dense model shrinks whole."""
    oss, llama = LANGUAGE_MODELS["gpt-oss-120b"], LANGUAGE_MODELS["llama-3.1-8b"]

    assert oss.weight_bytes_in("mxfp4") == pytest.approx(65.3e9, rel=0.01)
    assert llama.weight_bytes_in("int4") < 0.45 * llama.weight_bytes_in("bf16")
    with pytest.raises(Rejected, match="bf16, fp8"):
        bytes_per_weight("fp4")


@pytest.mark.parametrize("name", sorted(LANGUAGE_MODELS))
def test_ranks_share_the_weights(name: str) -> None:
    """Over 1, 2 and 4 GPUs the shapes of each hold its part of the model, what is repeated below a tenth."""
    model = LANGUAGE_MODELS[name]
    for ranks in (1, 2, 4):
        held = rank_shapes(model, ranks=ranks, weights="fp8").weight_bytes

        assert held == pytest.approx(model.weight_bytes_in("fp8") / ranks, rel=0.005 if ranks == 1 else 0.1)


def test_the_shapes_of_a_rank_are_those_of_megatron() -> None:
    """Over two GPUs Llama-3.1-70B has half the heads and half the width, and fused projections."""
    shapes = rank_shapes(LANGUAGE_MODELS["llama-3.1-70b"], ranks=2)

    assert [(5120, 8192), (8192, 4096), (28_672, 8192), (8192, 14_336)] == [(g.n, g.k) for g in shapes.gemms]
    assert (shapes.attention.heads, shapes.attention.kv_heads) == (32, 4)
    assert (shapes.head.n, shapes.head.k) == (64_128, 8192)
    assert shapes.reduced_bytes == 8192 * 2


def test_experts_are_cut_or_spread() -> None:
    """Eight GPUs hold an eighth of every expert, or every eighth expert whole: the same weights."""
    model = LANGUAGE_MODELS["qwen3-235b-a22b"]
    cut, spread = (rank_shapes(model, ranks=8, expert_parallel=groups).experts for groups in (1, 8))

    assert cut is not None
    assert spread is not None
    assert (cut.experts, cut.intermediate) == (128, 192)
    assert (spread.experts, spread.intermediate) == (16, 1536)
    assert cut.experts * cut.weights == spread.experts * spread.weights


@pytest.mark.parametrize(
    ("name", "ranks", "groups", "words"),
    [
        ("llama-3.1-8b", 3, 1, "3 GPUs do not share"),
        ("llama-3.1-8b", 0, 1, "0 GPUs"),
        ("llama-3.1-8b", 4, 2, "no experts"),
        ("qwen3-235b-a22b", 4, 3, "divide the 4 GPUs"),
    ],
)
def test_a_layout_that_does_not_divide_is_refused(name: str, ranks: int, groups: int, words: str) -> None:
    """Heads, widths and experts go evenly over GPUs, or the message says which do not."""
    with pytest.raises(Rejected, match=words):
        rank_shapes(LANGUAGE_MODELS[name], ranks=ranks, expert_parallel=groups)


@pytest.mark.parametrize(
    "name", ["meta-llama/Llama-3.1-8B-Instruct", "nvidia/Llama-3.1-8B-Instruct-FP8", "LLAMA-3.1-8b"]
)
def test_repositories_names_are_understood(name: str) -> None:
    """Owner, case and the usual endings do not matter."""
    assert model_named(name) is LANGUAGE_MODELS["llama-3.1-8b"]


def test_an_unknown_model_is_refused_with_what_there_is() -> None:
    """The message names the bundled ones, and that a config would do."""
    with pytest.raises(Rejected, match=r"llama-3.1-8b.*config\.json, not 'gpt-5'"):
        model_named("gpt-5")


def test_a_users_config_is_read(tmp_path: Path) -> None:
    """A config makes the model that the bundled one is; older ones say no head size and no KV heads."""
    model = read_model(written(tmp_path))
    older = read_model(written(tmp_path, head_dim=None, num_key_value_heads=None))

    assert (model.parameters, model.layers) == (LANGUAGE_MODELS["llama-3.1-8b"].parameters, 32)
    assert (older.head_dim, older.kv_heads) == (128, 32)
    assert read_model(written(tmp_path, sliding_window=4096)).window_layers == 32
    assert read_model(written(tmp_path, sliding_window=4096, use_sliding_window=False)).window_layers == 0


@pytest.mark.parametrize(
    ("changes", "line", "words"),
    [
        ({"hidden_size": "wide"}, 3, "hidden_size is a whole number of at least 1, not 'wide'"),
        ({"num_hidden_layers": 0}, 5, "num_hidden_layers"),
        ({"vocab_size": True}, 9, "vocab_size"),
        ({"vocab_size": None}, 1, "needs vocab_size"),
        ({"num_key_value_heads": 5}, 7, "32 heads do not share 5 KV heads evenly"),
        ({"layer_types": ["full_attention", "linear_attention"]}, 12, "'linear_attention' have no cost in the twin"),
        ({"num_experts": 8}, 1, "needs num_experts_per_tok"),
        ({"num_experts": 8, "decoder_sparse_step": 2}, 13, "not decoder_sparse_step"),
        ({"index_topk": 2048}, 12, "attention to a few chosen tokens has no cost"),
        ({"kv_lora_rank": 512}, 1, "needs qk_rope_head_dim"),
    ],
)
def test_a_wrong_config_is_refused_where_it_is_wrong(
    tmp_path: Path, changes: dict[str, object], line: int, words: str
) -> None:
    """The message names the key, what would be right, and its line."""
    with pytest.raises(InvalidDocument, match=words) as refused:
        read_model(written(tmp_path, **changes))
    assert refused.value.line == line


@pytest.mark.parametrize("text", ["", "{", "[]", '"a"', "[" * 100_000, "\x00"])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    """No JSON, JSON that is no object, and JSON without bottom are refused with a place."""
    file = tmp_path / "config.json"
    file.write_text(text)

    with pytest.raises(InvalidDocument):
        read_model(file)
    with pytest.raises(Rejected, match="cannot read"):
        read_model(tmp_path / "none.json")
