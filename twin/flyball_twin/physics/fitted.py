"""What was fitted to measured engines, per serving backend: a handful of factors and constants.

Kernel tables say what a kernel costs alone. What lies between kernels and clients (hosts, launches,
HTTP) and how far an engine's own kernels differ from the tables' is here, in `data/fitted.json`, written by
whoever fits. Without that file the defaults below hold: priors, not fits. Nothing here depends on a model,
a GPU or a load.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

from flyball_core.errors import Rejected

DATA = Path(__file__).resolve().parent.parent / "data"
FITTED_FILE = DATA / "fitted.json"
BACKENDS = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Factors on the parts of a step, and the constants around them. 1 is what the tables say."""

    gemm: float = 1.0
    attention_decode: float = 1.0
    attention_prefill: float = 1.0
    all_reduce: float = 1.0
    elementwise: float = 1.0
    experts: float = 1.0
    """On the grouped GEMMs of a mixture of experts, which no table holds."""
    logits: float = 1.0
    gap_s: float = 0.3e-3
    """Paid by every step and never hidden: the sampled tokens' way to the host and back."""
    host_base_s: float = 1.5e-3
    host_per_sequence_s: float = 15e-6
    host_per_token_s: float = 0.0
    """Host time of a step: scheduling, preparing inputs, handling outputs."""
    host_overlap: float = 0.0
    """Share of the shorter of GPU and host time that hides behind the longer; 1: asynchronous scheduling."""
    launch_per_layer_s: float = 60e-6
    """Host time to launch one layer's kernels outside any graph."""
    launch_per_attention_s: float = 20e-6
    """Host time per layer in a step with prefill, whose attention no graph holds."""
    ttft_base_s: float = 10e-3
    """From the client to the scheduler and back: HTTP, tokenizing, detokenizing."""
    ttft_per_token_s: float = 1e-6
    """The same, per token of the prompt."""


_PRIORS: Mapping[str, Fitted] = {
    "vllm": Fitted(),
    "sglang": Fitted(host_overlap=1.0),
    "trtllm": Fitted(host_overlap=1.0),
}


@lru_cache(maxsize=1)
def _written() -> Mapping[str, Mapping[str, float]]:
    if not FITTED_FILE.exists():
        return {}
    document = json.loads(FITTED_FILE.read_text(encoding="utf-8"))
    backends: Mapping[str, Mapping[str, float]] = document["backends"]
    return backends


def prior_for(backend: str) -> Fitted:
    """The constants before any fit, which fits shrink towards. Raises `Rejected` for a backend that has none."""
    if backend not in _PRIORS:
        raise Rejected(f"backend takes one of {', '.join(BACKENDS)}, not {backend!r}")
    return _PRIORS[backend]


def fitted_for(backend: str) -> Fitted:
    """The constants of one serving backend. Raises `Rejected` for a backend that has none."""
    prior = prior_for(backend)
    values = _written().get(backend)
    if values is None:
        return prior
    known = {field.name for field in fields(Fitted)}
    return Fitted(**{name: float(value) for name, value in values.items() if name in known})
