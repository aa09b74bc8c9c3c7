"""Folders of embedded logs as tests make, copy and look into them."""

import shutil
from pathlib import Path

from flyball_log import Entry, Log, Record, Topic, scan
from flyball_log.embedded import Durability, EmbeddedSettings

QUICK = EmbeddedSettings(durability=Durability.OS)
"""No waiting for the disk, no threads."""


def entry(number: int, size: int = 8) -> Entry:
    """An entry that tells its number."""
    return Entry(b"key-%d" % number, (b"%d." % number) * size)


def segments(folder: Path, topic: Topic = Topic.INPUTS, partition: int = 0) -> list[Path]:
    """The segment files of a partition, in order."""
    return sorted((folder / topic.value / str(partition)).glob("*.seg"))


async def everything(log: Log, topic: Topic = Topic.INPUTS, partition: int = 0) -> list[Record]:
    """Every record of a partition."""
    return [record async for records in scan(log, topic, partition) for record in records]


def copy(folder: Path, to: Path) -> Path:
    """The folder as it is now, as a crash at this moment would leave it to the next process."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to
