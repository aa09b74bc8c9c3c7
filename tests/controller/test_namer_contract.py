"""What every regime namer promises, run over every namer of the machine."""

from collections.abc import Callable, Mapping

import pytest

from flyball_controller.machine.regimes import COMMIT_TICKS, LONG_CONTEXT_TOKENS, RegimeNamer, RuleNamer
from flyball_controller.machine.state import RegimeState
from flyball_policies.document import REGIMES

NAMERS: tuple[Callable[[], RegimeNamer], ...] = (RuleNamer,)

SEEN = {"engines": 4.0, "engines_fresh": 4.0}

FEATURES: Mapping[str, dict[str, float]] = {
    "idle": {**SEEN, "running": 0.0, "waiting": 0.0},
    "interactive": {**SEEN, "running": 40.0, "context_tokens": 900.0, "prefill_share": 0.5},
    "prefill_heavy": {**SEEN, "running": 40.0, "context_tokens": 900.0, "prefill_share": 0.99},
    "long_context": {**SEEN, "running": 9.0, "context_tokens": 30_000.0, "prefill_share": 0.5},
    "kv_thrash": {**SEEN, "running": 90.0, "kv_used_max": 0.99, "preemptions_per_s": 4.0, "context_tokens": 900.0},
    "unknown": {"engines": 4.0, "engines_fresh": 0.0},
}


def settle(
    namer: RegimeNamer, state: RegimeState, features: dict[str, float], ticks: int, *, alarm: bool = False
) -> int:
    """Name the same features for some ticks; after how many the name changed, or 0."""
    return next((i + 1 for i in range(ticks) if namer.name(state, features, float(i), alarm=alarm)), 0)


@pytest.mark.parametrize("new", NAMERS)
class TestNamerContract:
    """One suite for all namers."""

    @pytest.mark.parametrize("regime", FEATURES)
    @pytest.mark.parametrize("start", FEATURES)
    def test_every_regime_is_reached_from_every_other(
        self, new: Callable[[], RegimeNamer], start: str, regime: str
    ) -> None:
        """Features of a regime that last give its name, whatever was in force."""
        namer, state = new(), RegimeState(name=start)
        for tick in range(30):
            namer.name(state, dict(FEATURES[regime]), float(tick), alarm=False)

        assert regime == state.name
        assert state.name in REGIMES
        assert 0.0 < state.confidence <= 1.0

    def test_one_odd_tick_changes_nothing(self, new: Callable[[], RegimeNamer]) -> None:
        """A regime that shows for a tick between others is not named."""
        namer, state = new(), RegimeState(name="interactive")
        for tick in range(100):
            seen = "long_context" if tick % 4 == 0 else "interactive"
            namer.name(state, dict(FEATURES[seen]), float(tick), alarm=False)

            assert "interactive" == state.name

    def test_a_regime_is_left_only_well_below_its_threshold(self, new: Callable[[], RegimeNamer]) -> None:
        """Contexts that swing around the threshold do not make the name swing."""
        namer, state = new(), RegimeState(name="interactive")
        changes = 0
        for tick in range(200):
            long = LONG_CONTEXT_TOKENS * (1.1 if (tick // 10) % 2 == 0 else 0.9)
            changes += namer.name(state, {**FEATURES["interactive"], "context_tokens": long}, float(tick), alarm=False)

        assert 1 == changes
        assert "long_context" == state.name

    def test_an_alarm_lets_it_commit_sooner(self, new: Callable[[], RegimeNamer]) -> None:
        """With a detector's alarm a new regime is believed earlier than without."""
        quick = settle(new(), RegimeState(name="interactive"), dict(FEATURES["long_context"]), 30, alarm=True)
        slow = settle(new(), RegimeState(name="interactive"), dict(FEATURES["long_context"]), 30)

        assert 0 < quick < slow <= COMMIT_TICKS

    def test_what_only_makes_careful_needs_no_dwell(self, new: Callable[[], RegimeNamer]) -> None:
        """`kv_thrash` and `unknown` are named at once."""
        for regime in ("kv_thrash", "unknown"):
            assert 1 == settle(new(), RegimeState(name="interactive"), dict(FEATURES[regime]), 5)

    @pytest.mark.parametrize("missing", ["running", "engines_fresh", "engines", "everything"])
    def test_missing_telemetry_is_unknown(self, new: Callable[[], RegimeNamer], missing: str) -> None:
        """Without what it needs a namer says `unknown`, never a guess, and never raises."""
        features = {k: v for k, v in FEATURES["interactive"].items() if missing not in (k, "everything")}
        state = RegimeState(name="interactive")
        settle(new(), state, features, 3)

        assert ("interactive" if missing == "engines" else "unknown") == state.name

    def test_thin_telemetry_is_unknown(self, new: Callable[[], RegimeNamer]) -> None:
        """With fewer than half of the engines fresh nothing is said of the pool."""
        state = RegimeState(name="interactive")
        settle(new(), state, {**FEATURES["interactive"], "engines_fresh": 1.0}, 1)

        assert "unknown" == state.name

    def test_everything_lies_in_the_state(self, new: Callable[[], RegimeNamer]) -> None:
        """A new namer with the same state goes on like the old one."""
        kept, one, other = new(), RegimeState(), RegimeState()
        names = list(FEATURES)
        for tick in range(200):
            features = FEATURES[names[(tick // 9) % len(names)]]
            kept.name(one, dict(features), float(tick), alarm=tick % 31 == 0)
            new().name(other, dict(features), float(tick), alarm=tick % 31 == 0)

            assert one == other

    def test_changes_no_feature(self, new: Callable[[], RegimeNamer]) -> None:
        """The features are the same after as before."""
        features = dict(FEATURES["long_context"])
        new().name(RegimeState(), features, 0.0, alarm=False)

        assert FEATURES["long_context"] == features
