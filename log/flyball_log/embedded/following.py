"""Reading a log that another process may be writing.

While a writer lives, goes as far as it says it has synced; without one, as far as
the files are intact. Holds no lock, so it never keeps a writer out.
"""

from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from flyball_log.embedded.folder import has_writer
from flyball_log.embedded.partition import PartitionReader
from flyball_log.embedded.watermark import synced_end

FOLLOW_S = 0.05
"""How often a waiting reader looks for more."""
_ASK_S = 1.0
"""How often it is asked whether the writer still lives."""


class Follower:
    """Keeps the partitions of a log opened read-only up to date."""

    def __init__(self, folder: Path, readers: Iterable[PartitionReader]) -> None:
        self._folder = folder
        self._readers = list(readers)
        self._asked_s = monotonic()
        lives = has_writer(folder)
        for reader in self._readers:
            reader.refresh(synced_end(reader.folder) if lives else None)

    def look(self, reader: PartitionReader) -> None:
        """See what is new in `reader`'s partition; cheap if nothing is. Raises `LogUnavailable`."""
        synced = synced_end(reader.folder)
        if synced > reader.bounds().end:
            reader.refresh(synced)
        elif monotonic() - self._asked_s >= _ASK_S:
            self._asked_s = monotonic()
            if not has_writer(self._folder):
                for each in self._readers:
                    each.refresh(None)
