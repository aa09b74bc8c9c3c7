"""Finds or gets Prometheus and its promtool, for the tests that let Prometheus itself judge our pages.

    scripts/prometheus install     print the folder that holds both programs

What is on the path is used. Otherwise Debian's package is downloaded and unpacked under
.flyball/prometheus (or --dir): no root is needed, and no service is installed or started, which
the package's own scripts would do. Exits with 3 and one clear line where there is neither.
Standard library only. Starts nothing.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".flyball" / "prometheus"
PROGRAMS = ("prometheus", "promtool")
PACKAGE = "prometheus"
PATIENCE_S = 300
EXIT_PREREQUISITE = 3


class Missing(Exception):
    """What is not there and cannot be had, in one line."""


def has_programs(folder: Path) -> bool:
    """Whether both programs are in `folder`."""
    return all(shutil.which(program, path=str(folder)) for program in PROGRAMS)


def on_path() -> Path | None:
    """The folder on the path that holds both programs."""
    found = shutil.which(PROGRAMS[0])
    folder = Path(found).parent if found else None
    return folder if folder is not None and has_programs(folder) else None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others of this script out of `folder` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command: str, cwd: Path) -> str:
    """Run a program of the system; what it said, in one line, if it failed, else nothing. Raises `Missing`."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise Missing(
            f"there is no `{PROGRAMS[0]}` on the path, and no `{command[0]}` to get Debian's package"
        ) from error
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {PATIENCE_S} s"
    said = (done.stderr or done.stdout).strip().splitlines() or [f"{command[0]} ended with {done.returncode}"]
    return said[-1] if done.returncode else ""


def download(folder: Path) -> Path:
    """The package's file, freshly downloaded into `folder`. Raises `Missing`."""
    for old in folder.glob("*.deb"):
        old.unlink()
    trouble = run("apt-get", "download", "-q", PACKAGE, cwd=folder)
    if trouble and os.geteuid() == 0:  # a bare container has no lists of packages yet
        trouble = run("apt-get", "update", "-q", cwd=folder) or run("apt-get", "download", "-q", PACKAGE, cwd=folder)
    files = sorted(folder.glob("*.deb"))
    if trouble or not files:
        raise Missing(f"the package {PACKAGE} could not be downloaded: {trouble or 'apt-get left no file'}")
    return files[0]


def install(folder: Path) -> Path:
    """The folder with both programs: one on the path, else that of the package unpacked in `folder`."""
    found = on_path()
    if found is not None:
        return found
    unpacked = folder / "unpacked"
    programs = unpacked / "usr" / "bin"
    with alone(folder):
        if has_programs(programs):
            return programs
        package = download(folder)
        shutil.rmtree(unpacked, ignore_errors=True)
        trouble = run("dpkg", "-x", str(package), str(unpacked), cwd=folder)
        package.unlink()
        if trouble or not has_programs(programs):
            raise Missing(f"the package {PACKAGE} could not be unpacked: {trouble or 'it holds no such programs'}")
    return programs


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(description="Find or get Prometheus and promtool.")
    parser.add_argument("verb", choices=["install"])
    parser.add_argument("--dir", type=Path, default=HOME, help="where an unpacked package is kept")
    asked = parser.parse_args()
    try:
        print(install(asked.dir.resolve()))
    except Missing as error:
        print(f"prometheus: {error}", file=sys.stderr)
        return EXIT_PREREQUISITE
    return 0


if __name__ == "__main__":
    sys.exit(main())
