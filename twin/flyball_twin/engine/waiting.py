"""The requests that wait in an engine, ordered by priority instead of by arrival.

A `deque` is the other order. This one answers to the same words, so that the scheduler
need not know which it has: the next at [0], and at `appendleft` a preempted request goes
back to where its priority and arrival put it, as in vLLM. It refuses to change the place
of what waits.
"""

from bisect import insort
from collections.abc import Iterable, Iterator

from flyball_twin.engine.sequences import Sequence


def urgency(sequence: Sequence) -> tuple[int, float, int]:
    """What goes first has the lowest: by priority, then by arrival."""
    request = sequence.request
    return request.priority, sequence.arrived_s, request.id


class ByPriority:
    """A queue in the order of `urgency`."""

    __slots__ = ("_sequences",)

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def append(self, sequence: Sequence) -> None:
        """Take one in."""
        insort(self._sequences, sequence, key=urgency)

    appendleft = append

    def extend(self, sequences: Iterable[Sequence]) -> None:
        """Take several in."""
        for sequence in sequences:
            self.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Drop one. Raises `ValueError` if it is not there."""
        self._sequences.remove(sequence)

    def __getitem__(self, index: int) -> Sequence:
        return self._sequences[index]

    def __contains__(self, sequence: object) -> bool:
        return sequence in self._sequences

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)
