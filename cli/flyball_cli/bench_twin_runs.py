"""The runs that `flyball bench twin` times: one trace on a few engines, bare, step by step, or governed.

Seconds are of the process's own time on one core, so that whatever else the machine does is not counted; what
passed by the clock is kept beside them. A fleet is built anew for each run and nothing is shared but what a
second run in one process shares in life: the trace's rows and the prices of steps. Refuses to judge a figure.
"""

import asyncio
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from flyball_core.ids import EngineId, PoolId
from flyball_core.outputs import LaneRule
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.outcomes import Outcome, Record
from flyball_twin.fleet.scoring import Slo
from flyball_twin.governed.life import Life
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.model import EnginePlan, PoolPlan, Scenario, Stream, TraceSource
from flyball_twin.traffic.files import find_trace
from flyball_twin.traffic.traces import open_trace

WEEK_S = 604_800.0
WEEK_REQUESTS = 716_834
"""Requests of the ServeGen m-large week, as it was resampled."""

BUNDLED = "servegen_mlarge_day"
"""A day of the same service, thinned; played as much faster as makes its rate the week's."""

WEEK_SHARE = 0.99
"""A trace that lasts so much of a week is the week."""

GPU, MODEL, VARIANT = "h100_sxm", "llama-3.1-8b", "flash_attn"
LANE = "realtime"
POLICY = """version: 1
mode: control
lanes:
  realtime: {ttft: 1s, tpot: 30ms}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A trace and how fast it is played."""

    name: str
    folder: Path
    speed: float
    length_s: float
    """How long it lasts, so played."""
    requests: int

    @property
    def is_the_week(self) -> bool:
        """Whether it is a week in full, at its own speed."""
        return self.length_s >= WEEK_SHARE * WEEK_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one run came to."""

    slice_s: float
    """Of virtual time."""
    requests: int
    """That arrived."""
    cpu_s: float
    clock_s: float
    rss_mb: float
    """Memory of the whole process at its end, before anything is let go."""
    beats: int = 0
    """Of a governed run."""
    busy_share: float = 0.0
    """Of the engines' time."""
    running: float = 0.0
    """Requests at an engine, on the average, the time at the gateway included."""

    @property
    def requests_per_s(self) -> float:
        """Requests simulated a second."""
        return self.requests / self.cpu_s

    @property
    def week_s(self) -> float:
        """What a week would take at the pace of this run."""
        return self.cpu_s * WEEK_S / self.slice_s


def workload(trace: Path | None) -> Workload:
    """The trace at this path at its own speed, or the bundled one at the week's rate. Raises as `open_trace`."""
    name, folder = (BUNDLED, Path()) if trace is None else (trace.name, trace.parent)
    opened = open_trace(find_trace(name, folder))
    speed = 1.0
    if trace is None:
        speed = (WEEK_REQUESTS / WEEK_S) / (opened.requests / opened.end_s)
    return Workload(name=name, folder=folder, speed=speed, length_s=opened.end_s / speed, requests=opened.requests)


def scenario(load: Workload, engines: int, slice_s: float) -> Scenario:
    """The first `slice_s` of a workload on so many engines of one host, governed by no more than objectives."""
    pool, lane = PoolId("chat"), LaneRule(lane=LANE, priority=0, max_wait_s=60.0)
    plans = tuple(
        EnginePlan(engine=EngineId(f"engine-{index}"), gpu=GPU, model=MODEL, variant=VARIANT, node="node-0")
        for index in range(engines)
    )
    source = TraceSource(trace=load.name, speed=load.speed)
    return Scenario(
        name="bench",
        title="bench",
        pools=(PoolPlan(pool=pool, engines=plans, lanes=(lane,)),),
        slos=(Slo(lane=LANE, ttft_s=1.0, tpot_s=0.030),),
        streams=(Stream(source=source, from_s=0.0, to_s=slice_s, pools={pool: 1.0}, lanes={LANE: 1.0}),),
        faults=(),
        phases=(),
        seeds=(1,),
        duration_s=slice_s,
        compare=False,
        folder=load.folder,
    )


def run_bare(load: Workload, engines: int, slice_s: float, *, stepped: bool = False, scored: bool = False) -> Ran:
    """Without control. `stepped`: each step by itself; `scored`: as `twin run` keeps score, instead of a bare count."""
    plan, spent = scenario(load, engines, slice_s), _Spent()
    card = Scorecard(plan)
    fleet = build_fleet(plan, 1, card.record if scored else spent.record)
    for engine in fleet.engines.values():
        engine.stepped = stepped
    clock_s, cpu_s = perf_counter(), process_time()
    fleet.run_until(slice_s)
    cpu_s, clock_s = process_time() - cpu_s, perf_counter() - clock_s
    busy_s = sum(engine.busy_by(slice_s) for engine in fleet.engines.values())
    return Ran(
        slice_s=slice_s,
        requests=fleet.arrived,
        cpu_s=cpu_s,
        clock_s=clock_s,
        rss_mb=rss_mb(),
        busy_share=busy_s / (engines * slice_s),
        running=spent.request_s / (engines * slice_s),
    )


async def run_governed(load: Workload, engines: int, slice_s: float, beat_s: float) -> Ran:
    """With everything that production does: agents, spools, log, owner, pusher, receivers, in mode `control`."""
    plan = scenario(load, engines, slice_s)
    pools = tuple(replace(pool, policy=POLICY, policy_source="bench") for pool in plan.pools)
    plan = replace(plan, pools=pools, beat_s=beat_s)
    build: Callable[[Record], Fleet] = partial(build_fleet, plan, 1)
    with TemporaryDirectory(prefix="flyball-bench-") as name:
        folder = Path(name)
        settings = EmbeddedSettings(durability=Durability.OS)
        log = EmbeddedLog.create(folder / "log", partitions=1, settings=settings)
        try:
            life = Life(log, plan, 1, build, folder)
            await life.start()
            beats, clock_s, cpu_s = 0, perf_counter(), process_time()
            while life.clock.now_s < slice_s:
                await life.beat()
                await asyncio.sleep(0)  # nothing in a beat waits, and an interrupt is heard only between two waits
                beats += 1
            cpu_s, clock_s = process_time() - cpu_s, perf_counter() - clock_s
            [watched] = life.fleets.values()
            return Ran(
                slice_s=life.clock.now_s,
                requests=watched.fleet.arrived,
                cpu_s=cpu_s,
                clock_s=clock_s,
                rss_mb=rss_mb(),
                beats=beats,
            )
        finally:
            await log.close()


def rss_mb() -> float:
    """What the process holds in memory now, in MB; where the system does not say, the most that it ever held."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6
    return peak_rss_mb()


def peak_rss_mb() -> float:
    """The most that the process ever held in memory, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most * 1024 / 1e6  # bytes there, KiB elsewhere


class _Spent:
    """Adds up how long requests took: the cheapest record that still says how full the engines were."""

    def __init__(self) -> None:
        self.request_s = 0.0

    def record(self, outcome: Outcome) -> None:
        """One more request has ended."""
        self.request_s += outcome.ended_s - outcome.request.arrival_s
