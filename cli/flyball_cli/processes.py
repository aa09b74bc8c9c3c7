"""Flyball's services as processes of their own, started and ended by the command that needs them.

Each is the installed `flyball` with its arguments, its log lines in a file. It is ended by its id and nothing
else is. Linux only where CPU time and memory are asked for.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import aiohttp

from flyball_core.errors import Fatal, Retryable

READY_S = 30.0
"""Longest wait until a service says that it is ready."""
STOP_S = 10.0
"""Longest wait for a service that was asked to end; then it is killed."""
_LOOK_S = 0.1
_LAST_LINES = 12


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


FLYBALL = "flyball_cli.main"
"""The module of the installed command."""


class Process:
    """One running `flyball ARGUMENTS`; `name` is what messages call it. Raises `Fatal` if it cannot be started.

    `module` is another module of ours whose `main` is run instead; `paths` are where Python looks first.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], lines: Path, module: str = FLYBALL, paths: Sequence[Path] = ()
    ) -> None:
        self.name = name
        self.lines = lines
        command = [sys.executable, "-c", f"from {module} import main; main()", *arguments]
        looked_in = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])
        around = {**os.environ, "PYTHONPATH": looked_in} if paths else None
        with lines.open("ab") as out:
            try:
                self._child = subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=around
                )
            except OSError as error:
                raise Fatal(f"{name} could not be started: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    async def ready(self, http: str, within_s: float = READY_S, path: str = "/ready") -> None:
        """Wait until GET `path` at HOST:PORT answers 200.

        Raises `Fatal` if it ends first, `Retryable` if it takes too long.
        """
        until_s = time.monotonic() + within_s
        said = "nothing"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
            while time.monotonic() < until_s:
                if not self.running:
                    raise Fatal(f"{self.name} ended with exit code {self._child.returncode}:\n{self.last_lines()}")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"http://{http}{path}") as answer:
                        if answer.status == 200:
                            return
                        said = await answer.text()
                await asyncio.sleep(_LOOK_S)
        raise Retryable(f"{self.name} was not ready within {within_s:g} s; it said {said}\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self.lines.read_text(errors="replace").splitlines()[-_LAST_LINES:])

    def cpu_s(self) -> float:
        """CPU seconds it has used so far, threads included."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Memory it holds now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_rss_bytes(self) -> int:
        """The most memory it has held since it was started."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(kilobytes) * 1024

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._child.kill()
        self._child.wait()

    def stop(self, within_s: float = STOP_S) -> int:
        """Ask it to end, kill it if it does not in time; its exit code."""
        if self.running:
            self._child.terminate()
            try:
                self._child.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self._child.returncode)


class Processes:
    """Several processes, the last started ended first, whatever happens between."""

    def __init__(self, folder: Path) -> None:
        """`folder` takes their lines, one file each."""
        self._folder = folder
        self.started: list[Process] = []

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all that run."""
        for process in reversed(self.started):
            process.stop()

    def start(self, name: str, *arguments: str, module: str = FLYBALL) -> Process:
        """Start `flyball ARGUMENTS`, or the `main` of another module; its lines go to NAME.log."""
        process = Process(name, arguments, self._folder / f"{name}.log", module)
        self.started.append(process)
        return process
