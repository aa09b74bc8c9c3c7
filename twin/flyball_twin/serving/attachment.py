"""How a small engine is governed: its receiver, attached to a controller, for one incarnation after the other.

The receiver writes to disk and waits for it, so it lives in threads beside the loop that serves tokens, and
only what touches the engine is brought to that loop, between two steps. Serving never waits for any of this:
whatever goes wrong here is logged, and the engine goes on.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from flyball_agents.attaching import Attacher, Open, Surroundings
from flyball_agents.easing import ReceiverLimits
from flyball_agents.engine_adapter import SettingsSurface
from flyball_agents.offers import Target
from flyball_agents.on_the_loop import OnTheLoop
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_core.ids import PoolId
from flyball_core.inputs import TargetKind
from flyball_core.knobs import KnobSpec, Setting, Value
from flyball_twin.serving.paced import PacedEngine

T = TypeVar("T")

FAREWELL_S = 0.25
"""How long a receiver whose engine went down may still answer, as the answer to a restart is on its way."""
FAILED_PAUSE_S = 5.0
"""Before a receiver that could not be made, or failed, is made anew."""

log = structlog.get_logger()


async def in_a_thread(act: Callable[[], T]) -> T:
    """Run it beside the loop."""
    return await asyncio.to_thread(act)


class LoopControls:
    """`EngineControls` of a paced engine for use in a thread; everything is done on the running loop."""

    def __init__(self, paced: PacedEngine) -> None:
        self._paced, self._knobs = paced, paced.knobs()
        self._on_the_loop = OnTheLoop(asyncio.get_running_loop())

    def knobs(self) -> tuple[KnobSpec, ...]:
        """Its knobs, which do not change while it runs."""
        return self._knobs

    def read(self) -> Setting:
        """The effective values."""
        return self._on_the_loop(self._paced.read)

    def set(self, name: str, value: Value) -> None:
        """Set one live knob."""
        self._on_the_loop(lambda: self._paced.set(name, value))

    def restart(self, values: Setting) -> None:
        """Relaunch now; the controller has drained it."""
        self._on_the_loop(lambda: self._paced.restart(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where an engine's receiver belongs. Raises `Rejected` for controllers that `open_stream` may not go to."""

    pool: PoolId
    controllers: Sequence[str]
    """HOST:PORT of each."""
    folder: Path
    """What it holds is kept here over restarts."""
    open_stream: Open

    def __post_init__(self) -> None:
        for address in self.controllers:
            self.open_stream.check(address)


class Attachment:
    """Keeps one engine's receiver attached while it runs; drive it with `run`, and call `turned` when it changes."""

    def __init__(self, paced: PacedEngine, seat: Seat) -> None:
        self.attachers: list[Attacher] = []
        """The one of the incarnation that runs; none between two of them."""
        self._paced, self._seat = paced, seat
        self._turned = asyncio.Event()
        self._say = log.bind(engine=str(paced.engine.id))

    def turned(self) -> None:
        """The engine lost its incarnation, or has a new one."""
        self._turned.set()

    async def run(self, stop: asyncio.Event) -> None:
        """A receiver for each incarnation, until `stop` is set."""
        stopping: asyncio.Future[bool] = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._turned.clear()
                if not self._paced.ready:
                    await self._first(stopping)
                    continue
                try:
                    await self._attend(stopping)
                except Exception as error:  # noqa: BLE001 - the task's boundary: serving goes on without a receiver
                    self._say.error("receiver_failed", why=f"{type(error).__name__}: {error}")
                    await asyncio.wait({stopping}, timeout=FAILED_PAUSE_S)
        finally:
            stopping.cancel()

    async def _attend(self, stopping: "asyncio.Future[bool]") -> None:
        """Be attached for as long as this incarnation runs."""
        receiver = await in_a_thread(self._new_receiver(LoopControls(self._paced)))
        around = Surroundings(rng=random.Random(), aside=in_a_thread, tell=self._say.info)
        attacher = Attacher(receiver, self._seat.controllers, self._seat.open_stream, around)
        self.attachers = [attacher]
        gone = asyncio.Event()
        running = asyncio.ensure_future(attacher.run(gone))
        try:
            if not await self._first(stopping, running):
                await asyncio.wait({stopping}, timeout=FAREWELL_S)
        finally:
            self.attachers = []
            gone.set()
            await running

    async def _first(self, *others: "asyncio.Future[bool] | asyncio.Future[None]") -> bool:
        """Wait for the engine's next change or one of the others; whether it was one of the others."""
        turning = asyncio.ensure_future(self._turned.wait())
        try:
            await asyncio.wait({turning, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            turning.cancel()
        return any(other.done() for other in others)

    def _new_receiver(self, controls: LoopControls) -> Callable[[], Receiver]:
        engine = self._paced.engine
        target = Target(
            pool=self._seat.pool, kind=TargetKind.ENGINE, name=str(engine.id), incarnation=self._paced.incarnation
        )
        store = ReceiverStore(self._seat.folder)
        return lambda: Receiver(
            target,
            SettingsSurface(controls),
            store,
            ReceiverLimits(),
            seed=0,
            now_s=time.monotonic(),
            wall_s=time.time(),
        )
