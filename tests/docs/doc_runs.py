"""One run of a page: its blocks in order, in one folder and one shell, on ports of its own.

What a block needs is brought about when the first block asks for it. What differs from the page is said with the
page's line, the command, what is shown there and what was seen.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from doc_blocks import ROOT, BadPage, Block, Run, blocks_of
from doc_ports import Ports
from doc_sessions import Said, Session
from doc_transcripts import Step, agrees, steps_of

FLEET_PAGE = "docs/laptop.md"
"""The page whose files make the fleet that other pages are run on."""

CONTROLLER, KAFKA = 7460, 9092
REPEAT_S = 0.5
READY_S = 40


class Differs(Exception):
    """A page that shows something else than what is."""


class PageRun:
    """The state that the blocks of one page share."""

    def __init__(self, page: str, folder: Path, broker: Callable[[], str]) -> None:
        self._page = page
        self._folder = folder
        self._broker = broker
        self._ports = Ports()
        self._sessions: dict[Path, Session] = {}
        self._done: set[str] = set()

    def close(self) -> None:
        """End everything that the page left running."""
        for session in self._sessions.values():
            session.close()

    def run(self, block: Block, run: Run) -> None:
        """Run one block. Raises `Differs`, or `BadPage` for a block that makes no sense in its setting."""
        if run.file:
            (self._folder / run.file).write_text(self._ports.in_text(block.text), encoding="utf-8")
        if run.setting == "file":
            if not run.file:
                raise BadPage(f"{block.where}: a file needs a name: `file NAME`")
        elif run.setting in _CHECKED:
            self._check(block, run)
        else:
            self._console(block, run)

    def no_service_raised(self) -> None:
        """What services wrote to the page's log files holds no traceback. Raises `Differs`."""
        for log in sorted(self._folder.rglob("*.log")):
            text = log.read_text(encoding="utf-8", errors="replace")
            if "Traceback (most recent call last)" in text:
                raise Differs(f"{self._page}: {log.name} holds a traceback:\n{text}")

    def _check(self, block: Block, run: Run) -> None:
        """A file is given to the program that judges its kind."""
        name = run.file or f"block-{block.line}.{block.language}"
        (self._folder / name).write_text(self._ports.in_text(block.text), encoding="utf-8")
        command = _CHECKED[run.setting].format(file=name)
        said = self._session(self._folder).run(command)
        if said.code != run.code:
            raise Differs(_told(block.where, command, (f"exit code {run.code}",), said))

    def _console(self, block: Block, run: Run) -> None:
        if block.language != "console":
            raise BadPage(f"{block.where}: what is run in `{run.setting}` is a console block")
        session = self._session(ROOT if run.setting == "checkout" else self._folder)
        self._prepare(run.setting, session)
        try:
            steps = steps_of(block.text)
        except ValueError as error:
            raise BadPage(f"{block.where}: {error}") from error
        for step in steps:
            self._step(block, run, step, session)

    def _step(self, block: Block, run: Run, step: Step, session: Session) -> None:
        command = self._ports.in_text(step.command)
        until = time.monotonic() + run.within_s
        while True:
            said = session.run(command)
            said = replace(said, text=self._ports.put_back(said.text))
            if said.code == run.code and agrees(step.shown, said.text, loose=run.loose):
                return
            if time.monotonic() >= until:
                raise Differs(_told(f"{block.page}:{block.line + step.line}", step.command, step.shown, said))
            time.sleep(REPEAT_S)

    def _session(self, folder: Path) -> Session:
        if folder not in self._sessions:
            self._sessions[folder] = Session(folder, self._environment())
        return self._sessions[folder]

    def _environment(self) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR", "JAVA_HOME") if name in os.environ}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        # Operators' commands find the controller at its default address; here that one has another port.
        controllers = f"127.0.0.1:{self._ports.of(CONTROLLER)}"
        return {**kept, "PATH": path, "COLUMNS": "120", "FLYBALL_CONTROLLERS": controllers}

    def _prepare(self, setting: str, session: Session) -> None:
        """Bring about what a setting promises, once."""
        if setting in self._done:
            return
        self._done.add(setting)
        if setting == "kafka":
            self._ports.stands_for(KAFKA, int(self._broker().rpartition(":")[2]))
        if setting in ("laptop", "operator"):
            self._start_fleet(session)
        if setting == "operator":
            self._told_to(session, "flyball mode chat control --reason 'pages are run on it'")

    def _start_fleet(self, session: Session) -> None:
        """The fleet of the laptop's page, from that page's files."""
        for block in blocks_of(FLEET_PAGE):
            if isinstance(block.marker, Run) and block.marker.file:
                (self._folder / block.marker.file).write_text(self._ports.in_text(block.text), encoding="utf-8")
        self._told_to(session, "flyball up --config flyball.yaml 2> up.log &")
        ready = f"http://127.0.0.1:{self._ports.of(7461)}/ready"
        self._told_to(session, f"curl -sf --retry {READY_S} --retry-delay 1 --retry-all-errors {ready}")

    def _told_to(self, session: Session, command: str) -> None:
        said = session.run(command)
        if said.code:
            raise Differs(_told(self._page, command, (), said))


_CHECKED = {
    "config": "flyball config check {file}",
    "policy": "flyball policy check {file}",
    "python": "python {file}",
}
"""Settings whose blocks are files, and what judges each."""


def hold_page(page: str, folder: Path, broker: Callable[[], str]) -> None:
    """Hold a page to what it says. Skips if all of it holds but what needs something that is not here."""
    runs = [(block, block.marker) for block in blocks_of(page) if isinstance(block.marker, Run)]
    if any("curl " in block.text for block, _ in runs) and shutil.which("curl") is None:
        (pytest.fail if os.environ.get("FLYBALL_REQUIRE") == "all" else pytest.skip)("the page needs curl")
    left_out: list[str] = []
    run = PageRun(page, folder, broker)
    try:
        for block, how in runs:
            try:
                run.run(block, how)
            except pytest.skip.Exception as missing:
                left_out.append(f"{block.where}: {missing}")
    finally:
        run.close()
    run.no_service_raised()
    if left_out:
        pytest.skip(f"all else on the page holds, but {'; '.join(left_out)}")


def _told(where: str, command: str, shown: tuple[str, ...], said: Said) -> str:
    wanted = "\n".join(f"    {line}" for line in shown) or "    (anything)"
    seen = "\n".join(f"    {line}" for line in said.text.strip("\n").split("\n"))
    return f"{where}: $ {command}\n  shown:\n{wanted}\n  seen (exit code {said.code}):\n{seen}"
