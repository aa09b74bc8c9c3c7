"""`flyball demo --live`: two small engines, a gateway, an agent and a controller, at real time and over real sockets.

An open loop of HTTP clients drives the gateway; half-way the load changes its character. What is shown of Flyball
comes through the operator's door, like everything that any other tool could know. The command starts processes,
asks and shows; it decides nothing, and it leaves nothing running.
"""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from rich.console import Console

from flyball_agents.gateway.lanes import LANE_HEADER
from flyball_cli.live_plane import GATEWAY, MODEL, POOL, VARIANTS, LivePlane
from flyball_cli.live_report import LiveResult, live_document, print_live
from flyball_cli.live_traffic import SLOS, Traffic, figures, phases_of, plan
from flyball_cli.live_view import LiveEngine, LiveLines, LiveScene, LiveScreen, LiveView, SilentLive
from flyball_cli.operating.fleet import Fleet
from flyball_cli.operating.status_document import mode_of
from flyball_cli.processes import Processes
from flyball_core.errors import FlyballError, Rejected, Retryable
from flyball_core.outputs import DecisionRecord
from flyball_proto.codec import decode_audit
from flyball_proto.codec.words import read_known
from flyball_proto.v1.common_pb2 import TARGET_KIND_ENGINE
from flyball_proto.v1.services_pb2 import DecisionsRequest, PoolStatus
from flyball_twin.governed.observing import Chronicle

SHORTEST_S, LONGEST_S = 4.0, 3600.0
GRACE_S = 10.0
"""How long the last answers may take."""
ATTACH_S = 20.0
"""Longest wait until the engines and the gateway are attached."""
LOOK_S = 0.5
LATELY_S = 10.0
"""What is shown as measured lately."""


def run_live(seconds: float, keep: Path | None, *, as_json: bool) -> int:
    """Play the show for `seconds`, keep its folder if one is named, and print what came of it; the exit code.

    Raises `FlyballError` if a part does not come up or fails, with its last lines.
    """
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise Rejected(f"--seconds takes {SHORTEST_S:g} to {LONGEST_S:g}, not {seconds:g}")
    console = Console(stderr=as_json)
    with _folder(keep) as folder:
        result = asyncio.run(_until_terminated(_play(seconds, folder, keep, console, as_json=as_json)))
    if as_json:
        click.echo(json.dumps(live_document(result), indent=2))
        return 0
    print_live(console, result)
    if result.kept is not None:
        program = sys.argv[0]
        _say(console, f"Kept: {result.kept}")
        _say(
            console, f"Try: {program} replay {result.kept}/log\n     {program} explain engine-0 --log {result.kept}/log"
        )
    return 0


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder for everything that the services write: the one named, which must be new or empty, or one that goes."""
    if keep is None:
        with TemporaryDirectory(prefix="flyball-live-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise Rejected(f"the folder {keep} is not empty; name another with --keep")
    except OSError as error:
        raise Rejected(f"cannot write to the folder {keep}: {error.strerror or error}") from error
    yield keep.absolute()


async def _until_terminated(play: Coroutine[Any, Any, LiveResult]) -> LiveResult:
    """Run it; SIGTERM ends it as Ctrl-C does, so that nothing that it started runs on."""
    task = asyncio.ensure_future(play)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _play(seconds: float, folder: Path, keep: Path | None, console: Console, *, as_json: bool) -> LiveResult:
    began_s = time.monotonic()
    with Processes(folder) as processes:
        plane = LivePlane(processes, folder)
        if not as_json:
            _say(console, f"Starting {len(VARIANTS)} engines, gateway, agent and controller ...")
        await plane.start()
        async with Fleet(plane.connection()) as fleet:
            show = Show(plane, fleet, seconds)
            await plane.attached(fleet)
            policy = await plane.apply_policy(fleet)
            await show.attached()
            if not as_json:
                _say(console, f"In control: {policy}. Clients send to http://{plane.places.gateway}/v1 now.")
            await show.run(_view(console, as_json=as_json))
        return show.result(policy, None if keep is None else str(folder), time.monotonic() - began_s)


def _view(console: Console, *, as_json: bool) -> LiveView:
    if as_json:
        return SilentLive()
    return LiveScreen(console) if console.is_terminal and sys.stdout.isatty() else LiveLines(console)


class Show:
    """One run over a plane that is up: traffic, what is heard of Flyball meanwhile, and what is shown of both."""

    def __init__(self, plane: LivePlane, fleet: Fleet, seconds: float) -> None:
        self._plane, self._fleet, self._seconds = plane, fleet, seconds
        self._phases = phases_of(seconds)
        self._traffic = Traffic(plane.places.gateway, MODEL, plan(self._phases), LANE_HEADER)
        self._chronicle = Chronicle()
        self._status = PoolStatus()
        self._began_s = 0.0

    async def attached(self) -> None:
        """Wait until the owner knows all engines and the gateway. Raises `Retryable` naming those that did not come."""
        until_s = time.monotonic() + ATTACH_S
        while missing := {*VARIANTS, GATEWAY} - {one.target for one in self._status.targets if one.attached}:
            if time.monotonic() > until_s:
                raise Retryable(f"{', '.join(sorted(missing))} did not attach within {ATTACH_S:g} s")
            self._plane.refuse_ended()
            await self._ask()
            await asyncio.sleep(LOOK_S / 5)
        self._began_s = self._status.time_s

    async def run(self, view: LiveView) -> None:
        """Play it through. Raises `FlyballError` if a service ends on the way."""
        try:
            async with _beside(self._follow(view), self._watch(view)) as failed:
                playing = asyncio.ensure_future(self._traffic.run(GRACE_S))
                try:
                    await asyncio.wait({playing, failed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    playing.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await playing
                if failed.done():
                    failed.result()
            await self._ask()
        finally:
            view.close()

    def result(self, policy: str, kept: str | None, wall_s: float) -> LiveResult:
        """What came of it."""
        return LiveResult(
            seconds=self._seconds,
            phases=self._phases,
            measured=self._traffic.measured,
            observed=self._chronicle.seen,
            began_s=self._began_s,
            engines=self._engines(),
            policy=policy,
            kept=kept,
            wall_s=wall_s,
        )

    async def _ask(self) -> None:
        """The owner's newest status; the one before it where none is to be had."""
        with contextlib.suppress(FlyballError):
            self._status = (await self._fleet.status(POOL)).pool(POOL).status

    async def _watch(self, view: LiveView) -> None:
        while True:
            self._plane.refuse_ended()
            await self._ask()
            view.show(self._scene())
            await asyncio.sleep(LOOK_S)

    async def _follow(self, view: LiveView) -> None:
        """Hear every record of the audit from its beginning, over a controller that may break off."""
        offset = 0
        while True:
            request = DecisionsRequest(pool=POOL, partition=self._status.partition, from_offset=offset, follow=True)
            with contextlib.suppress(FlyballError):
                async for page in self._fleet.decisions(self._plane.places.grpc, request):
                    for entry in page.entries:
                        record = decode_audit(entry.record.SerializeToString())
                        self._chronicle.take(record)
                        if isinstance(record, DecisionRecord):
                            view.record(record, record.time_s - self._began_s)
                    offset = page.next_offset
            await asyncio.sleep(LOOK_S)

    def _scene(self) -> LiveScene:
        now_s, status = self._traffic.now_s, self._status
        since_s = now_s - LATELY_S
        lately = [one for one in self._traffic.measured if one.ended_s is None or one.ended_s >= since_s]
        return LiveScene(
            now_s=now_s,
            end_s=self._seconds,
            phase=next((phase.name for phase in self._phases if now_s < phase.to_s), "the last answers come"),
            mode=mode_of(status),
            regime=status.regime or "unknown",
            confidence=status.confidence,
            engines=self._engines(),
            clients={slo.lane: figures((one for one in lately if one.planned.lane == slo.lane), slo) for slo in SLOS},
            in_flight=self._traffic.in_flight,
        )

    def _engines(self) -> tuple[LiveEngine, ...]:
        return tuple(
            LiveEngine(
                name=one.target,
                attached=one.attached,
                effective=read_known(one.effective),
                wanted=read_known(one.wanted),
                weight=one.weight,
                trouble=one.trouble,
            )
            for one in self._status.targets
            if one.kind == TARGET_KIND_ENGINE
        )


@asynccontextmanager
async def _beside(*works: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Future[None]"]:
    """Run endless works beside what is in the `with`; gives what is done as soon as one of them fails."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()

    def noted(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and not failed.done() and (error := task.exception()) is not None:
            failed.set_exception(error)

    tasks = [asyncio.ensure_future(work) for work in works]
    for task in tasks:
        task.add_done_callback(noted)
    try:
        yield failed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if failed.done():
            failed.exception()  # so that it counts as seen
        failed.cancel()


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
