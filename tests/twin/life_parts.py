"""Small scenarios, and lives of them over a log in memory."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flyball_core.ids import LogId
from flyball_log.interface import Topic
from flyball_twin.governed.life import Frames, Life
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.model import Scenario
from flyball_twin.scenario.reading import scenario_of
from harness.memory_log import MemoryLog, MemoryShelf

TWO_POOLS = """
version: 1
title: Two models behind one front
duration: 90s
grace: 10s
pools:
  chat:
    engines:
      - {count: 2, gpu: h100_sxm, model: llama-3.1-8b, node: left}
    policy:
      version: 1
      mode: control
      lanes:
        realtime: {ttft: 1s, tpot: 9ms}
  answers:
    engines:
      - {name: large, gpu: h100_sxm, model: llama-3.1-70b, weights: fp8, tensor_parallel: 2, node: right}
    policy:
      version: 1
      mode: advise
      lanes:
        batch: {end_to_end: 2min}
traffic:
  - mmpp:
      states: [{rate: 30, stay: 30s}]
      prompt: {median: 800, spread: 0.5}
      output: {median: 60, spread: 0.5}
    pools: chat
    lanes: realtime
  - mmpp:
      states: [{rate: 1, stay: 30s}]
      prompt: {median: 800, spread: 0.5}
      output: {median: 60, spread: 0.5}
    pools: answers
    lanes: batch
"""


@dataclass(frozen=True, slots=True)
class Lived:
    """A life that is over."""

    life: Life
    log: MemoryLog
    frames: Frames

    async def written(self, topic: Topic) -> list[bytes | None]:
        """The values of all records of a topic."""
        return [record.value for record in await self.log.read(topic, 0, 0, limit=1_000_000)]


def scenario(text: str = TWO_POOLS, extra: str = "") -> Scenario:
    """A scenario of a document, with lines added at its end."""
    return scenario_of(text + extra, Path("small.yaml"))


async def live(of: Scenario, folder: Path, *, seed: int = 1) -> Lived:
    """Play it to its end; `folder` must be new to the run."""
    log = MemoryLog(MemoryShelf(LogId("7e5a4f7e-0000-4000-8000-000000000000"), 1, "memory"))
    life = Life(log, of, seed, partial(build_fleet, of, seed), folder)
    await life.start()
    while life.clock.now_s < of.end_s:
        await life.beat()
    return Lived(life, log, await life.finish())
