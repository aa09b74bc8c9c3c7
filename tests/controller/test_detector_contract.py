"""What every change detector promises, run over every detector of the machine."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from flyball_controller.machine.detector import ChangeDetector, MixDetector

DETECTORS: tuple[Callable[[], ChangeDetector], ...] = (MixDetector,)

DAY_TICKS = 86_400
MOST_FALSE_ALARMS = 2
"""Allowed in one day of one tick a second of stationary noise; measured: 0 with each of three seeds."""


def noise(seed: int, ticks: int, level: float = 7.0, spread: float = 0.4) -> list[float]:
    """The logarithm of a mix that stays the same: smoothed a little, as features are."""
    draw, value, made = random.Random(seed), level, []
    for _ in range(ticks):
        value += 0.15 * (draw.gauss(level, spread) - value)
        made.append(value)
    return made


@pytest.mark.parametrize("new", DETECTORS)
class TestDetectorContract:
    """One suite for all detectors."""

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_a_day_of_stationary_noise_gives_at_most_2_false_alarms(
        self, new: Callable[[], ChangeDetector], seed: int
    ) -> None:
        """86,400 ticks of the same mix hardly ever alarm."""
        detector, state = new(), dict[str, Any]()
        alarms = sum(detector.update(state, value) for value in noise(seed, DAY_TICKS))

        assert alarms <= MOST_FALSE_ALARMS

    @pytest.mark.parametrize("shift", [-2.0, 2.0])
    def test_a_shift_of_the_mix_alarms_within_5_minutes(self, new: Callable[[], ChangeDetector], shift: float) -> None:
        """When contexts become seven times as long, or as short, the detector says so."""
        detector, state = new(), dict[str, Any]()
        before = [detector.update(state, value) for value in noise(4, 1800)]
        after = [detector.update(state, value) for value in noise(5, 300, level=7.0 + shift)]

        assert not any(before)
        assert any(after)

    def test_missing_values_change_nothing(self, new: Callable[[], ChangeDetector]) -> None:
        """None, NaN and infinities leave state and answers as if they had not been."""
        plain, holed = new(), new()
        one, other = dict[str, Any](), dict[str, Any]()
        for i, value in enumerate(noise(6, 2000) + noise(7, 300, level=9.5)):
            for nothing in (None, math.nan, math.inf, -math.inf)[: i % 5]:
                assert not holed.update(other, nothing)
            assert plain.update(one, value) == holed.update(other, value)
        assert one == other

    def test_a_rebuild_from_restored_state_continues_bit_equal(self, new: Callable[[], ChangeDetector]) -> None:
        """One rebuilt from state that went through JSON goes on exactly as one rebuilt at the same tick."""
        values = noise(8, 900) + noise(9, 900, level=8.2) + noise(10, 900, level=6.0)
        kept, state = new(), dict[str, Any]()
        alarms = 0
        for tick, value in enumerate(values):
            if tick % 60 == 0:
                kept.rebuild(state)
                other, restored = new(), json.loads(json.dumps(state))
                other.rebuild(restored)
            alarm = kept.update(state, value)
            alarms += alarm

            assert alarm == other.update(restored, value)
            assert state == restored
        assert alarms

    def test_state_is_bounded_json(self, new: Callable[[], ChangeDetector]) -> None:
        """What a detector keeps does not grow with time, and holds no NaN and no infinity."""
        detector, state = new(), dict[str, Any]()
        for value in noise(11, 20_000):
            detector.update(state, value)

        assert len(json.dumps(state, allow_nan=False)) < 20_000

    def test_absurd_values_leave_it_finite(self, new: Callable[[], ChangeDetector]) -> None:
        """Values of any finite size are taken without an exception, and the state stays finite."""
        detector, state = new(), dict[str, Any]()
        for value in [0.0, 1e18, -1e18, 1e150, -1e150, 7.0] * 200:
            detector.update(state, value)
        json.dumps(state, allow_nan=False)
