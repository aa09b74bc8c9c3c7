"""Fault 19: an engine is cut off from every controller, its node agent with it, and comes back after its lease.

The line is a black hole: nobody is told. What the engine's knobs are is asked of the engine itself, some twenty times a
second; what it said when it came back, and what it was told, is read in the log.
"""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flyball_core.fencing import Version
from flyball_core.inputs import Ack, AckStatus, Attach, Body, Tick
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, Value
from flyball_log import open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actors, until
from laboratory.proxy import Proxy
from laboratory.scale import report, scaled
from laboratory.watching import LOOK_S, Look, Watched, flyball

HOLD_S = scaled(6.0, 60.0)
TICK_S = 1.0
POLICY = f"""\
version: 1
mode: control
hold: {HOLD_S:g}s
lanes:
  realtime: {{priority: 0, ttft: 2s, tpot: 30ms, longest_wait: 20s}}
knobs:
  max_active_requests: {{min: 4, max: 128}}
"""
PINNED: dict[str, Value] = {BATCH_CAP: 8, TOKEN_BUDGET: 3072}
"""Where both engines are pinned: one knob below its safe value, one above."""
SAFE: dict[str, Value] = {BATCH_CAP: 64, TOKEN_BUDGET: 2048}
UP_PER_S, DOWN_PER_S = 1.5, 0.6
"""The slew of easing, as the promise has it."""
STEP_S = 0.25
"""Most time that one step of easing makes up for, beside what two looks do not see."""


@asynccontextmanager
async def two_engines(folder: Path) -> AsyncIterator[tuple[Fleet, Proxy, Watched, Watched]]:
    """A controller and two engines in processes of their own, one behind a proxy, both at what they are pinned at."""
    with Actors(folder) as actors:
        fleet = Fleet(actors, str(folder / "log"), tick_s=TICK_S, policies={POOL: POLICY})
        controller = fleet.controller("c1")
        controller.start()
        grpc_door, http_door = fleet.doors["c1"]
        await controller.process.ready(http_door)
        async with Proxy(grpc_door) as line:
            watched = []
            for name, door in (("far", line.address), ("near", grpc_door)):
                http = f"127.0.0.1:{lasting_port()}"
                words = ["--controllers", door, "--engines", name, "--pool", POOL, "--name", name, "--http", http]
                words += ["--state", str(folder / name), "--record", str(fleet.record), "--frames"]
                actor = actors.start(name, *words, module="laboratory.lab_engines")
                await actor.process.ready(http)
                watched.append(Watched(http, name))
            for knob, value in PINNED.items():
                order = ("override", "set", POOL, knob, str(value), "--for", "1h", "--reason", "a test", "--wait", "0s")
                code, said = await flyball(*order, "--controller", grpc_door)
                assert code == 0, said
            for one in watched:
                await one.holding(PINNED, 30.0)
            yield fleet, line, watched[0], watched[1]


async def cut_after_a_renewal(line: Proxy, engine: Watched) -> Look:
    """Cut the line just after a heartbeat has renewed the engine's lease; the look that saw it."""
    before = (await engine.look()).renewals

    async def renewed() -> bool:
        return (await engine.look()).renewals > before

    await until("a heartbeat", renewed, 5.0, every_s=LOOK_S / 2)
    line.cut()
    return engine.looks[-1]


def too_fast(looks: Sequence[Look], knob: str) -> list[tuple[float, Value]]:
    """Looks, and seconds since the motion began, at which a knob had moved further than its slew allows."""
    begin = looks[0].values[knob]
    began_s = next(one.at_s for one in looks if one.values[knob] != begin) - STEP_S - 2 * LOOK_S
    found: list[tuple[float, Value]] = []
    for look in looks:
        value, for_s = look.values[knob], max(0.0, look.at_s - began_s)
        assert isinstance(value, int)
        assert isinstance(begin, int)
        least, most = math.floor(begin * DOWN_PER_S**for_s) - for_s, math.ceil(begin * UP_PER_S**for_s) + for_s
        if not least <= value <= most:
            found.append((for_s, value))
    return found


async def inputs_of(log_folder: str) -> list[tuple[int, Body]]:
    """Everything in the log's inputs."""
    log = await open_log(log_folder, read_only=True)
    try:
        found: list[tuple[int, Body]] = []
        partition = log.partition_of(POOL)
        at = (await log.bounds(Topic.INPUTS, partition)).begin
        while records := await log.read(Topic.INPUTS, partition, at):
            at = records[-1].offset + 1
            found += [(record.offset, decode_input(record.offset, record.value).body) for record in records]
        return found
    finally:
        await log.close()


def eased(values: Mapping[str, Value]) -> bool:
    """Whether both knobs have moved to their safe values, or are on the way."""
    return bool(values) and all(values[knob] != pinned for knob, pinned in PINNED.items())


def return_of(engine: str, held: Version | None, inputs: Sequence[tuple[int, Body]]) -> tuple[Attach, int]:
    """What an engine said when it came back with eased values, and within how many ticks it had taken something new."""
    back = next(
        (offset, body)
        for offset, body in inputs
        if isinstance(body, Attach) and body.target == engine and body.held == held and eased(body.effective)
    )
    taken = next(
        offset
        for offset, body in inputs
        if isinstance(body, Ack) and offset > back[0] and body.target == engine and body.status is AckStatus.APPLIED
    )
    return back[1], sum(isinstance(body, Tick) for offset, body in inputs if back[0] < offset < taken)


@pytest.mark.timeout(120 if HOLD_S < 10 else 300)
async def test_f19_an_engine_partitioned_holds_for_hold_ttl_1_s_more_or_less_eases_under_slew_and_is_back_in_2_ticks(
    tmp_path: Path,
) -> None:
    """Cut off, it keeps its setting for the hold time, then eases; it says what it held, and is led from there."""
    async with two_engines(tmp_path) as (fleet, line, far, near):
        last = await cut_after_a_renewal(line, far)
        first_look = len(far.looks) - 1
        await far.holding(SAFE, HOLD_S + 15.0)
        looks = far.looks[first_look:]
        moved = next(one for one in looks if one.values != last.values)
        held_s = moved.at_s - last.at_s
        eased_s = looks[-1].at_s - moved.at_s
        assert (await near.look()).values.items() >= PINNED.items()
        line.heal()
        await far.holding({BATCH_CAP: PINNED[BATCH_CAP]}, 40.0)
        fleet.actors.all["c1"].stop()

    back, ticks = return_of("far", last.held, await inputs_of(fleet.log))
    report("f19", hold_s=HOLD_S, held_s=round(held_s, 2), eased_in_s=round(eased_s, 2), ticks_to_converge=ticks)

    assert abs(held_s - HOLD_S) <= 1.0
    assert [] == too_fast(looks, BATCH_CAP) + too_fast(looks, TOKEN_BUDGET)
    assert last.held is not None
    assert eased(back.effective)
    assert ticks <= 2
