"""When an owner ticks: at its period, never in bursts, and by a clock that only goes forward."""

from flyball_controller.serving.tenure import Beat


def ticks(beat: Beat, *times_s: float) -> list[float]:
    """The intervals of ticks at these times."""
    return [round(beat.strike(now_s), 6) for now_s in times_s]


def test_the_first_tick_is_due_at_once_and_measures_nothing() -> None:
    """A tick that follows a claim has an interval of 0."""
    beat = Beat(1.0)
    beat.start(100.0)

    assert 0.0 == beat.wait_s(100.0)
    assert [0.0] == ticks(beat, 100.0)


def test_small_delays_do_not_add_up() -> None:
    """Ticks that are each a little late stay on the grid that the first began."""
    beat = Beat(1.0)
    beat.start(100.0)

    assert [0.0, 1.1, 0.95] == ticks(beat, 100.0, 101.1, 102.05)
    assert 0.95 == round(beat.wait_s(102.05), 6)


def test_what_was_missed_is_not_made_up_for() -> None:
    """After a pause of ten seconds one tick measures them all, and the next is a period away."""
    beat = Beat(1.0)
    beat.start(100.0)

    assert [0.0, 10.0] == ticks(beat, 100.0, 110.0)
    assert 1.0 == beat.wait_s(110.0)


def test_a_beat_begun_again_measures_anew() -> None:
    """After another claim the first tick has an interval of 0 again, and nothing is late."""
    beat = Beat(1.0)
    beat.start(100.0)
    ticks(beat, 100.0, 101.0)

    assert 6.0 == beat.late_s(107.0)
    beat.start(107.0)

    assert 0.0 == beat.late_s(107.0)
    assert [0.0] == ticks(beat, 107.0)
