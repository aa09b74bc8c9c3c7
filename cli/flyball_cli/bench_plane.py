"""How quick and how costly the plane is, over real sockets: the figures of `flyball bench plane`.

The controller is the installed `flyball controller` in a process of its own with an embedded log; agents and
engines are played by this process. What is measured is the way, not the policy's patience: `frame_to_ack_ms` is
the append of a frame plus the way from the tick that decides to the ack in the log. What a frame waits on
purpose (the lateness window, the next tick) is stated beside it. Each run is a new controller with a new log.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from flyball_cli.bench_acks import Answers, answers_within, read_recorded
from flyball_cli.bench_agent import AgentCost, measure_agent
from flyball_cli.bench_fleet import POLICY, ScriptedPool
from flyball_cli.bench_sockets import Appended, Ran, SocketFleet
from flyball_cli.bench_watching import begun, seen
from flyball_cli.processes import READY_S, Process, Processes, free_port
from flyball_core.errors import Fatal, Rejected, Retryable
from flyball_log import open_log
from flyball_log.embedded.folder import partition_folder
from flyball_log.interface import Topic

SIZES = (10, 200)
"""Engines beside the controller."""
MOST_PER_NODE = 8
SETTLE_S = 5.0
"""Everybody has attached and the first settings are out before anything is measured."""
_LOOK_S = 0.02

_CONFIG = """\
log: log
state: state
tls: none
logs: {{level: warning, format: text}}
controller:
  name: bench
  listen: 127.0.0.1:{grpc}
  http: 127.0.0.1:{http}
  policies: {{bench: policy.yaml}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneCost:
    """The plane at one size, in one run."""

    engines: int
    ran: Ran
    answers: Answers
    node_of: Mapping[str, int]
    controller_peak_rss_bytes: int

    @property
    def frame_to_ack_s(self) -> list[float]:
        """Of every ack: the way from its tick, and before it the append of its node's newest frame at that tick."""
        by_node: dict[int, list[Appended]] = {}
        for append in self.ran.appends:
            by_node.setdefault(append.node, []).append(append)
        found = []
        for (tick, engine), took_s in self.answers.tick_to_ack_s.items():
            appends = by_node.get(self.node_of[engine], [])
            before = bisect_right(appends, self.answers.ticks[tick], key=lambda one: one.ended_s)
            if before:  # else its node's frame was appended before anything was measured
                found.append(appends[before - 1].took_s + took_s)
        return found


@dataclass(slots=True)
class PlaneRuns:
    """All runs, by size and of the agent."""

    sizes: dict[int, list[PlaneCost]] = field(default_factory=dict)
    agent: list[AgentCost] = field(default_factory=list)


async def measure_plane(measure_s: float, runs: int, say: Callable[[str], None]) -> PlaneRuns:
    """Measure each size and the agent, in turns. Raises `Fatal` or `Retryable` if a process does not come up."""
    found = PlaneRuns()
    for run in range(runs):
        for engines in SIZES:
            say(f"run {run + 1} of {runs}: {engines} engines, {measure_s:g} s ...")
            with TemporaryDirectory(prefix="flyball-bench-") as folder:
                cost = await _measure(engines, measure_s, Path(folder))
                found.sizes.setdefault(engines, []).append(cost)
        say(f"run {run + 1} of {runs}: one agent, {measure_s:g} s ...")
        with TemporaryDirectory(prefix="flyball-bench-") as folder:
            found.agent.append(await measure_agent(SETTLE_S, measure_s, Path(folder)))
    return found


async def _measure(engines: int, measure_s: float, folder: Path) -> PlaneCost:
    grpc, http = free_port(), free_port()
    (folder / "flyball.yaml").write_text(_CONFIG.format(grpc=grpc, http=http))
    (folder / "policy.yaml").write_text(POLICY)
    pool = scripted_pool(engines)
    with Processes(folder) as processes, _in_memory() as receivers:
        controller = processes.start("controller", "controller", "--config", str(folder / "flyball.yaml"))
        await controller.ready(f"127.0.0.1:{http}")
        log = await open_log(str(folder / "log"), read_only=True)
        try:
            partition = log.partition_of(pool.pool)
            inputs = partition_folder(folder / "log", Topic.INPUTS, partition)
            durable = folder / "durable"
            watcher = processes.start("watcher", str(inputs), str(durable), module="flyball_cli.bench_watching")
            await _watched(watcher, durable)
            fleet = SocketFleet(pool, f"127.0.0.1:{grpc}", Path(receivers))
            ran = await fleet.run(SETTLE_S, measure_s, controller.cpu_s)
            watcher.stop()
            recorded = await read_recorded(log, partition)
        finally:
            await log.close()
        return PlaneCost(
            engines=engines,
            ran=ran,
            node_of=pool.node_of,
            answers=answers_within(recorded, seen(durable), ran.began_s, ran.ended_s),
            controller_peak_rss_bytes=controller.peak_rss_bytes(),
        )


async def _watched(watcher: Process, durable: Path) -> None:
    """Wait until the watcher looks. Raises `Fatal` if it has ended, `Retryable` if it takes too long."""
    until_s = time.monotonic() + READY_S
    while not begun(durable):
        if not watcher.running:
            raise Fatal(f"nobody watches the log:\n{watcher.last_lines()}")
        if time.monotonic() > until_s:
            raise Retryable(f"nobody watches the log after {READY_S:g} s")
        await asyncio.sleep(_LOOK_S)


def _in_memory() -> TemporaryDirectory[str]:
    """A folder in memory, or on the disk where there is no such thing."""
    memory = Path("/dev/shm")  # noqa: S108 - TemporaryDirectory makes a folder of its own in it
    return TemporaryDirectory(prefix="flyball-bench-", dir=memory if memory.is_dir() else None)


def scripted_pool(engines: int) -> ScriptedPool:
    """A pool of so many engines on as few nodes as hold them evenly. Raises `Rejected` for none."""
    if engines < 1:
        raise Rejected(f"{engines} engines make no pool")
    per_node = next(number for number in range(MOST_PER_NODE, 0, -1) if engines % number == 0)
    return ScriptedPool(nodes=engines // per_node, per_node=per_node)
