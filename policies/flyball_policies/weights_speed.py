"""Routing weights by measured speed and by the variant that suits the regime.

An engine that takes longer per token than its peers under the share it has is given a
smaller share, in small steps, until their TPOT meet or a bound is reached: integral
control on the logarithm of a ratio, so no model of the engine is needed. An engine whose
variant does not suit the regime counts only in part (a routing shift between variants).
Health is not judged here: the guard takes weight from engines that do not serve.
"""

import numpy as np

from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import WEIGHT
from flyball_policies.seam import Column, Memory, PoolView

NAME = "weights-speed"

GAIN = 0.3
"""Share of the logarithmic error that is corrected per period."""

NOTICED = 1.15
"""Ratios of TPOT below this, either way, are taken for noise."""

LARGEST_STEP = 1.25
"""Largest factor of one correction."""

FEWEST_RUNNING = 2.0
"""An engine that runs less than this says nothing about its speed."""

LEAST_TPOT_S = 1e-6
"""No engine is faster; below it is damage, not speed."""

SETTLE_S = 10.0
"""How long a regime must have lasted for work to be shifted to the variant that suits it."""

RECOVERY = 1.02
"""Factor per period by which an engine without evidence returns to nominal."""


class WeightsSpeed:
    """Proposes `weight` per engine."""

    name = NAME

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """New weights each period, for the engines that are usable."""
        rule = view.document.weights
        if view.time_s < memory.get("next_s", 0.0) or not view.usable.any():
            return []
        memory["next_s"] = view.time_s + rule.period_s
        speeds: dict[str, float] = memory.setdefault("speed", {})
        for engine in speeds.keys() - set(view.engines):
            del speeds[engine]
        speed = np.array([speeds.get(engine, 1.0) for engine in view.engines])
        enough = view.usable & (view.columns["running"] >= FEWEST_RUNNING) & (view.columns["tpot_s"] >= LEAST_TPOT_S)
        tpot = np.where(enough, view.columns["tpot_s"], np.nan)
        self._learn(speed, tpot, rule.minimum / rule.nominal)
        speeds.update(zip(view.engines, speed.tolist(), strict=True))
        if view.regime_age_s >= SETTLE_S:
            memory["regime"] = view.regime
        fit = self._fit(view, memory.get("regime", ""))
        wanted = np.clip(np.rint(rule.nominal * speed * fit), rule.minimum, rule.maximum)
        return [
            Proposal(
                policy=self.name,
                kind=TargetKind.ENGINE,
                target=view.engines[i],
                knob=WEIGHT,
                value=int(wanted[i]),
                reason=_reason(float(speed[i]), view.variants[i], float(fit[i])),
            )
            for i in np.flatnonzero(view.usable & (wanted != view.settings[WEIGHT])).tolist()
        ]

    @staticmethod
    def _learn(speed: Column, tpot: Column, floor: float) -> None:
        """Correct the speeds in place by what each engine's TPOT is to the median of all."""
        seen = np.isfinite(tpot)
        if seen.sum() >= 2:
            ratio = float(np.median(tpot[seen])) / tpot[seen]
            ratio = np.where(np.abs(np.log(ratio)) < np.log(NOTICED), 1.0, ratio)
            step = np.clip(ratio**GAIN, 1.0 / LARGEST_STEP, LARGEST_STEP)
            speed[seen] = np.clip(speed[seen] * step, floor, 1.0)
        idle = ~seen
        speed[idle] = np.minimum(speed[idle] * RECOVERY, 1.0)

    @staticmethod
    def _fit(view: PoolView, regime: str) -> Column:
        rule = view.document.variants
        suited = rule.regimes.get(regime)
        if suited is None or suited not in view.variants:
            return np.ones(len(view.engines))
        return np.array([1.0 if variant == suited else rule.preference for variant in view.variants])


def _reason(speed: float, variant: str, fit: float) -> str:
    said = f"speed {speed:.2f} of its peers"
    if variant:
        return f"{said}, variant {variant} fit {fit:.2f}"
    return said if fit == 1.0 else f"{said}, no variant, fit {fit:.2f}"
