"""Language models from the `config.json` that HuggingFace checkpoints carry: the bundled ones, and a user's own.

It reads what serving costs depend on and ignores the rest. It refuses to guess: a key that a model of its kind
needs and does not have is an error that names it, and so is a kind of layer that the physics has no cost for.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.physics.language import Experts, LanguageModel, Latent

MAX_CONFIG_BYTES = 1024 * 1024
"""Largest `config.json` taken."""
BUNDLED = Path(__file__).resolve().parent.parent / "data" / "models.json"
_UNKNOWN_KEYS = {
    "index_topk": "attention to a few chosen tokens",
    "linear_num_key_heads": "linear attention",
    "mamba_d_state": "state-space layers",
    "ssm_cfg": "state-space layers",
}
"""Keys of configs whose layers cost something else than the twin knows."""
_UNKNOWN_LAYERS = ("linear_attention", "mamba", "recurrent", "conv")
_SUFFIXES = ("-instruct-2507", "-thinking-2507", "-instruct", "-chat", "-hf", "-0528", "-fp8", "-int4", "-awq")


class Config:
    """A config's values, typed on the way out. Raises `InvalidDocument` with the key's line, where it has one."""

    def __init__(self, values: Mapping[str, object], text: str, file: str) -> None:
        nested = values.get("text_config")
        self.values: Mapping[str, object] = nested if isinstance(nested, Mapping) else values
        self._text = text
        self._file = file

    def count(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """The first of these keys that is there, as a whole number of at least `least`."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise self.problem(f"{key} is a whole number of at least {least}, not {value!r}", key)
            return value
        if default is None:
            raise self.problem(f"a model config needs {' or '.join(keys)}")
        return default

    def problem(self, text: str, key: str = "") -> InvalidDocument:
        """An error about a key, or about the document."""
        before, found, _ = self._text.partition(f'"{key}"') if key else ("", "", "")
        line = before.count("\n") + 1 if found else 1
        column = len(before) - (before.rfind("\n") + 1) + 1 if found else 1
        return InvalidDocument(text, file=self._file, line=line, column=column)


def language_model(name: str, config: Config) -> LanguageModel:
    """The model that a config describes. Raises `InvalidDocument`."""
    for key, what in _UNKNOWN_KEYS.items():
        if config.values.get(key) is not None:
            raise config.problem(f"{what} has no cost in the twin", key)
    hidden, heads = config.count("hidden_size"), config.count("num_attention_heads")
    layers = config.count("num_hidden_layers")
    experts = _experts(config)
    window_layers = _window_layers(config, layers)
    model = LanguageModel(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=config.count("num_key_value_heads", default=heads),
        head_dim=config.count("head_dim", default=max(1, hidden // heads)),
        intermediate=config.count("intermediate_size"),
        vocabulary=config.count("vocab_size"),
        max_context_tokens=_max_context(config),
        tied_embeddings=config.values.get("tie_word_embeddings") is True,
        experts=experts,
        latent=_latent(config),
        window=config.count("sliding_window") if window_layers else 0,
        window_layers=window_layers,
    )
    if model.heads % model.kv_heads:
        raise config.problem(f"{heads} heads do not share {model.kv_heads} KV heads evenly", "num_key_value_heads")
    return model


def _experts(config: Config) -> Experts | None:
    if not any(config.values.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    for key in ("decoder_sparse_step", "moe_layer_freq"):
        if config.values.get(key) not in (None, 1):
            raise config.problem(
                f"experts in every layer or in all but the first have a cost in the twin, not {key}", key
            )
    plain = config.values.get("mlp_only_layers")
    width = config.count("moe_intermediate_size", "intermediate_size")
    shared = config.count("shared_expert_intermediate_size", default=0, least=0)
    return Experts(
        experts=config.count("num_experts", "num_local_experts", "n_routed_experts"),
        per_token=config.count("num_experts_per_tok"),
        intermediate=width,
        shared_intermediate=shared or width * config.count("n_shared_experts", default=0, least=0),
        dense_layers=config.count(
            "first_k_dense_replace", default=len(plain) if isinstance(plain, list) else 0, least=0
        ),
    )


def _latent(config: Config) -> Latent | None:
    if config.values.get("kv_lora_rank") is None:
        return None
    return Latent(
        query_rank=config.count("q_lora_rank", default=0, least=0),
        kv_rank=config.count("kv_lora_rank"),
        rope_dim=config.count("qk_rope_head_dim"),
        nope_dim=config.count("qk_nope_head_dim"),
        value_dim=config.count("v_head_dim"),
    )


def _window_layers(config: Config, layers: int) -> int:
    kinds = config.values.get("layer_types")
    if isinstance(kinds, list):
        for kind in kinds:
            if any(unknown in str(kind) for unknown in _UNKNOWN_LAYERS):
                raise config.problem(f"layers of the kind {kind!r} have no cost in the twin", "layer_types")
        return sum(kind == "sliding_attention" for kind in kinds)
    if config.values.get("sliding_window") is None or config.values.get("use_sliding_window") is False:
        return 0
    return layers


def _max_context(config: Config) -> int:
    """Tokens of the longest sequence, stretched by the scaling of positions where the config has YaRN."""
    plain = config.count("max_position_embeddings")
    scaling = config.values.get("rope_scaling")
    if isinstance(scaling, Mapping) and "yarn" in (scaling.get("rope_type"), scaling.get("type")):
        factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
        if isinstance(factor, int | float) and isinstance(original, int):
            return max(plain, int(factor * original))
    return plain


@lru_cache(maxsize=1)
def bundled_models() -> Mapping[str, LanguageModel]:
    """The bundled models by name."""
    text = BUNDLED.read_text(encoding="utf-8")
    return {name: language_model(name, Config(values, "", BUNDLED.name)) for name, values in json.loads(text).items()}


def model_names() -> tuple[str, ...]:
    """The names of the bundled models."""
    return tuple(bundled_models())


def model_named(name: str) -> LanguageModel:
    """A bundled model by name, or by its repository's (`meta-llama/Llama-3.1-8B-Instruct`), in any case.

    Raises `Rejected` for another.
    """
    plain = name.lower().rpartition("/")[2]
    bundled = bundled_models()
    while plain not in bundled:
        suffix = next((end for end in _SUFFIXES if plain.endswith(end)), "")
        if not suffix:
            raise Rejected(f"model takes one of {', '.join(bundled)}, or a config.json, not {name!r}")
        plain = plain.removesuffix(suffix)
    return bundled[plain]


def read_model(file: Path) -> LanguageModel:
    """The model of a user's `config.json`. Raises `Rejected` if it cannot be read, `InvalidDocument` if it is wrong."""
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise Rejected(f"{file} is larger than {MAX_CONFIG_BYTES} bytes, the most a model config may have")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot read {file}: {error}") from error
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidDocument(f"no JSON: {error.msg}", file=str(file), line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise InvalidDocument("nested too deeply", file=str(file), line=1) from error
    if not isinstance(values, Mapping):
        raise InvalidDocument("a model config is an object", file=str(file), line=1)
    name = values.get("_name_or_path")
    return language_model(name if isinstance(name, str) and name else file.parent.name, Config(values, text, str(file)))
