"""Whether files have changed, told without reading them.

For files that others exchange while we run, such as renewed certificates. Reads nothing and watches nothing:
whoever is about to use the files asks.
"""

from collections.abc import Iterable
from pathlib import Path

Marks = tuple[tuple[int, int, int], ...]
"""Inode, time of change and size of each file; zeros for one that is not there."""


def marks_of(files: Iterable[Path]) -> Marks:
    """What tells this version of the files from any other; links are followed. Never raises."""
    marks = []
    for file in files:
        try:
            stat = file.stat()
        except OSError:
            marks.append((0, 0, 0))
        else:
            marks.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(marks)
