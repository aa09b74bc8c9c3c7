"""The stream between a controller and a receiver: in order both ways, and silent when something is wrong with it.

Either end may be frozen, cut off or gone without the other being told; then keepalive or silence ends it, late.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar

from flyball_controller.pusher import Message
from flyball_controller.serving.outbox import Outbox
from flyball_core.inputs import Ack, Attach
from flyball_proto.codec import Said
from laboratory.simulation.faulty_log import Way
from laboratory.simulation.kernel import Process, Signal

T = TypeVar("T")

HOP_S = 0.01
"""Longest time that a message is under way when nothing is wrong."""
KEEPALIVE_S = 5.0
"""After so long without a sign a controller ends a stream."""


class End(Generic[T]):
    """One end of a stream: who is there, what has come, and whether it is still open as far as this end knows."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.news = Signal()
        self.came: deque[T] = deque()
        self.open = True
        self.refused = ""
        self._last_s = 0.0

    def deliver(self, at_s: float, act: Callable[[], None]) -> None:
        """Have something arrive here then, after all that was sent before it."""
        self._last_s = max(self._last_s, at_s)
        self.process.at(self._last_s, act)

    def take(self, message: T) -> None:
        """A message arrived."""
        if self.open:
            self.came.append(message)
            self.news.ring()

    def shut(self, refused: str = "") -> None:
        """It is over."""
        self.open, self.refused = False, refused
        self.news.ring()


class Stream:
    """One stream. It is the pusher's link to the receiver."""

    def __init__(self, controller: Process, receiver: Process, way: Way, random: Random) -> None:
        self.controller = End[Said](controller)
        self.receiver = End[Message](receiver)
        self.attach: Attach | None = None
        """As the receiver said last, at the controller."""
        self._way = way
        self._random = random
        self._outbox = Outbox(lambda: controller.kernel.now_s, lambda _kind: None)

    async def send(self, message: Message) -> None:
        """Leave a message for the receiver; never waits."""
        self._outbox.put(message)
        self._flush()

    def say(self, said: Said) -> None:
        """The receiver says something."""
        if self.receiver.open:
            self.controller.deliver(self._reach_s(), lambda: self.controller.take(said))

    def answered(self, ack: Ack) -> None:
        """The controller has an answer: what was held back may go."""
        self._outbox.answered(ack.version)
        self._flush()

    def hang_up(self) -> None:
        """The receiver leaves, or its process is gone: the controller is told as soon as anything gets through."""
        if self.receiver.open:
            self.receiver.shut()
            self.controller.deliver(self._reach_s(), self.controller.shut)

    def end(self, refused: str = "") -> None:
        """The controller ends it, or its process is gone."""
        if self.controller.open:
            self.controller.shut()
            self.receiver.deliver(self._reach_s(), lambda: self.receiver.shut(refused))

    def check_alive(self) -> None:
        """End it unless there was a sign of the receiver within the keepalive's time."""
        cut = self._way.cut_until_s > self.receiver.process.kernel.now_s
        if cut or self.receiver.process.frozen or not self.receiver.process.alive:
            self.end()

    def _flush(self) -> None:
        while (message := self._outbox.take()) is not None:
            self._down(message)

    def _down(self, message: Message) -> None:
        self.receiver.deliver(self._reach_s(), lambda: self.receiver.take(message))

    def _reach_s(self) -> float:
        return self._way.reach_s(self.receiver.process.kernel.now_s) + self._random.random() * HOP_S
