"""Spans, moments and values as operators type them."""

import pytest

from flyball_cli.operating.times import moment, read_moment, read_span, typed_value
from flyball_cli.wording import span
from flyball_core.errors import Rejected
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec
from operator_examples import CAP, GRAPHS


@pytest.mark.parametrize(
    ("text", "wanted_s"),
    [("90s", 90.0), ("30m", 1800.0), ("30min", 1800.0), ("1h30m", 5400.0), ("1h 30m", 5400.0), ("2d", 172_800.0)],
)
def test_spans_are_read(text: str, wanted_s: float) -> None:
    """A span is one or several numbers with their units."""
    assert wanted_s == read_span(text)


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-5m", "5 weeks", "400d", "1h x"])
def test_what_is_no_span_is_refused(text: str) -> None:
    """A number without a unit, nothing, or more than a year is refused."""
    with pytest.raises(Rejected):
        read_span(text)


def test_a_bare_number_is_answered_with_its_spellings() -> None:
    """Whoever forgets the unit is shown two."""
    with pytest.raises(Rejected, match="write 30s or 30m"):
        read_span("30")


def test_moments_carry_their_zone() -> None:
    """A moment is read with its zone, and refused without."""
    assert read_moment("2026-11-21T18:00:00Z") == read_moment("2026-11-21T19:00:00+01:00")
    assert "2026-11-21 18:00:00 UTC" == moment(read_moment("2026-11-21T18:00:00Z"))
    for text in ("2026-11-21T18:00:00", "tomorrow"):
        with pytest.raises(Rejected):
            read_moment(text)


def test_values_are_typed_by_the_knob() -> None:
    """A knob says what type its value has; bounds are the owner's to judge."""
    flag = KnobSpec(name="chunked", knob_class=KnobClass.LIVE, kind=KnobKind.FLAG, safe=True)
    share = KnobSpec(name="share", knob_class=KnobClass.LIVE, kind=KnobKind.REAL, safe=0.5)

    assert (32, 100_000) == (typed_value("32", CAP), typed_value("100000", CAP))
    assert "splitkv" == typed_value("splitkv", GRAPHS)
    assert (True, False) == (typed_value("on", flag), typed_value("False", flag))
    assert 0.25 == typed_value("0.25", share)
    for text, spec in (("3.5", CAP), ("many", CAP), ("maybe", flag), ("half", share)):
        with pytest.raises(Rejected, match=spec.name):
            typed_value(text, spec)


def test_long_times_are_told_in_two_units() -> None:
    """As people say them."""
    said = [span(value) for value in (0.43, 45.0, 60.0, 303.0, 7800.0, 86_400.0, 100_000.0)]

    assert ["0.4 s", "45 s", "1 min", "5 min 3 s", "2 h 10 min", "1 d", "1 d 3 h"] == said
