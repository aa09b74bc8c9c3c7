"""What engines of the laboratory say of themselves, asked again and again; and what an operator's `flyball` prints.

It looks from outside, through their HTTP door, and judges nothing.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from flyball_core.fencing import Version
from flyball_core.ids import LogId
from flyball_core.knobs import Value
from laboratory.processes import until

LOOK_S = 0.05
ASK_S = 5.0
"""Longest wait for one answer of a process."""
COMMAND_S = 60.0
"""Longest run of one command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one engine said of itself at one moment."""

    at_s: float
    """Monotonic."""
    values: Mapping[str, Value]
    held: Version | None
    state: str
    """Whether it is attached."""
    phase: str
    renewals: int
    streams: int
    acks: Mapping[str, int]
    refusal: str
    eased: bool


class Watched:
    """One engine of a process of `laboratory.lab_engines`; `looks` are all looks so far."""

    def __init__(self, http: str, engine: str) -> None:
        self.http = http
        self.engine = engine
        self.looks: list[Look] = []

    async def look(self) -> Look:
        """Look now."""
        said = (await asked(self.http, "/engines"))[self.engine]
        held = None
        if said["held"]:
            log_id, partition, epoch, revision = said["held"]
            held = Version(log_id=LogId(log_id), partition=partition, epoch=epoch, revision=revision)
        told = {name: said[name] for name in ("values", "state", "phase", "renewals", "streams", "acks", "eased")}
        self.looks.append(Look(at_s=time.monotonic(), held=held, refusal=said["refusal"], **told))
        return self.looks[-1]

    async def holding(self, values: Mapping[str, Value], within_s: float) -> Look:
        """Look until it has these values."""

        async def there() -> Look | None:
            look = await self.look()
            return look if values.items() <= look.values.items() else None

        found = await until(f"{self.engine} at {dict(values)}", there, within_s, every_s=LOOK_S)
        assert isinstance(found, Look)
        return found


async def asked(http: str, path: str) -> dict[str, Any]:
    """What GET `path` at HOST:PORT answers, whatever its status."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
        session.get(f"http://{http}{path}") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def told(http: str, path: str) -> dict[str, Any]:
    """What POST `path` at HOST:PORT answers."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session,
        session.post(f"http://{http}{path}") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def flyball(*words: str) -> tuple[int, str]:
    """Exit code and output, of both streams, of the installed `flyball WORDS`."""
    command: Sequence[str] = (sys.executable, "-c", "from flyball_cli.main import main; main()", *words)
    running = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(COMMAND_S):
            out, _ = await running.communicate()
    except TimeoutError:
        running.kill()
        await running.wait()
        raise
    return running.returncode or 0, out.decode(errors="replace")


async def flyball_json(*words: str) -> dict[str, Any]:
    """The document that `flyball WORDS --json` prints, whatever its exit code."""
    _, text = await flyball(*words, "--json")
    found: dict[str, Any] = json.loads(text)
    return found
