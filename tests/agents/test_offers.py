"""What is no value and no version is told from what is, before anything is compared."""

import math
from dataclasses import replace

import pytest

from flyball_agents.offers import MOST_NUMBER, MOST_TEXT, sound, unfit, unmapped
from flyball_core.knobs import KnobSpec
from receiver_bench import CAP, MARGIN, ORDER, odd, version

FREE = replace(MARGIN, minimum=None, maximum=None)


@pytest.mark.parametrize(
    ("spec", "value", "reason"),
    [
        (FREE, None, "margin takes a single value, not NoneType"),
        (FREE, [1], "margin takes a single value, not list"),
        (FREE, 1j, "margin takes a single value, not complex"),
        (FREE, math.nan, "margin takes no number beyond 1e+15"),
        (FREE, math.inf, "margin takes no number beyond 1e+15"),
        (FREE, -math.inf, "margin takes no number beyond 1e+15"),
        (FREE, 1.1e15, "margin takes no number beyond 1e+15"),
        (FREE, -1.1e15, "margin takes no number beyond 1e+15"),
        (CAP, 10**400, "cap takes no number beyond 1e+15"),
        (FREE, "1", "margin takes a number, not '1'"),
        (FREE, True, "margin takes a number, not True"),
        (FREE, 1e15, None),
        (FREE, -1e15, None),
        (FREE, 3, None),
        (CAP, 3, None),
        (CAP, 3.0, "cap takes a whole number, not 3.0"),
        (ORDER, "x" * 257, "order takes no text of 257 characters"),
        (replace(ORDER, choices=("x" * 256,)), "x" * 256, None),
        (replace(ORDER, choices=("x" * 257,)), "x" * 257, "order takes no text of 257 characters"),
        (ORDER, 7, "order takes one of fifo, priority, not 7"),
    ],
)
def test_a_value_is_refused_in_words_or_not_at_all(spec: KnobSpec, value: object, reason: str | None) -> None:
    """What arrived may be anything; the limits themselves are allowed."""
    assert unfit(spec, value) == reason


def test_the_limits_are_the_documented_ones() -> None:
    """256 characters, and numbers that a double holds exactly."""
    assert (MOST_TEXT, MOST_NUMBER) == (256, 1e15)


def test_only_a_mapping_is_a_setting() -> None:
    """Lists, pairs and nothing are not."""
    assert unmapped({}) is None
    wrongs: list[object] = [[], (), None, "cap", 3]
    assert [unmapped(wrong) for wrong in wrongs] == ["the values are no mapping"] * 5


def test_a_sound_version_has_a_log_and_whole_positions() -> None:
    """From 0 to what 63 bits hold; everything else is no version."""
    assert sound(version(0, epoch=0, partition=0)) is True
    assert sound(version((1 << 63) - 1)) is True
    wrongs: list[object] = [
        None,
        "3:10:5",
        version(5, log_id=""),
        version(odd(None)),
        version(5, epoch=odd(1.0)),
        version(5, partition=-1),
        version(1 << 63),
        version(5, log_id=odd(7)),
    ]
    assert [sound(wrong) for wrong in wrongs] == [False] * len(wrongs)


def test_a_number_too_long_to_write_out_is_refused_all_the_same() -> None:
    """Python refuses to print integers of more than 4,300 digits; the reason does not try."""
    assert unfit(CAP, 10**5000) == "cap takes no number beyond 1e+15"
