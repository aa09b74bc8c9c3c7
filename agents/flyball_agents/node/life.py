"""The agent's folder and its boots: one process at a time, and no boot id twice.

A boot id is a number that grows with every start, so that people see an order, and a random part,
so that it is a new one even where the folder was lost, or the disk is full.
"""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from flyball_core.errors import Fatal
from flyball_core.ids import BootId
from flyball_log.embedded.files import replace_atomically

_LOCK, _BOOT = "lock", "boot"
_MOST_DIGITS = 12
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger()


@contextmanager
def one_life(folder: Path) -> Iterator[BootId]:
    """Be the one agent of this folder, under a boot id that is recorded there before it is used.

    On a full disk the number is not recorded and the next life has it too, with another random part. Raises
    `Fatal` if another process is the one, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise Fatal(f"{folder}: cannot write here: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(f"{folder} is used by another agent already; each needs a folder of its own") from None
        yield _next_boot(folder / _BOOT)
    finally:
        os.close(lock)


def _next_boot(path: Path) -> BootId:
    number = 0
    with contextlib.suppress(OSError, ValueError):
        number = int(path.read_text("ascii")[:_MOST_DIGITS])
    try:
        replace_atomically(path, f"{number + 1}\n".encode())
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise Fatal(f"{path}: cannot be written: {error.strerror or error}") from error
        log.warning("boot_not_recorded", file=str(path), why=error.strerror)
    return BootId(f"{number + 1}-{secrets.token_hex(4)}")
