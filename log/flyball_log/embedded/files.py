"""The only calls that change files of a log; everything above is decided elsewhere.

Each either succeeds or raises `OSError`. Tests put a full or failing disk here.
"""

import os
from pathlib import Path


def write_at(fd: int, data: bytes, position: int) -> None:
    """Write all of `data` at `position`."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view = view[written:]
        position += written


def sync(fd: int) -> None:
    """Wait until the file's data, and what is needed to find it, are on the disk."""
    os.fdatasync(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create(path: Path) -> int:
    """Make a new, empty file for reading and writing; its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)


def open_existing(path: Path) -> int:
    """Open a file for reading and writing; its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def cut(fd: int, size: int) -> None:
    """Shorten the file to `size` bytes."""
    os.ftruncate(fd, size)


def replace_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a crash leaves the old content or the new, and sync it."""
    beside = path.with_name(path.name + ".tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        write_at(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.replace(path)
    sync_folder(path.parent)
