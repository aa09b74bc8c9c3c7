"""Sequence numbers kept as intervals say the same as a plain set."""

from hypothesis import given, strategies as st

from flyball_controller.machine.sequences import MAX_INTERVALS, SequenceSet

NUMBERS = st.lists(st.integers(0, 60) | st.integers(0, 2**63), max_size=120)


@given(numbers=NUMBERS)
def test_it_is_a_set(numbers: list[int]) -> None:
    """Adding answers as a plain set would, and so does asking, hole by hole."""
    plain: set[int] = set()
    kept = SequenceSet()
    for number in numbers:
        assert (number not in plain) == kept.add(number)
        plain.add(number)
    for number in [*numbers, *(n + 1 for n in numbers), *range(62)]:
        assert (number in plain) == (number in kept)
    assert (max(plain) + 1 - len(plain) if plain else 0) == kept.missing


@given(numbers=NUMBERS)
def test_its_intervals_are_disjoint_sorted_and_apart(numbers: list[int]) -> None:
    """No two intervals touch, so that as few as possible are kept."""
    kept = SequenceSet()
    for number in numbers:
        kept.add(number)

    assert all(low <= high for low, high in zip(kept.lows, kept.highs, strict=True))
    assert all(high + 1 < low for high, low in zip(kept.highs, kept.lows[1:], strict=False))


def test_holes_beyond_the_bound_are_forgotten_from_the_oldest() -> None:
    """With more holes than are kept, the oldest count as filled, and no newer one does."""
    kept = SequenceSet()
    for number in range(0, 2 * MAX_INTERVALS + 20, 2):
        kept.add(number)

    assert MAX_INTERVALS == len(kept.lows)
    assert not kept.add(1)
    assert kept.add(2 * MAX_INTERVALS + 17)


def test_the_order_of_arrival_does_not_matter() -> None:
    """The same numbers give the same intervals in whatever order they came."""
    one, other = SequenceSet(), SequenceSet()
    for number in [5, 1, 2, 9, 3, 4, 0]:
        one.add(number)
    for number in [0, 9, 4, 5, 3, 2, 1]:
        other.add(number)

    assert one == other
    assert [0, 9] == one.lows
