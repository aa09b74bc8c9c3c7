"""Fault 20: an engine restarts cold while there is no controller.

The engine is a small one with real doors, so that what counts is what its clients see: when the first token comes, and
how many of them are served at once, which is its cap.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from flyball_core.knobs import BATCH_CAP
from harness.controller_calls import metric
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actor, Actors, until
from laboratory.scale import full, report, scaled
from laboratory.watching import flyball

HOLD_S = scaled(14.0, 120.0)
STARTS = scaled(2, 10)
PINNED = 8
"""The engine's cap as pinned; its safe one is 256."""
CLIENTS = 24
"""More than the one and fewer than the other."""
NOISE_S = 0.5
"""What two starts side by side may differ by on a busy machine at best; a wait for a controller takes seconds."""
POLICY = f"""\
version: 1
mode: control
hold: {HOLD_S:g}s
guard: {{slew_down: 0.1}}
"""


class SmallEngine:
    """`flyball twin serve` with one engine, as its clients know it."""

    def __init__(self, actors: Actors, name: str, controller: str) -> None:
        self.http = f"127.0.0.1:{lasting_port()}"
        self._name = name
        lines = [f"state: {actors.folder / name}", "tls: none", "twin:", f"  pool: {POOL}"]
        lines += [f"  controllers: ['{controller}']", f"  engines: [{{engine: e0, listen: '{self.http}'}}]"]
        file = actors.folder / f"{name}.yaml"
        file.write_text("\n".join(lines) + "\n")
        self.actor: Actor = actors.add(name, "twin", "serve", "--config", str(file))

    async def first_token_s(self) -> float:
        """Kill it, start it, and see how long that takes until its first client has a token."""
        self.actor.kill()
        began_s = time.monotonic()
        self.actor.start()
        await until(f"a first token of {self._name}", lambda: self._served(1), 30.0, every_s=0.02)
        return time.monotonic() - began_s

    async def serves_at_once(self) -> int:
        """How many of many clients are served at the same time."""
        clients = [asyncio.create_task(self._served(400)) for _ in range(CLIENTS)]
        most = 0
        for _ in range(10):
            await asyncio.sleep(0.05)
            running = await metric(self.http, "vllm:num_requests_running", engine="0", model_name="flyball-twin")
            most = max(most, int(running))
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return most

    async def _served(self, tokens: int) -> bool:
        """Whether it gives a client that many tokens."""
        asked = {"prompt": "How fast?", "max_tokens": tokens, "stream": True}
        timeout = aiohttp.ClientTimeout(total=30.0)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"http://{self.http}/v1/completions", json=asked) as answer,
            ):
                return b"[DONE]" in await answer.read()
        except aiohttp.ClientConnectionError:
            return False


async def started_controllers(fleets: Sequence[Fleet]) -> None:
    """One controller of each fleet, ready."""
    for fleet in fleets:
        fleet.controller("c1").start()
    for fleet in fleets:
        await fleet.actors.all["c1"].process.ready(fleet.doors["c1"][1])


async def pinned(fleet: Fleet) -> None:
    """Pin the engine's cap, once it is attached, and wait until it holds that."""

    async def attached() -> bool:
        pool = await fleet.pool()
        return pool is not None and any(one.attached for one in pool.targets)

    await until("the engine attached", attached, 20.0)
    order = ("override", "set", POOL, BATCH_CAP, str(PINNED), "--for", "1h", "--reason", "a test")
    code, said = await flyball(*order, "--controller", fleet.doors["c1"][0])
    assert code == 0, said


@pytest.mark.timeout(400 if full() else 120)
async def test_f20_an_engine_restarted_cold_without_a_controller_serves_in_its_normal_start_time_with_what_it_held(
    tmp_path: Path,
) -> None:
    """Its first token waits for nobody; its setting is the last-known-good within `hold_ttl`, else the safe one.

    Beside each start without a controller the same engine is started with one, so that both meet the same machine.
    """
    folders = [tmp_path / "governed", tmp_path / "alone"]
    for folder in folders:
        folder.mkdir()
    with Actors(folders[0]) as governed, Actors(folders[1]) as left:
        fleets = [Fleet(actors, str(actors.folder / "log"), policies={POOL: POLICY}) for actors in (governed, left)]
        await started_controllers(fleets)
        normal, alone = (SmallEngine(one.actors, "engine", one.doors["c1"][0]) for one in fleets)
        await asyncio.gather(normal.first_token_s(), alone.first_token_s())
        await pinned(fleets[1])
        assert PINNED == await alone.serves_at_once()
        left.all["c1"].kill()
        gone_s = time.monotonic()
        pairs = [await asyncio.gather(normal.first_token_s(), alone.first_token_s()) for _ in range(STARTS)]
        held = await alone.serves_at_once()
        assert time.monotonic() - gone_s < HOLD_S, "the machine is too slow for this hold time"
        alone.actor.kill()
        await asyncio.sleep(gone_s + HOLD_S + 1.0 - time.monotonic())
        pairs.append(await asyncio.gather(normal.first_token_s(), alone.first_token_s()))
        eased = await alone.serves_at_once()

    normal_s, alone_s = (round(median(times), 2) for times in zip(*pairs, strict=True))
    report("f20", starts=len(pairs), hold_s=HOLD_S, normal_s=normal_s, alone_s=alone_s)

    assert (PINNED, CLIENTS) == (held, eased)
    assert min(without - beside for beside, without in pairs) <= NOISE_S
