"""Compaction: of many closed segments one, with the last record of each key.

A crash at any moment leaves either the old segments or the new one: it is written beside
them, synced, and only its final name supersedes them. Refuses to touch damaged segments:
what cannot be read cannot be known to be outdated.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from flyball_core.errors import LogCorrupt
from flyball_log.embedded import files
from flyball_log.embedded.records import Located, locate
from flyball_log.embedded.segment import Segment, SegmentName

_WRITE_BYTES = 1024 * 1024


def _records(segment: Segment) -> Iterator[tuple[Located, bytes, int]]:
    """Each record with the buffer it is in and its position there."""
    buffer = segment.path.read_bytes()
    at, offset = 0, segment.base
    while at < len(buffer):
        record = locate(buffer, at)
        if record is None:
            raise LogCorrupt(str(segment.path), offset, f"cannot be read at byte {at}; not compacted")
        yield record, buffer, at
        at, offset = record.end, record.offset + 1


def _last_offsets(segments: Sequence[Segment]) -> dict[bytes, int]:
    return {record.key: record.offset for segment in segments for record, _, _ in _records(segment)}


def _kept(segments: Sequence[Segment]) -> Iterator[bytes]:
    """The bytes of the records to keep, as they are."""
    last = _last_offsets(segments)
    # What the round before has seen: tombstones in there have been kept for one round already.
    seen = segments[0].name.covers or segments[0].base
    for segment in segments:
        for record, buffer, at in _records(segment):
            if last[record.key] == record.offset and not (record.tombstone and record.offset < seen):
                yield buffer[at : record.end]


def compact_segments(folder: Path, segments: Sequence[Segment], end: int, *, sync: bool) -> Segment:
    """Write the one segment that stands for `segments`, which end before offset `end`, and name it.

    The old ones may be removed afterwards. Raises `OSError`, `LogCorrupt`; then nothing has changed.
    """
    merged = Segment(folder, SegmentName(segments[0].base, end))
    if merged.name == segments[0].name:
        return segments[0]
    beside = merged.path.with_name(merged.path.name + ".tmp")
    newest = segments[-1].path.stat()
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            _write(fd, _kept(segments))
            if sync:
                files.sync(fd)
        finally:
            os.close(fd)
        os.utime(beside, ns=(newest.st_atime_ns, newest.st_mtime_ns))
        beside.replace(merged.path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if sync:
        files.sync_folder(folder)
    return merged


def _write(fd: int, parts: Iterator[bytes]) -> None:
    position, held, size = 0, [], 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= _WRITE_BYTES:
            files.write_at(fd, b"".join(held), position)
            position, held, size = position + size, [], 0
    files.write_at(fd, b"".join(held), position)
