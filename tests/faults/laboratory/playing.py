"""Playing a schedule on real processes: each fault begun when it is due and ended when it is over.

What it strikes with are signals, proxies and bytes; what a part does about it is the part's affair. Each fault is on
record from its beginning to its end.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from laboratory.processes import Actor
from laboratory.record import Happened, Recorder
from laboratory.schedule import Fault, FaultKind, Schedule


class Line(Protocol):
    """What lies between a part and the others: `laboratory.proxy` has one."""

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        ...

    def heal(self) -> None:
        """Everything passes, at once."""
        ...

    def delay(self, seconds: float) -> None:
        """What passes comes so much later."""
        ...


@dataclass(slots=True, kw_only=True)
class Stage:
    """What faults strike, by the names that schedules use."""

    actors: Mapping[str, Actor]
    recorder: Recorder
    lines: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)
    """The lines of each part that can be cut off."""
    kept: Mapping[str, Path] = field(default_factory=dict)
    """The folder of what each part keeps on disk, one byte of which can be changed."""
    log: tuple[Callable[[FaultKind], Awaitable[None]], Callable[[FaultKind], Awaitable[None]]] | None = None
    """Begins and ends what strikes the log."""

    async def play(self, schedule: Schedule) -> None:
        """Everything of the schedule, up to its end."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in schedule.faults:
                tasks.create_task(self._suffer(fault, began_s))
        await asyncio.sleep(max(began_s + schedule.length_s - time.monotonic(), 0.0))

    async def _suffer(self, fault: Fault, began_s: float) -> None:
        await asyncio.sleep(max(began_s + fault.at_s - time.monotonic(), 0.0))
        self._note("begins", fault)
        try:
            await self._begin(fault)
            await asyncio.sleep(fault.for_s)
        finally:
            await self._end(fault)
            self._note("is over", fault)

    async def _begin(self, fault: Fault) -> None:
        if fault.target not in self.actors:
            assert self.log is not None, f"nothing is known of {fault.target}"
            await self.log[0](fault.kind)
        elif fault.kind is FaultKind.FREEZE:
            self.actors[fault.target].freeze()
        elif fault.kind is FaultKind.CUT:
            for line in self.lines[fault.target]:
                line.cut()
        elif fault.kind is FaultKind.DELAY:
            for line in self.lines[fault.target]:
                line.delay(fault.by)
        elif fault.kind in (FaultKind.KILL, FaultKind.CORRUPT):
            self.actors[fault.target].kill()
            if fault.kind is FaultKind.CORRUPT:
                self._note(f"{flip_a_byte(self.kept[fault.target], fault.by)} is changed in", fault)
        else:
            raise AssertionError(f"no real process can be struck by {fault.kind.value}")

    async def _end(self, fault: Fault) -> None:
        if fault.target not in self.actors:
            if self.log is not None:
                await self.log[1](fault.kind)
        elif fault.kind is FaultKind.FREEZE:
            self.actors[fault.target].thaw()
        elif fault.kind in (FaultKind.CUT, FaultKind.DELAY):
            for line in self.lines[fault.target]:
                line.heal()
        else:
            self.actors[fault.target].start()

    def _note(self, what: str, fault: Fault) -> None:
        self.recorder.write(Happened(at_s=time.time(), event=what, target=fault.target, detail=str(fault)))


def flip_a_byte(folder: Path, place: float) -> str:
    """Change one byte of what lies in a folder, `place` (0 to 1) of the way through it; which, in words."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    at = int(place * sum(path.stat().st_size for path in files))
    for path in files:
        size = path.stat().st_size
        if at < size:
            with path.open("r+b") as file:
                file.seek(at)
                before = file.read(1)
                file.seek(at)
                file.write(bytes([before[0] ^ 0x55]))
            return f"byte {at} of {path.relative_to(folder)}"
        at -= size
    return "nothing"
