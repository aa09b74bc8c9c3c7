"""Production agents in a process of their own, which say of every frame what they know of it.

What runs is `run_agent_service`, one or several times, with one more source: engines from a script, so that
telemetry needs no server. Nothing of an agent is replaced; a disk may be slow, below the product.
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal
from unittest.mock import patch

from flyball_agents.accounting import Key, Witness
from flyball_agents.node.service import run_agent_service
from flyball_agents.sampling import PooledEngine, Reading
from flyball_core.errors import Rejected
from flyball_core.frames import EngineSample
from flyball_core.ids import EngineId, Incarnation, PoolId
from flyball_service.config import Config
from flyball_service.logs import configure_logs
from flyball_service.reading import read_config
from flyball_service.running import own_name, run_until_signal
from laboratory.record import Happened, Recorder, Sampled

MODULE = "laboratory.lab_agent"
"""What `Actors.start` is told as `module`."""
LATE_BEAT = "late_beat"
"""Event of a beat later than any before; the detail is by how many seconds."""


class ScriptedEngines:
    """Engines in some pools whose counters grow with the clock; no two readings are alike."""

    name = "script"

    def __init__(self, agent: str, pools: Sequence[str], engines: int, *, beat: Callable[[float], None]) -> None:
        """So many engines in each pool; `beat` is told the time whenever they are read."""
        self._engines = [(PoolId(pool), f"{agent}-{pool}-{at}", at) for pool in pools for at in range(engines)]
        self._began_s = time.monotonic()
        self._beat = beat

    def sample(self, now_s: float) -> Reading:
        """What all of them have done by now."""
        self._beat(now_s)
        since_s = now_s - self._began_s
        engines = (PooledEngine(pool, _sample(name, at, since_s)) for pool, name, at in self._engines)
        return Reading(now_s, engines=tuple(engines))


def _sample(name: str, at: int, since_s: float) -> EngineSample:
    """An engine that serves about 4 requests a second of 500 tokens in and 200 out."""
    wave = 1.0 + 0.3 * math.sin(since_s / 7.0 + at)
    running = 12.0 * wave
    requests = 4.0 * since_s
    return EngineSample(
        engine=EngineId(name),
        incarnation=Incarnation("1"),
        rank=0,
        gpus=(),
        variant="",
        requests_running=round(running),
        requests_waiting=round(2.0 * wave),
        kv_used_ratio=0.04 * running,
        kv_capacity_tokens=200_000.0,
        prompt_tokens_total=500.0 * requests,
        generation_tokens_total=200.0 * requests,
        requests_finished_total=math.floor(requests),
        preemptions_total=0.0,
        ttft_s_sum=0.2 * requests,
        ttft_count=requests,
        itl_s_sum=0.02 * 199.0 * requests,
        itl_count=199.0 * requests,
        queue_s_sum=0.01 * requests,
        queue_count=requests,
        e2e_s_sum=4.2 * requests,
        e2e_count=requests,
    )


class BeatWatch:
    """Writes down a beat that came later than any before it, without the time that the machine gave to others."""

    def __init__(self, recorder: Recorder, agent: str, period_s: float) -> None:
        self._recorder, self._agent, self._period_s = recorder, agent, period_s
        self._last_s: float | None = None
        self._waited_s: dict[str, float] = {}
        self._worst_s = 0.0

    def __call__(self, now_s: float) -> None:
        """A beat begins."""
        waited_s = _waited_for_a_core_s()
        others_s = sum(one - self._waited_s.get(thread, 0.0) for thread, one in waited_s.items())
        last_s, self._last_s, self._waited_s = self._last_s, now_s, waited_s
        if last_s is None:
            return
        late_s = now_s - last_s - self._period_s - others_s
        if late_s > self._worst_s:
            self._worst_s = late_s
            line = Happened(at_s=time.time(), event=LATE_BEAT, target=self._agent, detail=f"{late_s:.4f}")
            self._recorder.write(line)


def _waited_for_a_core_s() -> dict[str, float]:
    """By thread, how long it could have run and no core was free: the machine's load, not the agent's doing.

    All threads count, for one that waits for a core may hold what the others need to go on.
    """
    waited_s: dict[str, float] = {}
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError, ValueError, IndexError):  # it has ended, or the kernel does not tell
            waited_s[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
    return waited_s


def slow_disk(piece_bytes: int, pause_s: float) -> AbstractContextManager[object]:
    """Have the disk take so many bytes at a time, as it may, and pause after each: kills fall between."""
    write = os.pwrite

    def piecewise(descriptor: int, data: bytes, offset: int) -> int:
        written = write(descriptor, data[:piece_bytes], offset)
        time.sleep(pause_s)
        return written

    return patch.object(os, "pwrite", piecewise)


def witness(recorder: Recorder, agent: str) -> Witness:
    """What an agent tells of its frames, put on record."""

    def tell(what: Literal["made", "synced", "dropped"], key: Key, reason: str) -> None:
        boot, pool, seq = key
        line = Sampled(at_s=time.time(), what=what, agent=agent, boot=boot, pool=pool, seq=seq, reason=reason)
        recorder.write(line)

    return tell


async def _run(config: Config, told: argparse.Namespace, recorders: dict[str, Recorder], stop: asyncio.Event) -> None:
    """All agents until `stop` is set."""
    section = config.agent
    if section is None:
        raise Rejected(f"{config.file} has no section `agent`")
    async with asyncio.TaskGroup() as tasks:
        for name, recorder in recorders.items():
            period_s = told.period or section.period_s
            own = replace(config, agent=replace(section, name=name, period_s=period_s))
            beat = BeatWatch(recorder, name, period_s)
            source = ScriptedEngines(name, told.pools.split(","), told.engines, beat=beat)
            started = partial(_started, recorder, name)
            agent = run_agent_service(own, stop, started=started, sources=[source], witness=witness(recorder, name))
            tasks.create_task(agent)


def _started(recorder: Recorder, name: str, addresses: object) -> None:
    recorder.write(Happened(at_s=time.time(), event="started", target=name, detail=str(addresses)))


def main() -> None:
    """Run agents until a signal ends them."""
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="configuration with a section `agent`")
    parser.add_argument("--record", type=Path, required=True, help="folder of the record")
    parser.add_argument("--period", type=float, help="seconds between beats; also what no configuration may say")
    parser.add_argument("--count", type=int, default=0, help="so many agents, NAME-0 and on; `http` must have port 0")
    parser.add_argument("--pools", default="chat", help="pools of the scripted engines, with commas between")
    parser.add_argument("--engines", type=int, default=1, help="scripted engines in each pool")
    parser.add_argument("--piece-bytes", type=int, default=0, help="a disk that takes so many bytes at a time")
    parser.add_argument("--piece-s", type=float, default=0.0, help="and pauses so long after each")
    told = parser.parse_args()
    config = read_config(told.config)
    configure_logs(config.logs, "agent")
    name = own_name("" if config.agent is None else config.agent.name)
    names = [f"{name}-{at}" for at in range(told.count)] or [name]
    with ExitStack() as closing:
        if told.piece_bytes:
            closing.enter_context(slow_disk(told.piece_bytes, told.piece_s))
        recorders = {name: closing.enter_context(Recorder(told.record, f"agent-{name}")) for name in names}
        asyncio.run(run_until_signal(partial(_run, config, told, recorders)))
