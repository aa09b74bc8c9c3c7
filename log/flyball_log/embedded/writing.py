"""The writer's side of a partition: commits, segments, recovery, retention.

Called from one thread at a time, except `compact`, which may run beside the others. An append
that fails leaves the log as it was; its bytes are cut off before the next one.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flyball_core.errors import LogUnavailable
from flyball_log.embedded import files
from flyball_log.embedded.compaction import compact_segments
from flyball_log.embedded.partition import PartitionReader, list_segments
from flyball_log.embedded.records import encode, most_records
from flyball_log.embedded.scanning import scan, settle
from flyball_log.embedded.segment import Segment, SegmentName
from flyball_log.embedded.settings import Durability, EmbeddedSettings, Retention
from flyball_log.embedded.watermark import Watermark, synced_end
from flyball_log.interface import Entry, Topic

_RETENTION_CHECK_S = 60.0
_SEGMENTS_PER_AGE = 8
"""A segment is closed after this part of the longest age, so that removing whole ones is fine enough."""
_LOOK_SHARE = 1 / 16
"""Of what compaction waits for at least: whether it is due is looked at each time that so much was appended."""
_LOST = b"synced records were lost here"


class PartitionWriter(PartitionReader):
    """A partition as its one writer holds it. Opening it repairs what a crash left behind."""

    def __init__(self, folder: Path, topic: Topic, settings: EmbeddedSettings) -> None:
        super().__init__(folder)
        self._settings = settings
        self._compacted = topic.compacted
        self._retention: Retention | None = None if topic.compacted else settings.retention.get(topic)
        self._fsync = settings.durability is Durability.FSYNC
        self._fd = -1
        self._dirty_tail = False
        """Whether bytes of a failed commit may stand behind the last segment's end."""
        self._new_base: int | None = None
        """Offset at which a new segment must begin before anything is appended."""
        self._began_s = self._checked_s = settings.clock()
        self._compacting = False
        self._compact_bytes = settings.compact_bytes
        self._unlooked = settings.compact_bytes
        """Bytes appended since `compaction_due` last looked at the files."""
        self._watermark = Watermark(folder)
        self.torn_bytes = self._recover()

    def _recover(self) -> int:
        """Bring the folder in order; the number of bytes that a commit without end had left."""
        for left in self.folder.glob("*.tmp"):
            left.unlink()
        names, superseded = list_segments(self.folder)
        for name in superseded:
            (self.folder / str(name)).unlink()
        if not names:
            # Segments may be gone that the watermark still knows of: their offsets are not used again.
            self._end = synced_end(self.folder)
            self._segments = (Segment(self.folder, SegmentName(self._end)),)
            self._fd = files.create(self._segments[-1].path)
            self._segments[-1].indexed = True
            self._sync_folder()
            self._watermark.put(self._end)
            return 0
        self._segments = tuple(Segment(self.folder, name) for name in names)
        return self._recover_last(self._segments[-1])

    def _recover_last(self, last: Segment) -> int:
        found = scan(last.path, last.base)
        lost = settle(found, synced_end(self.folder))
        last.take(found)
        self._end = max(found.next_offset, last.name.covers or 0)
        self._fd = files.open_existing(last.path)
        tail, torn = found.tail_bytes, 0
        if lost and not tail:
            files.write_at(self._fd, _LOST, found.end)  # so that no later open takes the gap for a hole
        elif tail and not lost:
            self._dirty_tail, torn = True, tail
        if lost or tail or last.name.covers is not None:
            # No offset is used twice: skip every one that can have been in the bytes given up.
            self._end += most_records(tail)
            self._new_base = self._end
        with suppress(OSError):  # a full disk must not prevent start-up; the next append tries again
            self._make_ready()
            self._watermark.put(self._end)
        return torn

    def _make_ready(self) -> None:
        """Do what an earlier failure left to be done, so that the next commit can be written."""
        if self._dirty_tail:
            files.cut(self._fd, self._segments[-1].size)
            self._dirty_tail = False
        if self._new_base is not None:
            self._roll(self._new_base)
            self._new_base = None

    def _sync_folder(self) -> None:
        if self._fsync:
            files.sync_folder(self.folder)

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Write and sync `entries`; their offsets. Raises `LogUnavailable`, and then nothing was appended."""
        try:
            self._make_ready()
            self._roll_if_due()
            return self._commit(entries)
        except OSError as error:
            self.retain()  # may make room for the next one
            raise LogUnavailable(f"{self.folder}: cannot append: {error.strerror or error}") from error

    def _commit(self, entries: Sequence[Entry]) -> list[int]:
        segment, first = self._segments[-1], self._end
        data, marks = encode(entries, first, segment.size)
        try:
            files.write_at(self._fd, data, segment.size)
            if self._fsync:
                files.sync(self._fd)
        except OSError:
            # After a failed sync the kernel may call lost pages clean, so the bytes must be written anew.
            self._dirty_tail = True
            with suppress(OSError):
                self._make_ready()
            raise
        segment.mark(marks)
        segment.records += len(entries)
        segment.size += len(data)
        self._unlooked += len(data)
        self._end = first + len(entries)
        with suppress(OSError):  # an old watermark only makes a later recovery more careful
            self._watermark.put(self._end)
        return list(range(first, self._end))

    def _roll_if_due(self) -> None:
        segment, now = self._segments[-1], self._settings.clock()
        if not segment.size:
            self._began_s = now
            return
        aged = self._retention is not None and now - self._began_s > self._retention.max_age_s / _SEGMENTS_PER_AGE
        if aged or segment.size >= self._settings.segment_bytes:
            self._roll(self._end)
        if self._retention is not None and not 0 <= now - self._checked_s < _RETENTION_CHECK_S:
            self._checked_s = now
            self.retain()

    def _roll(self, base: int) -> None:
        """Begin a new segment at offset `base` and close the last one."""
        closing, now = self._segments[-1], self._settings.clock()
        segment = Segment(self.folder, SegmentName(base))
        fd = files.create(segment.path)
        segment.indexed = True
        self._sync_folder()
        with self._changing:
            self._segments = (*self._segments, segment)
        os.close(self._fd)
        self._fd, self._began_s = fd, now
        self._stamp(closing)
        self.retain()

    def _stamp(self, segment: Segment) -> None:
        """Keep the time of a segment's last append, by the log's clock, where retention finds it again."""
        with suppress(OSError):
            now = self._settings.clock()
            os.utime(segment.path, (now, now))

    def retain(self) -> None:
        """Remove the oldest segments beyond the retention; needs no space on the disk."""
        if self._retention is None:
            return
        with suppress(OSError), self._changing:
            sizes = [segment.path.stat().st_size for segment in self._segments]
            while len(self._segments) > 1:
                oldest = self._segments[0]
                age_s = self._settings.clock() - oldest.path.stat().st_mtime
                if sum(sizes) <= self._retention.max_bytes and age_s <= self._retention.max_age_s:
                    return
                self._segments = self._segments[1:]
                sizes.pop(0)
                oldest.path.unlink()

    def _missed(self) -> None:
        """The list of segments is always right here: the reader only had an older one."""

    def compaction_due(self) -> bool:
        """Whether to call `compact` now; if so, the last segment has been closed for it."""
        if not self._compacted or self._compacting or self._unlooked < self._settings.compact_bytes * _LOOK_SHARE:
            return False
        self._unlooked = 0
        clean = sum(segment.path.stat().st_size for segment in self._segments if segment.name.covers is not None)
        dirty = self._dirty_bytes()
        if dirty < self._compact_bytes or dirty < self._settings.dirty_ratio * (clean + dirty):
            return False
        try:
            if self._segments[-1].size:
                self._roll(self._end)
        except OSError:
            return False
        self._compacting = True
        return True

    def _dirty_bytes(self) -> int:
        return sum(segment.path.stat().st_size for segment in self._segments if segment.name.covers is None)

    def compact(self) -> None:
        """Keep only the last record of each key in the closed segments. Raises `LogUnavailable`, `LogCorrupt`.

        A tombstone is kept through the round that first meets it. Offsets do not change.
        """
        self._compact_bytes = 2 * self._dirty_bytes()  # until it succeeds: a failing one must not run all the time
        try:
            closed = self._segments[:-1]
            if closed:
                self._compact(closed, self._segments[-1].base)
            self._compact_bytes = self._settings.compact_bytes
        except OSError as error:
            raise LogUnavailable(f"{self.folder}: cannot compact: {error.strerror or error}") from error
        finally:
            self._compacting = False

    def _compact(self, closed: tuple[Segment, ...], end: int) -> None:
        merged = compact_segments(self.folder, closed, end, sync=self._fsync)
        with self._changing:
            self._segments = (merged, *self._segments[len(closed) :])
        for segment in closed:
            if segment.name != merged.name:
                segment.path.unlink()
        self._sync_folder()

    def close(self) -> None:
        """Release the files."""
        self._stamp(self._segments[-1])
        with suppress(OSError):
            self._watermark.close(sync=self._fsync)
        os.close(self._fd)
