"""The folder of an embedded log: what makes it one, and who may write to it.

Refuses a folder that holds something else, a format it does not know, and a second writer.
"""

import fcntl
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from flyball_core.errors import Fatal, LogUnavailable, NotALog, Rejected
from flyball_core.ids import LogId
from flyball_log.embedded import files
from flyball_log.interface import Topic
from flyball_log.limits import MAX_PARTITIONS, check_partitions

_FORMAT = 1
_META = "meta.json"
_LOCK = "lock"
_PATIENCE_S = 0.5
"""A reader holds the lock for a moment when it asks for a living writer; an opening writer waits that long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a log's folder says about itself."""

    log_id: LogId
    partitions: int


def partition_folder(folder: Path, topic: Topic, partition: int) -> Path:
    """Where a partition's segments are."""
    return folder / topic.value / str(partition)


def create_folder(folder: Path, partitions: int, created_s: float) -> Meta:
    """Make an empty log in `folder`, which must be absent, empty, or left by a creation that was broken off.

    Raises `Rejected` if it holds anything else, `LogUnavailable` if it cannot be written.
    """
    check_partitions(partitions)
    ours = {topic.value for topic in Topic} | {_META + ".tmp", _LOCK}
    meta = Meta(log_id=LogId(str(uuid.uuid4())), partitions=partitions)
    text = {"format": _FORMAT, "log_id": meta.log_id, "partitions": partitions, "created": created_s}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inside = {path.name for path in folder.iterdir()}
        if _META in inside:
            raise Rejected(f"{folder} already holds a log")
        if inside - ours:
            raise Rejected(f"{folder} is not empty and holds no log: {min(inside - ours)}")
        for topic in Topic:
            for partition in range(partitions):
                partition_folder(folder, topic, partition).mkdir(parents=True, exist_ok=True)
            files.sync_folder(folder / topic.value)
        # Last: a folder without it is no log, so a crash before this line leaves none.
        files.replace_atomically(folder / _META, json.dumps(text, indent=1).encode())
    except OSError as error:
        raise LogUnavailable(f"{folder}: cannot make a log here: {error.strerror or error}") from error
    return meta


def read_meta(folder: Path) -> Meta:
    """What the folder says about itself. Raises `NotALog`, `LogUnavailable`, or `Fatal` for a newer format."""
    try:
        text = (folder / _META).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "holds no log" if folder.is_dir() else "is no folder" if folder.exists() else "does not exist"
        raise NotALog(f"{folder} {what}") from error
    except OSError as error:
        raise LogUnavailable(f"{folder}: cannot read: {error.strerror or error}") from error
    try:
        said = json.loads(text)
        known, partitions = said["format"], said["partitions"]
        log_id = str(uuid.UUID(said["log_id"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotALog(f"{folder}: {_META} is not that of a log") from error
    if known != _FORMAT:
        raise Fatal(f"{folder} is a log of format {known}; this version of Flyball knows format {_FORMAT}")
    if type(partitions) is not int or not 1 <= partitions <= MAX_PARTITIONS:
        raise NotALog(f"{folder}: {_META} is not that of a log")
    return Meta(log_id=LogId(log_id), partitions=partitions)


def lock_for_writing(folder: Path) -> int:
    """Become the folder's one writer; the lock's descriptor. Raises `Fatal` if there is one already."""
    path = folder / _LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise LogUnavailable(f"{folder}: cannot write here: {error.strerror or error}") from error
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise Fatal(f"{folder} has a writer already (process {holder}); a log has one") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


def has_writer(folder: Path) -> bool:
    """Whether a living process has the folder open for writing. True if that cannot be told."""
    try:
        fd = os.open(folder / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
