"""The newest reading of a source that reads in the background, handed over once.

A reading that was handed over already is not passed off as a new one: a counter that stood still
only because nobody read it would look like an engine that stood still.
"""

from flyball_agents.sampling import Reading
from flyball_core.errors import Retryable


class NothingNew(Retryable):
    """The source has not read anything since it was last asked."""


class Newest:
    """One reading, or none. Putting and taking may happen in different threads."""

    def __init__(self) -> None:
        self._reading: Reading | None = None

    def put(self, reading: Reading) -> None:
        """Take a reading that is newer than all before."""
        self._reading = reading

    def take(self) -> Reading:
        """The newest reading; raises `NothingNew` if it was taken already or there is none."""
        reading, self._reading = self._reading, None
        if reading is None:
            raise NothingNew("nothing was read since the last sample")
        return reading
