"""The gateway's receiver: its routing table as a controller's to set, within the operator's bounds.

The receiver waits for its disk at every table, which the proxy must not. So it lives in a thread of
its own and reaches the table through calls that the event loop runs in between. It decides nothing.
"""

import asyncio
import concurrent.futures
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from flyball_agents.attaching import Attacher, AttachLimits, Open, Surroundings, Tell
from flyball_agents.easing import ReceiverLimits
from flyball_agents.gateway.admission import Admission
from flyball_agents.gateway.balancing import MAX_WAIT_S
from flyball_agents.gateway_adapter import GatewayControls, GatewayReading, TableDefaults, TableSurface
from flyball_agents.offers import Target
from flyball_agents.on_the_loop import OnTheLoop
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore

T = TypeVar("T")


class LoopControls:
    """`GatewayControls` for another thread; every call raises TimeoutError if the loop has no time for it."""

    def __init__(self, controls: GatewayControls, on_the_loop: OnTheLoop) -> None:
        self._controls = controls
        self._on_the_loop = on_the_loop

    def read(self) -> GatewayReading:
        """The effective table."""
        return self._on_the_loop(self._controls.read)

    def set_weight(self, engine: str, weight: int) -> None:
        """Set a weight."""
        self._on_the_loop(lambda: self._controls.set_weight(engine, weight))

    def set_cap(self, engine: str, cap: int) -> None:
        """Set an in-flight cap."""
        self._on_the_loop(lambda: self._controls.set_cap(engine, cap))

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Set a lane's rule."""
        self._on_the_loop(lambda: self._controls.set_lane(lane, priority, max_wait_s))


class Governed:
    """A gateway's receiver and what keeps it attached. Make it with `govern`, drive it with `run`, close it."""

    def __init__(self, attacher: Attacher, thread: concurrent.futures.ThreadPoolExecutor) -> None:
        self.attacher = attacher
        self._thread = thread

    async def run(self, stop: asyncio.Event) -> None:
        """Stay attached until `stop` is set."""
        await self.attacher.run(stop)

    def close(self) -> None:
        """Let the thread go; what it is writing it finishes."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def govern(
    target: Target,
    admission: Admission,
    folder: Path,
    controllers: Sequence[str],
    open_stream: Open,
    *,
    tell: Tell,
    limits: AttachLimits | None = None,
) -> Governed:
    """A receiver for `target` that takes up what `folder` holds; its safe table is the one `admission` has now.

    Raises `Rejected` as `Attacher` does.
    """
    loop = asyncio.get_running_loop()
    thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="flyball-receiver")
    defaults = TableDefaults(lanes=dict(admission.read().lanes), most_wait_s=MAX_WAIT_S)
    rng = random.Random(f"{target.name} {target.incarnation}")

    def aside(act: Callable[[], T]) -> asyncio.Future[T]:
        return loop.run_in_executor(thread, act)

    def receiver() -> Receiver:
        return Receiver(
            target,
            TableSurface(LoopControls(admission, OnTheLoop(loop)), defaults),
            ReceiverStore(folder),
            ReceiverLimits(),
            seed=rng.getrandbits(32),
            now_s=time.monotonic(),
            wall_s=time.time(),
        )

    try:
        around = Surroundings(rng=rng, aside=aside, tell=tell)
        return Governed(Attacher(await aside(receiver), controllers, open_stream, around, limits), thread)
    except BaseException:
        thread.shutdown(wait=False, cancel_futures=True)
        raise
