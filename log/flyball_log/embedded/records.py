"""How a record lies in a segment file, and how a buffer of them is read.

    crc32  magic  key bytes  value bytes  batch  offset   key   value
    u32    2      u16        u32          u32    u64      ...   ...       (little endian)

The CRC covers everything after itself. `value bytes` is all ones for a tombstone.
`batch` is the position in the file at which the record's commit began: when that
commit was written, everything before this position had been synced, which tells a
torn tail from damage. Opens no file.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from flyball_log.interface import Entry, Record
from flyball_log.limits import MAX_KEY_BYTES, MAX_OFFSET, MAX_RECORD_BYTES

HEADER = struct.Struct("<I2sHIIQ")
_AFTER_CRC = struct.Struct("<2sHIIQ")
_MAGIC = b"\xf1B"
_MAGIC_AT = 4
_TOMBSTONE = 0xFFFFFFFF
INDEX_BYTES = 16 * 1024
"""An index has one entry for about so many bytes of a segment."""

Mark = tuple[int, int]
"""An entry of an index: an offset, and the position of the first record not before it."""


class Located(NamedTuple):
    """A whole, undamaged record in a buffer."""

    offset: int
    batch: int
    end: int
    """The position after it."""
    key: bytes
    tombstone: bool


class Damage(NamedTuple):
    """A stretch of a segment in which no record can be read."""

    position: int
    first: int
    """The first offset that may have been in it."""
    until: int
    """The next offset that can be read."""


def most_records(size: int) -> int:
    """The most records that can have been in `size` bytes."""
    return -(-size // HEADER.size)


def encode(entries: Sequence[Entry], offset: int, batch: int) -> tuple[bytes, list[Mark]]:
    """The bytes of `entries` from `offset` on, to be written at position `batch`, and marks for the index."""
    parts: list[bytes] = []
    marks: list[Mark] = []
    at, next_mark = batch, batch
    for key, value in entries:
        size = _TOMBSTONE if value is None else len(value)
        body = value or b""
        head = _AFTER_CRC.pack(_MAGIC, len(key), size, batch, offset)
        crc = crc32(body, crc32(key, crc32(head)))
        if at >= next_mark:
            marks.append((offset, at))
            next_mark = at + INDEX_BYTES
        parts += (crc.to_bytes(4, "little"), head, key, body)
        at += HEADER.size + len(key) + len(body)
        offset += 1
    return b"".join(parts), marks


def parse(buffer: bytes, at: int, start: int, limit: int, into: list[Record]) -> tuple[int, bool]:
    """Add the records from position `at` on with offset >= `start` to `into`, up to `limit` in it.

    Returns the position after the last whole record, and whether what stands there is damaged
    (rather than cut off by the buffer's end).
    """
    view, size, unpack, header = memoryview(buffer), len(buffer), HEADER.unpack_from, HEADER.size
    # A block that stands in the file twice must not be read twice.
    least = into[-1].offset + 1 if into else 0
    while len(into) < limit and size - at >= header:
        crc, magic, key_size, value_size, _, offset = unpack(buffer, at)
        key_at = at + header
        value_at = key_at + key_size
        end = value_at if value_size == _TOMBSTONE else value_at + value_size
        if magic != _MAGIC or key_size > MAX_KEY_BYTES or end - key_at > MAX_RECORD_BYTES + MAX_KEY_BYTES:
            return at, True
        if end > size:
            return at, False
        if crc32(view[at + 4 : end]) != crc or not least <= offset <= MAX_OFFSET:
            return at, True
        least = offset + 1
        if offset >= start:
            value = None if value_size == _TOMBSTONE else buffer[value_at:end]
            into.append(Record(offset, buffer[key_at:value_at], value))
        at = end
    return at, False


def locate(buffer: bytes, at: int) -> Located | None:
    """The record at position `at`, or None if there is no whole, undamaged one."""
    if len(buffer) - at < HEADER.size:
        return None
    crc, magic, key_size, value_size, batch, offset = HEADER.unpack_from(buffer, at)
    tombstone = value_size == _TOMBSTONE
    key_at = at + HEADER.size
    end = key_at + key_size + (0 if tombstone else value_size)
    # Sizes before checksums: what looks like a header within a damaged value must not cost a pass over the rest.
    if magic != _MAGIC or key_size > MAX_KEY_BYTES or end - key_at > MAX_RECORD_BYTES + MAX_KEY_BYTES:
        return None
    if end > len(buffer) or offset > MAX_OFFSET or crc32(memoryview(buffer)[at + 4 : end]) != crc:
        return None
    return Located(offset, batch, end, buffer[key_at : key_at + key_size], tombstone)


def search(buffer: bytes, after: int, least: int) -> int | None:
    """The position of the next whole record behind `after` with offset >= `least`, or None."""
    at = after
    while (found := buffer.find(_MAGIC, at + 1 + _MAGIC_AT)) >= 0:
        at = found - _MAGIC_AT
        record = locate(buffer, at)
        if record is not None and record.offset >= least:
            return at
    return None
