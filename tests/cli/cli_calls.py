"""Calling `flyball` as its users do: in this process, or as the installed command."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from flyball_cli.main import cli
from flyball_core.errors import FlyballError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str = ""

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def call(*arguments: str | Path) -> Answer:
    """`flyball ARGUMENTS` in this process, ended as `main` ends it."""
    runner = CliRunner()
    done = runner.invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)
    if isinstance(done.exception, FlyballError):
        return Answer(code=2, out=done.stdout, err=f"flyball: {done.exception}\n")
    if done.exception is not None:
        raise done.exception
    code = done.return_value
    return Answer(code=code if isinstance(code, int) else 0, out=done.stdout, err=done.stderr)


def installed(*arguments: str | Path) -> Answer:
    """`flyball ARGUMENTS` as the command that is installed beside this interpreter."""
    command = Path(sys.executable).with_name("flyball")
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    return Answer(code=done.returncode, out=done.stdout, err=done.stderr)


def shape(value: Any, open_at: frozenset[str], key: str = "") -> Any:
    """The shape of a JSON value: its keys, all the way down; lists by their first entry.

    A mapping under a key of `open_at` has keys of its own choosing and counts as empty.
    """
    if value is None or isinstance(value, (str, int, float)) or (key in open_at and isinstance(value, dict)):
        return None
    if isinstance(value, list):
        return [shape(value[0], open_at)] if value else None
    return {name: shape(inner, open_at, name) for name, inner in value.items()}
