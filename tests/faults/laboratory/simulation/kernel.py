"""Virtual time and processes in it: coroutines driven one at a time, in one order, without an event loop.

A process can be frozen, as by SIGSTOP: what falls due meanwhile happens when it goes on. It can be killed between any
two of its steps, or in the middle of one by `Crashed`. There is no real time here, no thread and no socket; a coroutine
that asks for anything but what stands here is a fault of the simulation, and raises.
"""

import heapq
import traceback
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class Crashed(BaseException):
    """The process ends here and now. No part of the product catches it, as none could."""


class Signal:
    """Something that tasks wait for: each `ring` wakes all that wait then."""

    def __init__(self) -> None:
        self._waiting: list[tuple[_Task, int]] = []

    def ring(self) -> None:
        """Wake everybody."""
        waiting, self._waiting = self._waiting, []
        for task, turn in waiting:
            task.wake(turn)

    def add(self, task: "_Task", turn: int) -> None:
        """Wake this task too, if it still waits in that turn."""
        self._waiting.append((task, turn))


@types.coroutine
def pause(seconds: float) -> Generator[float, None, None]:
    """Let so much virtual time pass."""
    yield seconds


@types.coroutine
def wait_for(signal: Signal, seconds: float) -> Generator[tuple[Signal, float], None, None]:
    """Until the signal rings, at most so long."""
    yield signal, seconds


class Kernel:
    """The clock, and what is due."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.failures: list[str] = []
        """What a part of the product raised to nobody who would catch it: process, time and traceback."""
        self._due: list[tuple[float, int, Process, int, Callable[[], None]]] = []
        self._number = 0

    def push(self, at_s: float, process: "Process", act: Callable[[], None]) -> None:
        """Do this then, in this life of the process."""
        self._number += 1
        heapq.heappush(self._due, (max(at_s, self.now_s), self._number, process, process.life, act))

    def run_until(self, end_s: float) -> None:
        """Let everything happen that is due by then."""
        while self._due and self._due[0][0] <= end_s:
            at_s, _, process, life, act = heapq.heappop(self._due)
            self.now_s = at_s
            process.take(life, act)
        self.now_s = end_s


class Process:
    """One process. It has lives; what belongs to an earlier one never happens."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.life = 0
        self.alive = False
        self.frozen = False
        self.on_crash: Callable[[], None] = lambda: None
        """Told when it ended by itself."""
        self._held: list[Callable[[], None]] = []
        self._tasks: dict[_Task, None] = {}

    def start(self) -> None:
        """Begin a new life."""
        self.life += 1
        self.alive, self.frozen = True, False

    def kill(self) -> None:
        """End this life."""
        self.alive = self.frozen = False
        self.life += 1
        self._held.clear()
        tasks, self._tasks = list(self._tasks), {}
        for task in tasks:
            task.drop()

    def freeze(self) -> None:
        """Stand still."""
        self.frozen = self.alive

    def thaw(self) -> None:
        """Go on with what has fallen due."""
        self.frozen = False
        held, self._held = self._held, []
        for act in held:
            self.at(self.kernel.now_s, act)

    def at(self, at_s: float, act: Callable[[], None]) -> None:
        """Do this then, unless this life has ended."""
        self.kernel.push(at_s, self, act)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task of this life."""
        task = _Task(self, coroutine)
        self._tasks[task] = None
        self.at(self.kernel.now_s, task.step)

    def take(self, life: int, act: Callable[[], None]) -> None:
        """Do what has fallen due, now or when the process goes on."""
        if life != self.life or not self.alive:
            return
        if self.frozen:
            self._held.append(act)
            return
        try:
            act()
        except Crashed:
            self.kill()
            self.on_crash()

    def ended(self, task: "_Task") -> None:
        """A task is over."""
        self._tasks.pop(task, None)


class Machine(Process):
    """A process that is always there: the world itself."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, "world")
        self.start()


class _Task:
    def __init__(self, process: Process, coroutine: Coroutine[Any, Any, None]) -> None:
        self._process = process
        self._coroutine = coroutine
        self._turn = 0
        self._running = False

    def step(self) -> None:
        """Go on to the next wait, or the end."""
        kernel, self._running = self._process.kernel, True
        self._turn += 1
        turn = self._turn
        try:
            asked = self._coroutine.send(None)
        except StopIteration:
            self._process.ended(self)
            return
        except Exception:  # noqa: BLE001 - the boundary of a simulated process: it is a finding, with its traceback
            self._process.ended(self)
            kernel.failures.append(f"{kernel.now_s:.3f} s: {self._process.name}: {traceback.format_exc(limit=-6)}")
            return
        finally:
            self._running = False
        if asked is None:
            self._process.at(kernel.now_s, self.step)
        elif isinstance(asked, float):
            self._process.at(kernel.now_s + asked, self.step)
        else:
            signal, seconds = asked
            signal.add(self, turn)
            self._process.at(kernel.now_s + seconds, lambda: self._late(turn))

    def wake(self, turn: int) -> None:
        """What was waited for has come."""
        if turn == self._turn:
            self._turn += 1
            self._process.at(self._process.kernel.now_s, self.step)

    def drop(self) -> None:
        """Its process is no more. A task that killed its own process ends by itself."""
        self._turn += 1
        if not self._running:
            self._coroutine.close()

    def _late(self, turn: int) -> None:
        if turn == self._turn:
            self.step()


def run_now(awaited: Awaitable[T]) -> T:
    """The result of something that waits for no time. Raises RuntimeError if it does."""

    async def result() -> T:
        return await awaited

    coroutine = result()
    try:
        while True:
            asked = coroutine.send(None)
            if asked is not None:
                raise RuntimeError(f"this may not wait, and asked for {asked!r}")
    except StopIteration as over:
        value: T = over.value
        return value
