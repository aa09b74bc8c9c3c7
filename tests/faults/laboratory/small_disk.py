"""A part on a disk of its own that is small: a file system in memory, which no other process sees.

It is mounted in a namespace of the part's own, as its user where the kernel allows that and as root otherwise, and
goes with the part. The part's process is the one that was started; from outside its disk is found through `/proc`.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

MODULE = "laboratory.small_disk"
"""What `Actors.add` is told as `module`."""
_UNSHARES = (("unshare", "--user", "--map-root-user", "--mount"), ("unshare", "--mount"))
"""Tried in this order: the first needs no privilege."""
_PIECE_BYTES = 4096


def words(folder: Path, megabytes: float, module: str, *arguments: str) -> tuple[str, ...]:
    """The arguments of a part that runs `main` of `module` with `folder` on a small disk."""
    return (str(folder), f"{megabytes:g}", module, *arguments)


def required() -> None:
    """Skip the test where there can be no such disk, or fail it if everything is required."""
    if _unshare() is None:
        why = "a small disk needs a mount namespace: neither `unshare --user --mount` nor `unshare --mount` works"
        if os.environ.get("FLYBALL_REQUIRE") == "all":
            pytest.fail(why)
        pytest.skip(why)


def seen_from_outside(pid: int, folder: Path) -> Path:
    """Where the process's folder is found by others."""
    return Path(f"/proc/{pid}/root") / folder.relative_to("/")


def fill(disk: Path, leave_bytes: int = 0) -> int:
    """Have a file take all room but so much; how many bytes it has then."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        while _free_bytes(disk) > leave_bytes:
            try:
                file.write(bytes(min(_PIECE_BYTES, _free_bytes(disk) - leave_bytes)))
            except OSError:
                break
        return file.tell()


def make_room(disk: Path) -> None:
    """Take that file away."""
    (disk / "ballast").unlink(missing_ok=True)


def _free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def _unshare() -> Sequence[str] | None:
    for command in _UNSHARES:
        try:
            tried = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
        except OSError:
            return None
        if tried.returncode == 0:
            return command
    return None


def main() -> None:
    """Mount, and become the part."""
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("megabytes", type=float)
    parser.add_argument("module")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    unshare = _unshare()
    if unshare is None:
        sys.exit("no small disk can be had here")
    Path(told.folder).mkdir(parents=True, exist_ok=True)
    size = f"size={int(told.megabytes * 1e6)},nr_inodes=10k"
    script = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
    part = [sys.executable, "-c", f"from {told.module} import main; main()", *told.arguments]
    os.execvp(unshare[0], [*unshare, "sh", "-c", script, "sh", size, told.folder, *part])
