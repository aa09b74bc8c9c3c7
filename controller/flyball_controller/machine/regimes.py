"""Naming regimes: the five plainest, by rule, with hysteresis.

`idle`, `interactive`, `prefill_heavy`, `long_context` and `kv_thrash`; `unknown` where
telemetry is too thin to say. A pool's name changes after a candidate has held for some
ticks, sooner after a detector's alarm; `kv_thrash` needs no dwell, because it only ever
makes the guard more careful. (`degraded` is told per engine, by `features`.)
"""

from typing import Protocol

from flyball_controller.machine.state import RegimeState

COMMIT_TICKS = 6
COMMIT_TICKS_AFTER_ALARM = 3
LONG_CONTEXT_TOKENS = 4000.0
"""Median KV tokens per running request above which decode is bound by KV traffic."""
PREFILL_HEAVY_SHARE = 0.95
"""Share of prompt tokens in all tokens above which prefill dominates."""
LEAVE = 0.75
"""A threshold is left only below this share of it."""


class RegimeNamer(Protocol):
    """Names a pool's regime from its features; keeps everything in the given state."""

    def name(self, state: RegimeState, features: dict[str, float], now_s: float, *, alarm: bool) -> bool:
        """Renew `state`; True if the regime in force changed."""
        ...


class RuleNamer:
    """The plainest namer: thresholds with hysteresis."""

    def name(self, state: RegimeState, features: dict[str, float], now_s: float, *, alarm: bool) -> bool:
        """Renew `state`; True if the regime in force changed."""
        candidate = self._candidate(state.name, features)
        agrees = 1.0 if candidate == state.name else 0.0
        state.agreement += 0.1 * (agrees - state.agreement)
        state.confidence = state.agreement
        if candidate == state.name:
            state.candidate, state.candidate_ticks = candidate, 0
            return False
        if candidate == state.candidate:
            state.candidate_ticks += 1
        else:
            state.candidate, state.candidate_ticks = candidate, 1
        needed = COMMIT_TICKS_AFTER_ALARM if alarm else COMMIT_TICKS
        if candidate in ("kv_thrash", "unknown") or state.name == "unknown":
            needed = 1
        if state.candidate_ticks < needed:
            return False
        state.name, state.since_s, state.candidate_ticks = candidate, now_s, 0
        state.agreement = state.confidence = 0.5
        return True

    @staticmethod
    def _candidate(current: str, features: dict[str, float]) -> str:
        engines, fresh = features.get("engines", 0.0), features.get("engines_fresh", 0.0)
        if fresh == 0 or fresh < engines / 2 or "running" not in features:
            return "unknown"
        if features.get("kv_used_max", 0.0) > 0.95 and features.get("preemptions_per_s", 0.0) > 0:
            return "kv_thrash"
        if features["running"] < 0.5 and features.get("waiting", 0.0) < 0.5:
            return "idle"
        long_at = LONG_CONTEXT_TOKENS * (LEAVE if current == "long_context" else 1.0)
        if features.get("context_tokens", 0.0) >= long_at:
            return "long_context"
        heavy_at = PREFILL_HEAVY_SHARE * (0.98 if current == "prefill_heavy" else 1.0)
        if features.get("prefill_share", 0.0) >= heavy_at:
            return "prefill_heavy"
        return "interactive"
