"""Up to where a partition is known to be synced, beside its segments.

Written after every commit and not itself synced: after a killed process it is
exact, after a lost machine it may be older than the truth, never newer. A reader in another
process goes no further than this while a writer lives.
"""

import os
from pathlib import Path
from struct import Struct
from zlib import crc32

from flyball_log.limits import MAX_OFFSET

_FORM = Struct("<QI")
_NAME = "synced"


class Watermark:
    """The writer's end of it."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def put(self, end: int) -> None:
        """Say that every offset before `end` is synced. Raises `OSError`."""
        os.pwrite(self._fd, _FORM.pack(end, crc32(end.to_bytes(8, "little"))), 0)

    def close(self, *, sync: bool) -> None:
        """Release the file; `sync` puts it on the disk first."""
        try:
            if sync:
                os.fdatasync(self._fd)
        finally:
            os.close(self._fd)


def synced_end(folder: Path) -> int:
    """The offset before which everything was synced; 0 if that is not known."""
    try:
        data = (folder / _NAME).read_bytes()
    except OSError:
        return 0
    if len(data) != _FORM.size:
        return 0
    end, crc = _FORM.unpack(data)
    return int(end) if crc == crc32(end.to_bytes(8, "little")) and end <= MAX_OFFSET else 0
