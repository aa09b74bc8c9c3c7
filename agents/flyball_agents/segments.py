"""The bytes of a spool's segment: records one after another, each checked twice.

A record is a head (mark, length, checksum of the body, checksum of the head itself) and a body
(clocks, sequence number, boot, pool, payload). Because the head has a checksum of its own, a
record that was cut off while being written is told from one that was damaged later.
"""

import struct
import zlib
from typing import NamedTuple

from flyball_core.ids import BootId, PoolId

_MARK = b"FS"
_HEAD = struct.Struct("<2sII")
_CHECK = struct.Struct("<I")
_BODY = struct.Struct("<ddQHH")

HEAD_BYTES = _HEAD.size + _CHECK.size
"""Bytes of a record's head."""


class Stored(NamedTuple):
    """A record but for its payload, and where it lies."""

    boot: BootId
    pool: PoolId
    seq: int
    now_s: float
    wall_s: float
    offset: int
    size: int


class Scan(NamedTuple):
    """What a segment holds: the whole records, where its torn tail begins, and whether it is damaged."""

    records: list[Stored]
    torn_at: int | None
    damaged: bool


def encode(boot: BootId, pool: PoolId, seq: int, now_s: float, wall_s: float, payload: bytes) -> bytes:
    """One record."""
    names = boot.encode(), pool.encode()
    body = b"".join((_BODY.pack(now_s, wall_s, seq, len(names[0]), len(names[1])), *names, payload))
    head = _HEAD.pack(_MARK, len(body), zlib.crc32(body))
    return b"".join((head, _CHECK.pack(zlib.crc32(head)), body))


def decode(record: bytes) -> tuple[Stored, bytes]:
    """A record and its payload, its offset given as 0; raises ValueError if it is not whole."""
    length = _length(record, 0)
    if length is None or len(record) != HEAD_BYTES + length:
        raise ValueError("no whole record")
    stored = _stored(record, 0, length)
    if stored is None:
        raise ValueError("checksum does not match")
    return stored, record[HEAD_BYTES + _BODY.size + len(stored.boot.encode()) + len(stored.pool.encode()) :]


def scan(data: bytes) -> Scan:
    """Find every whole record, also behind damage."""
    records: list[Stored] = []
    damaged = False
    at = 0
    while at < len(data):
        rest = len(data) - at
        length = _length(data, at)
        if length is None:
            # Cut off within a head, or a size that reached the disk before its bytes did.
            if (rest < HEAD_BYTES and data[at : at + 2] == _MARK[:rest]) or not any(data[at:]):
                return Scan(records, at, damaged)
            damaged = True
            at = _next_head(data, at + 1)
            continue
        size = HEAD_BYTES + length
        if size > rest:
            return Scan(records, at, damaged)
        stored = _stored(data, at, length)
        if stored is None:
            damaged = True
        else:
            records.append(stored)
        at += size
    return Scan(records, None, damaged)


def _next_head(data: bytes, start: int) -> int:
    at = data.find(_MARK, start)
    while at >= 0 and _length(data, at) is None:
        at = data.find(_MARK, at + 1)
    return at if at >= 0 else len(data)


def _length(data: bytes, at: int) -> int | None:
    """The length that a sound head at `at` gives its body."""
    head = data[at : at + _HEAD.size]
    check = data[at + _HEAD.size : at + HEAD_BYTES]
    if len(check) < _CHECK.size or _CHECK.unpack(check)[0] != zlib.crc32(head):
        return None
    mark, length, _ = _HEAD.unpack(head)
    return int(length) if mark == _MARK else None


def _stored(data: bytes, at: int, length: int) -> Stored | None:
    body = data[at + HEAD_BYTES : at + HEAD_BYTES + length]
    if len(body) < _BODY.size or zlib.crc32(body) != _HEAD.unpack_from(data, at)[2]:
        return None
    now_s, wall_s, seq, of_boot, of_pool = _BODY.unpack_from(body)
    names = body[_BODY.size : _BODY.size + of_boot + of_pool]
    try:
        boot, pool = names[:of_boot].decode(), names[of_boot:].decode()
    except UnicodeDecodeError:
        return None
    return Stored(BootId(boot), PoolId(pool), seq, now_s, wall_s, at, HEAD_BYTES + length)
