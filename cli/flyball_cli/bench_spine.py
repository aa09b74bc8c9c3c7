"""What the spine carries: frames a second that can be read, and that can be governed by.

The two readers take turns over one prefilled log, and their ratio is the median over pairs
of turns, so that a machine that slows down meanwhile slows both. Nothing is promised here:
the numbers are of this machine and this moment, with everything counted that an owner does
at a tick.
"""

import gc
import os
import platform
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from google.protobuf import __version__ as protobuf_version
from google.protobuf.internal import api_implementation

from flyball_cli.bench_fleet import ScriptedPool
from flyball_cli.bench_homes import Filled, embedded_log, fill, kafka_log
from flyball_cli.bench_readers import read_bare, read_stepping
from flyball_controller.checkpoints import checkpoint_entries, find_checkpoint
from flyball_controller.machine import PartitionState
from flyball_core.errors import LogUnavailable

SCHEMA = "flyball.bench-spine/1"
NODES = 25
PER_NODE = 8
TICKS = 125
"""Seconds of the pool's life in the log: two checkpoints, and a bit."""

LEAST_TURNS = 3
RESTORES = 5
HOMES = ("embedded", "kafka")


@dataclass(slots=True)
class Turns:
    """Seconds that each reader took, turn by turn."""

    bare: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    careless: list[float] = field(default_factory=list)
    """Of the bare reader that takes missing for zero."""

    def ratios(self, seconds: list[float]) -> list[float]:
        """Of the stepping reader's speed to another's, turn by turn."""
        return [other / own for other, own in zip(seconds, self.step, strict=True)]


@dataclass(slots=True)
class Spine:
    """What was measured. Keys of `turns`: the homes that could be had."""

    filled: Filled | None = None
    turns: dict[str, Turns] = field(default_factory=dict)
    restore_s: float = 0.0
    checkpoint_s: float = 0.0
    checkpoint_bytes: int = 0
    bytes_per_engine: float = 0.0
    notes: list[str] = field(default_factory=list)


async def measure_spine(seconds: float, kafka: str) -> Spine:
    """Measure for about `seconds` per home; `kafka`: auto, off, or require (then `LogUnavailable` without one)."""
    spine = Spine()
    with TemporaryDirectory(prefix="flyball-bench-") as name:
        folder = Path(name)
        async with embedded_log(folder / "log") as log:
            filled = spine.filled = await fill(log, ScriptedPool(nodes=NODES, per_node=PER_NODE), TICKS)
            spine.turns["embedded"] = await _take_turns(filled, seconds)
            await _measure_state(spine, filled)
        if kafka == "off":
            spine.notes.append("kafka: not asked for")
            return spine
        try:
            async with kafka_log(folder / "kafka") as log:
                filled = await fill(log, ScriptedPool(nodes=NODES, per_node=PER_NODE), TICKS)
                spine.turns["kafka"] = await _take_turns(filled, seconds)
        except LogUnavailable as error:
            if kafka == "require":
                raise
            spine.notes.append(f"kafka: {error}")
    return spine


async def _take_turns(filled: Filled, seconds: float) -> Turns:
    turns = Turns()
    await read_stepping(filled.log, filled.partition, filled.end)  # the first turn of anything is slower
    began = perf_counter()
    while len(turns.step) < LEAST_TURNS or perf_counter() - began < seconds:
        # Who goes first changes from turn to turn.
        for reader in ("bare", "step") if len(turns.step) % 2 else ("step", "bare"):
            gc.collect()  # nobody pays for another's garbage
            if reader == "step":
                turns.step.append((await read_stepping(filled.log, filled.partition, filled.end))[0])
            else:
                turns.bare.append(await read_bare(filled.log, filled.partition, filled.end))
        gc.collect()
        turns.careless.append(await read_bare(filled.log, filled.partition, filled.end, presence=False))
    return turns


async def _measure_state(spine: Spine, filled: Filled) -> None:
    """Memory of the state, and how long it takes to keep and to get back."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _, state = await read_stepping(filled.log, filled.partition, filled.end)
        gc.collect()
        spine.bytes_per_engine = (tracemalloc.get_traced_memory()[0] - before) / _engines(state)
    finally:
        tracemalloc.stop()
    began = perf_counter()
    entries = checkpoint_entries(state, filled.end - 1, 0)
    spine.checkpoint_s = perf_counter() - began
    spine.checkpoint_bytes = sum(len(entry.value or b"") for entry in entries)
    taken = []
    for _ in range(RESTORES):
        gc.collect()
        began = perf_counter()
        restored = await find_checkpoint(filled.log, filled.partition)
        taken.append(perf_counter() - began)
    if restored.revision < 0:
        spine.notes.append(f"restore_s: no checkpoint was found: {'; '.join(restored.refused) or 'none was stored'}")
    spine.restore_s = median(taken)


def _engines(state: PartitionState) -> int:
    return sum(len(pool.engines) for pool in state.pools.values())


def spine_document(spine: Spine) -> dict[str, Any]:
    """The JSON document; a home that could not be had is null, with the reason in `notes`."""
    filled = spine.filled
    assert filled is not None  # the embedded home is always there

    def speeds(name: str) -> dict[str, float | None]:
        return {
            home: round(filled.frames / median(getattr(spine.turns[home], name)), 1) if home in spine.turns else None
            for home in HOMES
        }

    def ratios(name: str) -> dict[str, float | None]:
        return {
            home: round(median(turns.ratios(getattr(turns, name))), 3) if (turns := spine.turns.get(home)) else None
            for home in HOMES
        }

    return {
        "schema": SCHEMA,
        "frames_per_s": {"bare": speeds("bare"), "step": speeds("step")},
        "step_over_bare": ratios("bare"),
        "bare_without_presence": speeds("careless"),
        "step_over_bare_without_presence": ratios("careless"),
        "turns": {home: len(spine.turns[home].step) if home in spine.turns else 0 for home in HOMES},
        "restore_s": round(spine.restore_s, 4),
        "checkpoint_s": round(spine.checkpoint_s, 4),
        "checkpoint_bytes": spine.checkpoint_bytes,
        "bytes_per_engine": round(spine.bytes_per_engine),
        "traffic": {
            "frames": filled.frames,
            "ticks": filled.ticks,
            "inputs": filled.end,
            "engines": NODES * PER_NODE,
            "per_frame": {"gpus": PER_NODE, "engines": PER_NODE},
        },
        "machine": {
            "python": platform.python_version(),
            "protobuf": f"{protobuf_version} {api_implementation.Type()}",
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
        },
        "notes": spine.notes,
    }
