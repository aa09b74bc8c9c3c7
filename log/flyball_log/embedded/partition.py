"""The segments of one partition as a reader sees them.

Every reader, the writer's own included, sees synced records only. A reader that is not the
writer looks again when it reaches its end. Changes no file.
"""

import threading
from bisect import bisect_right
from pathlib import Path

from flyball_core.errors import LogUnavailable, OffsetGone
from flyball_log.embedded.scanning import scan, settle
from flyball_log.embedded.segment import Segment, SegmentName
from flyball_log.embedded.watermark import synced_end
from flyball_log.interface import Bounds, Record

_ATTEMPTS = 5


def list_segments(folder: Path) -> tuple[list[SegmentName], list[SegmentName]]:
    """The segments of a folder in order, and those that a compacted one has superseded."""
    found = [name for file in folder.iterdir() if (name := SegmentName.of(file.name))]
    names = sorted(found, key=lambda name: name.place)
    compacted = [name for name in names if name.covers is not None]
    gone = [name for name in names if any(other.supersedes(name) for other in compacted)]
    return [name for name in names if name not in gone], gone


class PartitionReader:
    """Reads a partition that another process may be writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: tuple[Segment, ...] = ()
        self._end = 0
        self._changing = threading.Lock()
        """Held while the list of segments is exchanged; readers take the list as it is."""

    def bounds(self) -> Bounds:
        """First offset kept and next offset, synced records only."""
        segments, end = self._segments, self._end
        return Bounds(segments[0].base if segments else 0, end)

    def hot(self, start: int) -> bool:
        """Whether reading from `start` touches only what was written last, so that no disk is waited for."""
        segments = self._segments
        return not segments or start >= segments[-1].base

    def read(self, start: int, limit: int) -> list[Record]:
        """Up to `limit` records with offset >= `start`. Raises `OffsetGone`, `LogCorrupt`, `LogUnavailable`."""
        for _ in range(_ATTEMPTS):
            segments, end = self._segments, self._end
            if segments and start < segments[0].base:
                raise OffsetGone(start, segments[0].base)
            if start >= end:
                return []
            try:
                return self._read(segments, start, limit)
            except FileNotFoundError:
                self._missed()  # compaction or retention took a segment away meanwhile
            except OSError as error:
                raise LogUnavailable(f"{self.folder}: cannot read: {error}") from error
        raise LogUnavailable(f"{self.folder}: segments vanish while they are read")

    def _read(self, segments: tuple[Segment, ...], start: int, limit: int) -> list[Record]:
        into: list[Record] = []
        first = max(bisect_right(segments, start, key=lambda segment: segment.base) - 1, 0)
        for at in range(first, len(segments)):
            segment = segments[at]
            if at + 1 < len(segments):
                segment.index(segments[at + 1].base)
            if not segment.read(start, limit, into):
                break
        return into

    def _missed(self) -> None:
        self.refresh(self._end)

    def refresh(self, stop: int | None) -> None:
        """Look at the folder again; offsets before `stop` are known to be synced; None: see everything intact.

        Raises `LogUnavailable` if the folder cannot be read.
        """
        with self._changing:
            for _ in range(_ATTEMPTS):
                try:
                    self._look(stop)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise LogUnavailable(f"{self.folder}: cannot read: {error}") from error
                return
            raise LogUnavailable(f"{self.folder}: segments vanish while they are read")

    def _look(self, stop: int | None) -> None:
        names, _ = list_segments(self.folder)
        if not names:
            return
        known = {segment.name: segment for segment in self._segments[:-1]}
        last = Segment(self.folder, names[-1])
        if self._segments and self._segments[-1].name == names[-1]:
            last = self._segments[-1]
        found = scan(last.path, max(last.base, self._end if last.indexed else 0), position=last.size, stop=stop)
        settle(found, synced_end(self.folder) if stop is None else stop)
        last.take(found)
        segments = [known.get(name) or Segment(self.folder, name) for name in names[:-1]]
        self._segments = (*segments, last)
        self._end = max(self._end, found.next_offset)
