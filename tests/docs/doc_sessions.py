"""One bash in a folder of its own, which runs a page's commands in order, as a reader's terminal would.

Services that a page starts in the background live as long as the session and are ended with it, by their process
group. No command may take longer than its bound: a page that hangs is a page that is wrong.
"""

import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

COMMAND_S = 120.0
"""Longest time for one command."""

ENDING_S = 15.0
"""How long services have to end in good order."""


class Stuck(Exception):
    """A command that did not end within its bound, with what it had said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command said, both its streams as they came, and its exit code."""

    text: str
    code: int


class Session:
    """A bash that keeps its folder, variables and background jobs from command to command."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._stuck = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, command: str, *, bound_s: float = COMMAND_S) -> Said:
        """Run a command. Raises `Stuck` if it does not end in time."""
        mark = f"---{secrets.token_hex(8)}---"
        # Braces run it in this very shell, so that `cd` and `&` last; it has no keyboard to wait for.
        self._write(f"{{ {command}\n}} < /dev/null\nprintf '\\n%s %d\\n' '{mark}' $?\n")
        text = self._read_to(f"\n{mark} ", bound_s, command)
        said, _, code = text.rpartition(f"\n{mark} ")
        return Said(text=said, code=int(code))

    def close(self) -> None:
        """End whatever the page left running, at first by a request; then the shell."""
        if self._stuck:
            os.killpg(self._bash.pid, signal.SIGTERM)
        with suppress(OSError):
            self._write("kill $(jobs -p) 2> /dev/null; wait 2> /dev/null; exit\n")
        try:
            self._bash.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
            for pipe in (self._bash.stdin, self._bash.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _write(self, text: str) -> None:
        stdin = self._pipe(self._bash.stdin)
        stdin.write(text.encode())
        stdin.flush()

    def _read_to(self, mark: str, bound_s: float, command: str) -> str:
        """Everything up to the line that begins with the mark, that line included."""
        stdout, until = self._pipe(self._bash.stdout), time.monotonic() + bound_s
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not (mark.encode() in seen and seen.endswith(b"\n")):
                if not selector.select(max(until - time.monotonic(), 0.0)):
                    self._stuck = True
                    raise Stuck(f"did not end within {bound_s:g} s: {command}\n{seen.decode(errors='replace')}")
                read = os.read(stdout.fileno(), 65536)
                if not read:
                    raise Stuck(f"the shell ended at: {command}\n{seen.decode(errors='replace')}")
                seen += read
        return seen.decode(errors="replace").rstrip("\n")

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        assert pipe is not None
        return pipe
