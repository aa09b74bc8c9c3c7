"""A backend's few constants from measured rows: a robust fit, shrunk towards its priors.

A closed loop is played once per row with the prior constants, and what its steps consisted of is kept. Under other
constants the same steps take other times, so a trial costs a matrix product, not a simulation. The loss is
Cauchy's of the logarithms of predicted over measured, which a row that is wrong altogether hardly moves; rows count
so that a (model, backend) group weighs as the root of its size. A pattern search over the logarithms of the
constants finds the least; it has no randomness. Nothing is fitted per row, and no constant may depend on a model,
a GPU or a load.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp

import numpy as np
from numpy.typing import NDArray

from flyball_twin.physics import FLASH_ATTN, EngineModel, Fitted
from flyball_twin.physics.fitted import prior_for
from flyball_twin.validation.closed_loop import Piece
from flyball_twin.validation.silicon_rows import SiliconRow

Array = NDArray[np.float64]

SPREADS: Mapping[str, float] = {
    "gemm": 0.1,
    "attention_decode": 0.1,
    "attention_prefill": 0.15,
    "all_reduce": 0.2,
    "elementwise": 0.3,
    "experts": 0.5,
    "host_base_s": 0.5,
    "host_per_sequence_s": 0.7,
    "ttft_base_s": 0.8,
    "ttft_per_token_s": 0.8,
}
"""The constants that are fitted, and how far from its prior (in natural logarithms) each may be expected. Kernels' own
times are measured well, hosts' hardly. What is not here stays at its prior: the rows do not tell it from these."""

SHRINKAGE = 16.0
"""Weight of the priors: a constant one spread off its prior costs as much as two dozen rows that are off by `TAIL`."""
TAIL = 0.08
"""Relative errors beyond this count less and less."""
TTFT_WEIGHT = 0.5
"""Of a row's time to first token against its time per token, which is the steadier measurement."""
TTFT_TAIL = 2.0 * TAIL
FINEST = 2e-3
"""The search ends when no step longer than that helps."""

_KERNELS = ("gemm", "attention_decode", "attention_prefill", "all_reduce", "elementwise", "logits", "experts")
_EXPERTS = _KERNELS.index("experts")
_LAUNCH, _SEQUENCES, _TOKENS, _BEFORE, _AFTER = range(len(_KERNELS), len(_KERNELS) + 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A row, and what the steps of its closed loop consisted of: seconds by part at factors of 1, and counts."""

    row: SiliconRow
    parts: Array
    """A line per piece."""
    scored_ttft: bool = True


def parts_of(engine: EngineModel, pieces: Sequence[Piece]) -> Array:
    """What these steps consist of on this engine."""
    prior = prior_for(engine.backend)
    plain = replace(
        prior,
        gemm=1.0,
        attention_decode=1.0,
        attention_prefill=1.0,
        all_reduce=1.0,
        elementwise=1.0,
        logits=1.0,
        experts=1.0,
        gap_s=0.0,
        host_base_s=0.0,
        host_per_sequence_s=1.0,
        host_per_token_s=0.0,
    )
    cost = replace(engine, fitted=plain).cost(FLASH_ATTN)
    twice = replace(engine, fitted=replace(plain, experts=2.0)).cost(FLASH_ATTN) if engine.model.experts else None
    lines = np.empty((len(pieces), _AFTER + 1))
    for line, piece in zip(lines, pieces, strict=True):
        at = (piece.decodes, piece.context, piece.chunks)
        parts = cost.parts(*at)
        experts_s = twice.parts(*at).gemm_s - parts.gemm_s if twice else 0.0
        line[:] = (
            parts.gemm_s - experts_s,
            parts.attention_decode_s,
            parts.attention_prefill_s,
            parts.all_reduce_s,
            parts.elementwise_s,
            parts.logits_s,
            experts_s,
            parts.launch_s,
            parts.host_s,
            piece.decodes + sum(chunk for _, chunk in piece.chunks),
            piece.before_first,
            piece.per_token,
        )
    return lines


class Trials:
    """Rows of one backend, ready to be predicted under any constants. Raises `ValueError` without any."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        if not trials:
            raise ValueError("there is nothing to fit on without rows")
        self._parts = np.concatenate([trial.parts for trial in trials])
        lengths = [len(trial.parts) for trial in trials]
        self._starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        self._prompts = np.array([trial.row.setting.prompt_tokens for trial in trials], dtype=np.float64)
        self._log_ttft = np.log([trial.row.ttft_s for trial in trials])
        self._log_tpot = np.log([trial.row.tpot_s for trial in trials])
        sizes = Counter(trial.row.setting.group for trial in trials)
        weights = np.array([sizes[trial.row.setting.group] ** -0.5 for trial in trials])
        self._tpot_weights = weights * len(trials) / weights.sum()
        self._ttft_weights = TTFT_WEIGHT * self._tpot_weights * [trial.scored_ttft for trial in trials]

    def predicted(self, fitted: Fitted) -> tuple[Array, Array]:
        """Seconds to the first token, and per token after it, of each row."""
        parts = self._parts
        factors = np.array([getattr(fitted, name) for name in _KERNELS])
        factors[_EXPERTS] *= fitted.gemm  # They are GEMMs too.
        gpu = np.maximum(parts[:, : len(_KERNELS)] @ factors, parts[:, _LAUNCH])
        host = fitted.host_base_s + fitted.host_per_sequence_s * parts[:, _SEQUENCES]
        host += fitted.host_per_token_s * parts[:, _TOKENS]
        hidden = fitted.host_overlap * np.minimum(gpu, host)
        step = fitted.gap_s + gpu + host - hidden
        before = np.add.reduceat(step * parts[:, _BEFORE], self._starts)
        path = fitted.ttft_base_s + fitted.ttft_per_token_s * self._prompts
        return before + path, np.add.reduceat(step * parts[:, _AFTER], self._starts)

    def loss(self, fitted: Fitted) -> float:
        """How badly these constants predict the rows."""
        ttft, tpot = self.predicted(fitted)
        of_tpot = np.log1p(((np.log(tpot) - self._log_tpot) / TAIL) ** 2)
        of_ttft = np.log1p(((np.log(ttft) - self._log_ttft) / TTFT_TAIL) ** 2)
        return float(self._tpot_weights @ of_tpot + self._ttft_weights @ of_ttft)


def fit(trials: Sequence[Trial], backend: str, *, shrinkage: float = SHRINKAGE) -> Fitted:
    """The constants that predict these rows of a backend best, near its priors; those themselves without rows."""
    prior = prior_for(backend)
    if not trials:
        return prior
    rows = Trials(trials)
    names = tuple(SPREADS)
    spreads = np.array([SPREADS[name] for name in names])

    def constants(at: Array) -> Fitted:
        moved = {name: getattr(prior, name) * exp(by) for name, by in zip(names, at, strict=True)}
        return replace(prior, **moved)

    def cost(at: Array) -> float:
        return rows.loss(constants(at)) + shrinkage * float(((at / spreads) ** 2).sum())

    at = _least(cost, np.zeros(len(names)), 0.5 * spreads)
    return constants(at)


def _least(cost: Callable[[Array], float], at: Array, steps: Array) -> Array:
    """The least of a function near `at` by a pattern search (Hooke and Jeeves, 1961), a coordinate at a time."""
    value, steps = cost(at), steps.copy()
    while steps.max() > FINEST:
        for place in range(at.size):
            for step in (steps[place], -steps[place]):
                tried = at.copy()
                tried[place] += step
                there = cost(tried)
                if there < value:
                    at, value = tried, there
                    break
            else:
                steps[place] *= 0.6
    return at
