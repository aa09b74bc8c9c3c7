"""Two installed versions of Flyball: the release before, from its wheel, and the tree, from a wheel built of it.

Each lies in a folder of its own that Python looks in first. What both depend on comes from the environment that
the tests run in; of Flyball itself nothing does, and `Installed.python` lets a test see that. No network is used.
"""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASES = ROOT / "tests" / "data" / "releases"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """One version, installed in `folder`."""

    version: str
    folder: Path

    def call(self, *arguments: str | Path) -> Said:
        """`flyball ARGUMENTS` of this version."""
        return self._run("from flyball_cli.main import main; main()", *arguments)

    def python(self, program: str, *arguments: str | Path) -> str:
        """What a Python program prints that sees this version. Raises AssertionError if it fails."""
        said = self._run(program, *arguments)
        assert 0 == said.code, said.err
        return said.out

    def _run(self, program: str, *arguments: str | Path) -> Said:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The two that are held to each other."""

    older: Installed
    newer: Installed

    def other(self, one: Installed) -> Installed:
        """The one that it is not."""
        return self.newer if one is self.older else self.older


def released_wheel() -> Path:
    """The wheel of the release before: there is exactly one."""
    [wheel] = RELEASES.glob("flyball-*.whl")
    return wheel


def _module(*arguments: str | Path) -> None:
    """Run a module of the environment's own in the root of the tree. Raises AssertionError with what it said."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert 0 == done.returncode, f"{arguments}: {done.stdout}{done.stderr}"


def _install(wheel: Path, into: Path) -> Installed:
    _module(
        "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", into, wheel
    )
    return Installed(version=wheel.name.split("-")[1], folder=into)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """With every other worker of this session kept away."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Both versions, installed once for all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "installed"
    with _alone(folder):
        built = folder / "built"
        if not (folder / "done").exists():
            _module("hatchling", "build", "--target", "wheel", "--directory", built)
            _install(released_wheel(), folder / "older")
            [wheel] = built.glob("*.whl")
            _install(wheel, folder / "newer")
            (folder / "done").touch()
        [wheel] = built.glob("*.whl")
    return Versions(
        older=Installed(version=released_wheel().name.split("-")[1], folder=folder / "older"),
        newer=Installed(version=wheel.name.split("-")[1], folder=folder / "newer"),
    )
