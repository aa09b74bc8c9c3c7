"""Fault 20: an engine restarts cold while there is no controller.

The engine is a small one with real doors, so that what counts is what its clients see: when the first token comes, and how
many of them are served at once, which is its cap.
"""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from flyball_core.knobs import BATCH_CAP
from harness.controller_calls import metric
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actor, Actors, until
from laboratory.scale import full, report, scaled
from laboratory.watching import flyball

HOLD_S = scaled(14.0, 60.0)
STARTS = scaled(2, 10)
PINNED, SAFE = 8, 256
"""The engine's cap as pinned, and its safe one."""
CLIENTS = 24
"""More than the one and fewer than the other."""
NOISE_S = 0.5
"""What two best starts may differ by on a busy machine; a wait for a controller takes seconds."""
POLICY = f"""\
version: 1
mode: control
hold: {HOLD_S:g}s
guard: {{slew_down: 0.01}}
"""


class SmallEngine:
    """`flyball twin serve` with one engine, as its clients know it."""

    def __init__(self, actors: Actors, folder: Path, controller: str) -> None:
        self.http = f"127.0.0.1:{lasting_port()}"
        lines = [f"state: {folder / 'receivers'}", "tls: none", "twin:", f"  pool: {POOL}"]
        lines += [f"  controllers: ['{controller}']", f"  engines: [{{engine: e0, listen: '{self.http}'}}]"]
        (folder / "twin.yaml").write_text("\n".join(lines) + "\n")
        self.actor: Actor = actors.add("engine", "twin", "serve", "--config", str(folder / "twin.yaml"))
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30.0))

    async def close(self) -> None:
        """Ask no more."""
        await self._session.close()

    async def first_token_s(self) -> float:
        """Kill it, start it, and see how long that takes until its first client has a token."""
        self.actor.kill()
        began_s = time.monotonic()
        self.actor.start()
        await until("a first token", lambda: self._served(1), 30.0, every_s=0.02)
        return time.monotonic() - began_s

    async def serves_at_once(self) -> int:
        """How many of many clients are served at the same time."""
        clients = [asyncio.create_task(self._served(400)) for _ in range(CLIENTS)]
        most = 0
        for _ in range(10):
            await asyncio.sleep(0.05)
            most = max(
                most, int(await metric(self.http, "vllm:num_requests_running", engine="0", model_name="flyball-twin"))
            )
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        return most

    async def _served(self, tokens: int) -> bool:
        asked = {"prompt": "How fast?", "max_tokens": tokens, "stream": True}
        try:
            async with self._session.post(f"http://{self.http}/v1/completions", json=asked) as answer:
                return b"data:" in await answer.content.readline() and not await _rest(answer)
        except aiohttp.ClientConnectionError:
            return False


async def _rest(answer: aiohttp.ClientResponse) -> bool:
    """Read to the end; False."""
    async for _ in answer.content:
        pass
    return False


@pytest.mark.timeout(120 if not full() else 400)
async def test_f20_an_engine_restarted_cold_without_a_controller_serves_in_its_normal_start_time_with_what_it_held(
    tmp_path: Path,
) -> None:
    """Its first token waits for no controller; its setting is the last-known-good within `hold_ttl`, else the safe one."""
    with Actors(tmp_path) as actors:
        fleet = Fleet(actors, str(tmp_path / "log"), policies={POOL: POLICY})
        controller = fleet.controller("c1")
        controller.start()
        grpc_door, http_door = fleet.doors["c1"]
        await controller.process.ready(http_door)
        engine = SmallEngine(actors, tmp_path, grpc_door)
        try:
            normal_s = [await engine.first_token_s() for _ in range(STARTS)]

            async def attached() -> bool:
                pool = await fleet.pool()
                return pool is not None and any(one.attached for one in pool.targets)

            await until("the engine attached", attached, 20.0)
            order = ("override", "set", POOL, BATCH_CAP, str(PINNED), "--for", "1h", "--reason", "a test")
            code, said = await flyball(*order, "--controller", grpc_door)
            assert code == 0, said
            assert PINNED == await engine.serves_at_once()
            controller.kill()
            gone_s = time.monotonic()
            alone_s = [await engine.first_token_s() for _ in range(STARTS)]
            held = await engine.serves_at_once()
            assert time.monotonic() - gone_s < HOLD_S, "the machine is too slow for this hold time"
            engine.actor.kill()
            await asyncio.sleep(gone_s + HOLD_S + 1.0 - time.monotonic())
            late_s = await engine.first_token_s()
            eased = await engine.serves_at_once()
        finally:
            await engine.close()

    figures = {"normal_s": min(normal_s), "alone_s": min(alone_s), "after_hold_s": late_s}
    report("f20", starts=STARTS, hold_s=HOLD_S, **{name: round(value, 2) for name, value in figures.items()})

    assert (PINNED, CLIENTS) == (held, eased)
    assert min(alone_s) <= min(normal_s) + NOISE_S
    assert late_s <= max(normal_s) + NOISE_S
