"""The parts of a fleet as real processes that a test starts, freezes, kills and starts again.

Each is ended by its own id, frozen or not, when the `with` that it was started in is left. How long to wait for
what is the test's affair.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from inspect import isawaitable
from os import kill
from pathlib import Path
from typing import Any, Self

from flyball_cli.processes import FLYBALL, Process

HERE = Path(__file__).resolve().parent
TESTS = (HERE.parent, HERE.parent.parent)
"""Where modules of the laboratory and of the tests' harness are found."""


class Actor:
    """One part: the same command with the same files, however often it is started."""

    def __init__(
        self,
        name: str,
        arguments: tuple[str, ...],
        folder: Path,
        module: str = FLYBALL,
        paths: Sequence[Path] = TESTS,
    ) -> None:
        """`module` is one whose `main` is run with `arguments`; the installed command unless told otherwise.

        `paths` are where Python looks first: another version of Flyball, if need be.
        """
        self.name = name
        self._paths = paths
        self._arguments = arguments
        self._folder = folder
        self._module = module
        self._process: Process | None = None
        self.frozen = False
        self.starts = 0

    @property
    def process(self) -> Process:
        """The process that runs, or ran last. Raises AssertionError before the first start."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def running(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self._process is not None and self._process.running

    @property
    def lines(self) -> str:
        """Everything that it wrote, in all its lives."""
        file = self._folder / f"{self.name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start it. Raises AssertionError if it runs."""
        assert not self.running, f"{self.name} runs already"
        self._process = Process(
            self.name, self._arguments, self._folder / f"{self.name}.log", self._module, self._paths
        )
        self.frozen = False
        self.starts += 1

    def kill(self) -> None:
        """End it as a crash would; nothing if it does not run."""
        if self.running:
            self.process.kill()
        self.frozen = False

    def freeze(self) -> None:
        """Have it stand still, its sockets open."""
        kill(self.process.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        kill(self.process.pid, signal.SIGCONT)
        self.frozen = False

    def stop(self) -> int:
        """Ask it to end; its exit code. One that is frozen is killed."""
        if self.frozen:
            self.kill()
        return self.process.stop()

    def rss_bytes(self) -> int:
        """Memory it holds now."""
        return self.process.rss_bytes()

    def descriptors(self) -> int:
        """Files and sockets it has open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


class Actors:
    """Several parts in one folder, ended together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: dict[str, Actor] = {}

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all that run, frozen or not."""
        for actor in reversed(self.all.values()):
            actor.kill()

    def add(self, name: str, *arguments: str, module: str = FLYBALL, paths: Sequence[Path] = TESTS) -> Actor:
        """A part that runs `flyball ARGUMENTS`, or the `main` of another module; not started yet."""
        self.all[name] = Actor(name, arguments, self.folder, module, paths)
        return self.all[name]

    def start(self, name: str, *arguments: str, module: str = FLYBALL, paths: Sequence[Path] = TESTS) -> Actor:
        """The same, started."""
        actor = self.add(name, *arguments, module=module, paths=paths)
        actor.start()
        return actor


async def until(what: str, ask: Callable[[], Any], within_s: float, *, every_s: float = 0.1) -> Any:
    """What `ask`, which may be a coroutine function, gives as soon as it is true. AssertionError after `within_s`."""
    end_s = time.monotonic() + within_s
    while True:
        found = ask()
        found = await found if isawaitable(found) else found
        if found:
            return found
        assert time.monotonic() <= end_s, f"within {within_s:g} s there was not: {what}; the last answer was {found!r}"
        await asyncio.sleep(every_s)
