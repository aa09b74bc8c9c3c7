"""Kernel choice by the policy document's map from regime to variant.

Attention backends bind at load, so the choice is which variant an engine is relaunched
in: drain, relaunch, warm, ramp, one engine at a time. This policy only names the next
engine that should change; the shift of work between variants that run already is the
weights policy's. It waits until a regime has lasted, and keeps a few engines in the
variants it moves away from, so that the way back does not begin with a cold pool.
"""

from collections import Counter

from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import VARIANT
from flyball_policies.seam import Memory, PoolView

NAME = "variants-map"


class VariantsMap:
    """Proposes `variant` for one engine at a time."""

    name = NAME

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """The next engine to relaunch in the variant that suits the regime, if any."""
        del memory
        rule = view.document.variants
        suited = rule.regimes.get(view.regime)
        if view.regime not in rule.relaunch or suited is None or view.regime_age_s < rule.settle_s:
            return []
        held = Counter(view.variants)
        candidates = [
            i
            for i, variant in enumerate(view.variants)
            if variant != suited and view.usable[i] and suited in view.choices[i] and held[variant] > rule.keep
        ]
        if not candidates:
            return []
        running = view.columns["running"]
        # The engine with the least work is away at the least cost.
        chosen = min(candidates, key=lambda i: (running[i], view.engines[i]))
        return [
            Proposal(
                policy=self.name,
                kind=TargetKind.ENGINE,
                target=view.engines[chosen],
                knob=VARIANT,
                value=suited,
                reason=f"{suited} suits {view.regime}, which has lasted {view.regime_age_s:.0f} s",
            )
        ]
