"""Batch cap and token budget by additive increase and multiplicative decrease.

The plainest control that keeps a latency objective (Chiu and Jain 1989; Clipper, NSDI
2017, for batch sizes). An engine whose TPOT is over its target has too much in a step:
first the token budget is cut, because a long prefill chunk in a step delays every decode
in it, and only when the budget is at its floor the batch. The batch is also cut for KV
headroom. It cuts from the batch that runs, not from a cap that may be far above it, and
waits until a cut is effective before it cuts again: a batch drains only as its requests
finish.

Cutting a batch does not make work go away: it waits at the gateways instead. So when the
wait there, estimated as queue over completions (Little's law), nears the TTFT objective,
nothing is cut for TPOT any more and the caps that bind are raised. A cap that does not
bind is not raised: that would be a risk without a use.
"""

import numpy as np
from numpy.typing import NDArray

from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET
from flyball_policies.seam import Memory, PoolView

NAME = "caps-aimd"

BINDING = 0.95
"""Share of the cap that must be running for the cap to count as binding."""

ROOM = 0.75
"""Below this share of the TPOT target there is room to raise."""

SETTLE_S = 4.0
"""Least time between two cuts of the same knob: TPOT is smoothed over about three ticks."""

Mask = NDArray[np.bool_]


class CapsAimd:
    """Proposes `max_batched_tokens` and `max_active_requests` per engine."""

    name = NAME

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Cut where TPOT or KV is over its target, raise where a cap binds and there is room."""
        caps = view.settings.get(BATCH_CAP)
        if caps is None:
            return []
        rule, objective = view.document.caps, view.document.tpot_objective_s
        target = np.inf if objective is None else objective * rule.tpot_target
        kv_limit = 1.0 - rule.kv_headroom
        tpot, running = view.columns["tpot_s"], view.columns["running"]
        kv_used, preempted = view.columns["kv_used_ratio"], view.columns["preemptions_per_s"]
        preempted = np.where(np.isfinite(preempted), preempted, 0.0)
        wait_s = queue_wait_s(view)
        backlog = wait_s > (view.document.ttft_objective_s or np.inf) * rule.ttft_target
        # NaN compares false: what is missing moves nothing.
        known = view.usable & np.isfinite(running) & np.isfinite(caps) & (running >= 1.0)
        slow = known & (tpot > target)
        full = known & ((kv_used > kv_limit) | (preempted > 0))
        room = known & (tpot < target * ROOM) & (kv_used < kv_limit * ROOM)
        rested = self._rested(view, memory)
        tokens, at_floor = self._tokens(view, slow & rested, room, backlog=backlog)
        drained = running <= np.maximum(caps, 1.0)
        cut = (full | (slow & at_floor & (not backlog))) & drained & rested
        binding = running >= caps * BINDING
        raised = known & binding & ~full & ~cut & (room | (backlog & (kv_used < kv_limit * ROOM)))
        proposals = tokens
        for i in np.flatnonzero(cut).tolist():
            value = max(1, int(min(caps[i], running[i]) * rule.backoff))
            if full[i]:
                why = f"KV {kv_used[i]:.0%} used of {kv_limit:.0%}, {preempted[i]:.1f} preemptions/s"
            else:
                why = f"TPOT {tpot[i] * 1e3:.1f} ms over {target * 1e3:.1f} ms at {running[i]:.0f} running"
            proposals.append(self._proposal(view.engines[i], BATCH_CAP, value, why))
        for i in np.flatnonzero(raised).tolist():
            why = (
                f"cap binds at {running[i]:.0f} running; TPOT {tpot[i] * 1e3:.1f} of {target * 1e3:.1f} ms, "
                f"{wait_s:.1f} s of work queued"
            )
            value = _raised(caps[i], rule.step, view.document.guard.dead_band)
            proposals.append(self._proposal(view.engines[i], BATCH_CAP, value, why))
        for proposal in proposals:
            memory.setdefault("moved_s", {})[proposal.target] = view.time_s
        return proposals

    @staticmethod
    def _rested(view: PoolView, memory: Memory) -> Mask:
        """Which engines were not moved just now. Also forgets engines that are gone."""
        moved: dict[str, float] = memory.setdefault("moved_s", {})
        for engine in moved.keys() - set(view.engines):
            del moved[engine]
        return np.array([view.time_s - moved.get(engine, -np.inf) >= SETTLE_S for engine in view.engines], dtype=bool)

    def _tokens(self, view: PoolView, slow: Mask, room: Mask, *, backlog: bool) -> tuple[list[Proposal], Mask]:
        """Moves of the token budget, and where it can go no lower (everywhere, if there is none)."""
        budgets = view.settings.get(TOKEN_BUDGET)
        if budgets is None:
            return [], np.ones(len(view.engines), dtype=bool)
        rule, floors = view.document.caps, view.floors[TOKEN_BUDGET]
        tpot, waiting, ttft = view.columns["tpot_s"], view.columns["waiting"], view.columns["ttft_s"]
        at_floor = ~(budgets > floors)
        late = ttft > (view.document.ttft_objective_s or np.inf) * rule.ttft_target
        proposals = []
        for i in np.flatnonzero(slow & ~at_floor).tolist():
            value = int(max(floors[i], budgets[i] * rule.backoff))
            why = f"TPOT {tpot[i] * 1e3:.1f} ms is over its target; smaller prefill chunks first"
            proposals.append(self._proposal(view.engines[i], TOKEN_BUDGET, value, why))
        wants = room & ((waiting > 0) | late | backlog) & (budgets < view.ceilings[TOKEN_BUDGET])
        for i in np.flatnonzero(wants).tolist():
            more = _raised(budgets[i], rule.token_step, view.document.guard.dead_band)
            value = int(min(more, view.ceilings[TOKEN_BUDGET][i]))
            why = f"prompts wait (TTFT {ttft[i]:.2f} s) and TPOT {tpot[i] * 1e3:.1f} ms leaves room"
            proposals.append(self._proposal(view.engines[i], TOKEN_BUDGET, value, why))
        return proposals, at_floor

    def _proposal(self, engine: str, knob: str, value: int, reason: str) -> Proposal:
        return Proposal(policy=self.name, kind=TargetKind.ENGINE, target=engine, knob=knob, value=value, reason=reason)


def _raised(value: float, step: int, dead_band: float) -> int:
    """A step up, and never one so small that the guard's dead-band would stop it for good."""
    return int(max(value + step, np.ceil(value * (1.0 + dead_band))))


def queue_wait_s(view: PoolView) -> float:
    """How long the work that waits at the gateways will take, by Little's law; 0 if none is known to wait.

    Gateways count what waits for all engines, telemetry what some of them finish: those that are not heard of are taken
    to finish as much as the others, or silence would look like a jam.
    """
    queued, finished = view.features.get("queued", 0.0), view.features.get("finished_per_s", 0.0)
    return queued * view.features.get("finished_share", 1.0) / max(finished, 0.1) if queued > 0 else 0.0
