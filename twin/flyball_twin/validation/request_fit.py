"""Fitting the few constants of an engine to the first third of its request log.

Three constants per log: the shares of the datasheet's bandwidth and compute that kernels reach, and the host's time
per step. Everything else is physics, or was read off the log as configuration. Only answers of the first third are
looked at; of later requests only when they came and how long they are, which the twin has to be told anyway. It
refuses to fit anything per request, and anything to queueing: that has to come out right by itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import exp, log
from statistics import fmean, median

from flyball_twin.physics import EngineModel, fitted_for
from flyball_twin.validation.request_logs import LoggedRequest
from flyball_twin.validation.request_replay import Deployment, Served, replay

FIRST_STEP = 0.32
LAST_STEP = 0.04
"""Of the search, in logarithms of the constants: from a third at once to four percent."""
BOUNDS = ((0.4, 1.25), (0.4, 1.4), (0.1e-3, 30e-3))
"""Of the constants, in their order: no kernel beats the datasheet, and no host is free."""
PREFILL_WEIGHT = 0.5
"""What an error in the time to the first token counts beside one in the time per token."""
MEAN_SHARE = 0.1
"""Share of the mean error in what is minimised, beside the median: smooth, and not ruled by outliers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What is fitted to a log."""

    bandwidth: float = 1.0
    compute: float = 1.0
    """Factors on the datasheet's peaks, on top of the shares that kernels are assumed or measured to reach."""
    host_s: float = 1.5e-3
    """Host time per step."""

    def on(self, engine: EngineModel) -> EngineModel:
        """The engine with these constants."""
        gpu = replace(
            engine.gpu,
            hbm_bytes_per_s=engine.gpu.hbm_bytes_per_s * self.bandwidth,
            bf16_flops_per_s=engine.gpu.bf16_flops_per_s * self.compute,
            fp8_flops_per_s=engine.gpu.fp8_flops_per_s * self.compute,
        )
        fitted = engine.fitted or fitted_for(engine.backend)
        return replace(engine, gpu=gpu, fitted=replace(fitted, host_base_s=self.host_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The constants found, how far off they leave the fitted third, and how many replays it took."""

    constants: Constants
    loss: float
    replays: int


def fit(requests: Sequence[LoggedRequest], deployment: Deployment, first: int) -> Fit:
    """The constants with which the twin serves the first `first` requests most like the log says."""
    wanted = requests[:first]
    base = deployment.engine.fitted or fitted_for(deployment.engine.backend)

    def loss(place: Sequence[float]) -> float:
        engine = _constants(place).on(deployment.engine)
        return _distance(wanted, replay(requests, replace(deployment, engine=engine), first=first).served)

    start = (1.0, 1.0, base.host_base_s)
    found = search(loss, tuple(log(value) for value in start), [(log(a), log(b)) for a, b in BOUNDS])
    return Fit(constants=_constants(found.place), loss=found.loss, replays=found.tried)


def _constants(place: Sequence[float]) -> Constants:
    bandwidth, compute, host_s = (exp(value) for value in place)
    return Constants(bandwidth=bandwidth, compute=compute, host_s=host_s)


def _distance(logged: Sequence[LoggedRequest], served: Sequence[Served]) -> float:
    tpot: list[float] = []
    prefill: list[float] = []
    for measured, made in zip(logged, served, strict=True):
        if measured.tpot_s and made.tpot_s:
            tpot.append(abs(log(made.tpot_s / measured.tpot_s)))
        if measured.prefill_s > 0.0 and made.prefill_s > 0.0:
            prefill.append(abs(log(made.prefill_s / measured.prefill_s)))
    return _middle(tpot) + PREFILL_WEIGHT * _middle(prefill)


def _middle(values: Sequence[float]) -> float:
    return (1.0 - MEAN_SHARE) * median(values) + MEAN_SHARE * fmean(values) if values else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The best place of a search, what it costs, and how many places were tried."""

    place: tuple[float, ...]
    loss: float
    tried: int


def search(
    loss: Callable[[Sequence[float]], float], start: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> Found:
    """The least `loss` near `start` and within `bounds`, by pattern search (Hooke and Jeeves, "Direct search", 1961).

    Steps go along the axes and along pairs of them, because bandwidth and host time stand in for each other; they
    are halved when none helps. It needs no gradient: who is preempted changes by jumps.
    """
    directions = [way for way in product((-1, 0, 1), repeat=len(start)) if 0 < sum(map(abs, way)) <= 2]
    place, best, tried, step = tuple(start), loss(start), 1, FIRST_STEP
    while step >= LAST_STEP:
        moved = False
        for way in directions:
            other = tuple(
                min(most, max(least, value + step * part))
                for value, part, (least, most) in zip(place, way, bounds, strict=True)
            )
            if other == place:
                continue
            tried += 1
            if (there := loss(other)) < best:
                place, best, moved = other, there, True
        if not moved:
            step /= 2.0
    return Found(place=place, loss=best, tried=tried)
