"""Batch caps by additive increase and multiplicative decrease on TPOT and KV headroom.

The plainest control that keeps a latency objective (Chiu and Jain 1989; Clipper, NSDI
2017, for batch sizes). It cuts from the batch that runs, not from a cap that may be far
above it, and it waits for a cut to take effect before it cuts again: a batch drains only
as its requests finish. It raises only a cap that binds, because raising one that does not
is a risk without a use.
"""

import numpy as np

from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_policies.seam import Memory, PoolView

NAME = "caps-aimd"

BINDING = 0.95
"""Share of the cap that must be running for the cap to count as binding."""


class CapsAimd:
    """Proposes `max_active_requests` per engine."""

    name = NAME

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Cut where TPOT or KV is over its objective, raise where the cap binds and there is room."""
        del memory
        objective = view.document.tpot_objective_s
        caps = view.settings.get(BATCH_CAP)
        if caps is None:
            return []
        rule = view.document.caps
        tpot, running = view.columns["tpot_s"], view.columns["running"]
        kv_used = view.columns["kv_used_ratio"]
        target = np.inf if objective is None else objective * rule.tpot_target
        kv_limit = 1.0 - rule.kv_headroom
        known = view.usable & np.isfinite(running) & np.isfinite(caps)
        # NaN compares false: an engine whose TPOT or KV is missing is neither cut nor raised on it.
        slow = known & (tpot > target)
        full = known & ((kv_used > kv_limit) | (view.columns["preemptions_per_s"] > 0))
        drained = running <= np.maximum(caps, 1.0)
        cut = (slow | full) & drained & (running >= 1.0)
        room = known & (tpot < target * 0.9) & (kv_used < kv_limit * 0.9) & (running >= caps * BINDING) & ~cut
        proposals = []
        for i in np.flatnonzero(cut).tolist():
            value = max(1, int(min(caps[i], running[i]) * rule.backoff))
            if full[i] and not slow[i]:
                why = f"KV {kv_used[i]:.0%} used, limit {kv_limit:.0%}, preemptions {view.columns['preemptions_per_s'][i]:.1f}/s"
            else:
                why = f"TPOT {tpot[i] * 1e3:.1f} ms over {target * 1e3:.1f} ms at {running[i]:.0f} running"
            proposals.append(self._proposal(view.engines[i], value, why))
        for i in np.flatnonzero(room).tolist():
            why = f"cap binds at {running[i]:.0f} running; TPOT {tpot[i] * 1e3:.1f} ms of {target * 1e3:.1f} ms, KV {kv_used[i]:.0%}"
            proposals.append(self._proposal(view.engines[i], int(caps[i]) + rule.step, why))
        return proposals

    def _proposal(self, engine: str, value: int, reason: str) -> Proposal:
        return Proposal(
            policy=self.name, kind=TargetKind.ENGINE, target=engine, knob=BATCH_CAP, value=value, reason=reason
        )
