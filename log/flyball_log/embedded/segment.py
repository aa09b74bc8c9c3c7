"""One segment file of a partition: its name, its index and reading from it.

A segment that was appended to is called after its first offset; one that compaction
wrote is called after the offsets it stands for, so that its name alone supersedes
the segments it was made from. Never writes.
"""

import os
import re
import threading
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

from flyball_core.errors import LogCorrupt
from flyball_log.embedded.records import Damage, parse
from flyball_log.embedded.scanning import Scan, scan
from flyball_log.interface import Record
from flyball_log.limits import MAX_OFFSET, MAX_RECORD_BYTES

_NAME = re.compile(r"([0-9]{20})(?:-([0-9]{20}))?\.seg")
_MOST_BYTES = 4 * 1024 * 1024
"""One read takes at most about so much."""
_LEAST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SegmentName:
    """First offset, and for a compacted segment the offset after those it stands for."""

    base: int
    covers: int | None = None

    @classmethod
    def of(cls, file: str) -> "SegmentName | None":
        """What a file's name says; None if it is no segment."""
        match = _NAME.fullmatch(file)
        if match is None or max(int(part) for part in match.groups("0")) > MAX_OFFSET:
            return None
        return cls(int(match[1]), int(match[2]) if match[2] else None)

    @property
    def place(self) -> tuple[int, int]:
        """What segments are sorted by: the one that compaction wrote stands behind the first it was made from."""
        return self.base, self.covers or 0

    def supersedes(self, other: "SegmentName") -> bool:
        """Whether this compacted segment was made from `other`."""
        return self.covers is not None and self.base <= other.base and (other.covers or other.base) < self.covers

    def __str__(self) -> str:
        return f"{self.base:020d}.seg" if self.covers is None else f"{self.base:020d}-{self.covers:020d}.seg"


class Segment:
    """A segment as its readers see it: the first `size` bytes of the file."""

    def __init__(self, folder: Path, name: SegmentName) -> None:
        self.name = name
        self.path = folder / str(name)
        self.size = 0
        self.records = 0
        self.indexed = False
        self._offsets: list[int] = []
        self._positions: list[int] = []
        self._damages: list[Damage] = []
        self._followed = (0, 0)
        """Up to which offset somebody has read, and where that stands: who follows goes on from there."""
        self._lock = threading.Lock()

    @property
    def base(self) -> int:
        """The first offset that can be in it."""
        return self.name.base

    def take(self, found: Scan) -> None:
        """Extend index and size by what a scan found (of the whole file, or from `size` on)."""
        self.mark(found.marks)
        self._damages += found.damages
        self.records += found.records
        self.size = found.end
        self.indexed = True

    def mark(self, marks: list[tuple[int, int]]) -> None:
        """Add entries to the index, in order."""
        for offset, position in marks:
            # Positions first: a reader in another thread looks an offset up, then its position.
            self._positions.append(position)
            self._offsets.append(offset)

    def index(self, until: int) -> None:
        """Build the index of a segment that is appended to no more; `until` is the next segment's base.

        Damage is noted, not raised. Raises `OSError` if the file cannot be read.
        """
        with self._lock:
            if self.indexed:
                return
            found = scan(self.path, self.base)
            if found.tail_bytes:
                found.damages.append(Damage(found.end, found.next_offset, until))
            self.take(found)

    @property
    def damaged(self) -> bool:
        """Whether the index knows of damage."""
        return bool(self._damages)

    def read(self, start: int, limit: int, into: list[Record]) -> bool:
        """Add records with offset >= `start` to `into`, up to `limit` in it or some MiB.

        True if that was the segment to its end; False if there is more, or a damaged record stopped it.
        Raises `LogCorrupt` at a damaged record if `into` is empty.
        """
        if hole := next((damage for damage in self._damages if damage.first <= start < damage.until), None):
            return self._stop(hole.position, hole.first, into)
        position = self._position_of(start)
        size, taken = self.size, 0
        wanted = (limit - len(into)) * (size // self.records + 1 if self.records else 0) + _LEAST_BYTES
        file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while position < size and len(into) < limit and taken < _MOST_BYTES:
                asked = min(wanted, _MOST_BYTES, size - position)
                buffer = os.pread(file, asked, position)
                end, damaged = parse(buffer, 0, start, limit, into)
                cut_off = not end and (len(buffer) < asked or position + asked >= size)
                if damaged or cut_off:
                    return self._stop(position + end, into[-1].offset + 1 if into else start, into)
                position += end
                taken += end
                wanted = wanted if end else 2 * MAX_RECORD_BYTES
        finally:
            os.close(file)
        if into:
            self._followed = into[-1].offset + 1, position
        tail = self._damages[-1] if self._damages else None
        if position < size:
            return False
        if tail and tail.position >= size and start < tail.until and len(into) < limit:
            return self._stop(tail.position, tail.first, into)
        return True

    def _position_of(self, start: int) -> int:
        """A position before which no record with offset >= `start` stands."""
        known = bisect_right(self._offsets, start) - 1
        position = self._positions[known] if known >= 0 else 0
        followed, further = self._followed
        return max(position, further) if start >= followed else position

    def _stop(self, position: int, offset: int, into: list[Record]) -> bool:
        if not into:
            raise LogCorrupt(str(self.path), offset, f"cannot be read at byte {position}")
        return False
