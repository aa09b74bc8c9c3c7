"""Prometheus itself (Debian's build), as the judge of our pages: it scrapes targets and says what it thinks of them.

Without the programs the tests that ask for them are skipped with the reason, unless
FLYBALL_REQUIRE=all is set: then they fail.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prometheus_programs.py"
_PREREQUISITE_MISSING = 3
_HOST = "127.0.0.1"
_INTERVAL_S = 1
_PATIENCE_S = 60.0
_STOP_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One target, as Prometheus sees it."""

    job: str
    up: bool
    error: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """What some scrapes came to."""

    targets: Mapping[str, Target]
    log: tuple[str, ...]

    @property
    def complaints(self) -> list[str]:
        """The lines of Prometheus' log that are warnings or worse."""
        return [line for line in self.log if "level=info" not in line and "level=debug" not in line]


@dataclass(frozen=True, slots=True)
class Prometheus:
    """The two programs; `folder` holds them."""

    folder: Path

    def promtool(self, *arguments: str, page: str | None = None, cwd: Path | None = None) -> tuple[int, str]:
        """Run promtool, `page` on its standard input: its exit status, and all that it said."""
        done = subprocess.run(
            [str(self.folder / "promtool"), *arguments],
            input=page,
            stdin=subprocess.DEVNULL if page is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
            cwd=cwd,
        )
        return done.returncode, done.stdout + done.stderr

    async def scrape(self, targets: Mapping[str, str], home: Path, *, scrapes: int = 3) -> Scraped:
        """Let Prometheus scrape HOST:PORT of each job until every one answered `scrapes` times.

        A target that does not is given up after a minute, and then not `up`. `home` is an empty folder.
        """
        config = home / "prometheus.yml"
        config.write_text(_config(targets))
        log = home / "prometheus.log"
        port = _free_port()
        process = await self._start(config, log, port)
        try:
            await _until_scraped(process, f"http://{_HOST}:{port}", tuple(targets), scrapes)
            found = await _targets(f"http://{_HOST}:{port}")
            lines = tuple(log.read_text().splitlines())  # before it is stopped, which it logs as a warning
        finally:
            await _stop(process)
        return Scraped(targets=found, log=lines)

    async def _start(self, config: Path, log: Path, port: int) -> asyncio.subprocess.Process:
        with log.open("wb") as out:
            return await asyncio.create_subprocess_exec(
                str(self.folder / "prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={config.parent / 'data'}",
                f"--web.listen-address={_HOST}:{port}",
                "--log.level=info",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )


def _config(targets: Mapping[str, str]) -> str:
    jobs = [{"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()]
    every = f"{_INTERVAL_S}s"
    return yaml.safe_dump({"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": jobs})


def _free_port() -> int:
    # Prometheus does not tell which port it got for 0.
    with socket.create_server((_HOST, 0)) as server:
        return int(server.getsockname()[1])


async def _get(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as answer:
        answer.raise_for_status()
        return json.loads(await answer.text())["data"]


async def _samples(session: aiohttp.ClientSession, base: str) -> dict[str, int]:
    found = await _get(session, f"{base}/api/v1/query?query=sum_over_time(up[1h])")
    return {one["metric"]["job"]: int(float(one["value"][1])) for one in found["result"]}


async def _until_scraped(process: asyncio.subprocess.Process, base: str, jobs: tuple[str, ...], scrapes: int) -> None:
    until_s = time.monotonic() + _PATIENCE_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < until_s and process.returncode is None:
            with suppress(aiohttp.ClientError):  # it is not listening yet, or not ready
                counted = await _samples(session, base)
                if all(counted.get(job, 0) >= scrapes for job in jobs):
                    return
            await asyncio.sleep(0.2)


async def _targets(base: str) -> dict[str, Target]:
    async with aiohttp.ClientSession() as session:
        try:
            counted = await _samples(session, base)
            active = (await _get(session, f"{base}/api/v1/targets"))["activeTargets"]
        except aiohttp.ClientError:
            return {}
    return {
        one["labels"]["job"]: Target(
            job=one["labels"]["job"],
            up=one["health"] == "up",
            error=one["lastError"],
            samples=counted.get(one["labels"]["job"], 0),
        )
        for one in active
    }


async def _stop(process: asyncio.subprocess.Process) -> None:
    for end in (process.terminate, process.kill):
        with suppress(ProcessLookupError):
            end()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_S)
            return


async def pages_of(addresses: Mapping[str, str]) -> dict[str, str]:
    """The page that each address serves at /metrics."""
    found: dict[str, str] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0)) as session:
        for name, address in addresses.items():
            async with session.get(f"http://{address}/metrics") as answer:
                found[name] = await answer.text()
    return found


@pytest.fixture(scope="session")
def prometheus() -> Prometheus:
    """Prometheus and promtool, from the path or from Debian's package."""
    done = subprocess.run([sys.executable, str(_SCRIPT), "install"], capture_output=True, text=True, check=False)
    if done.returncode == _PREREQUISITE_MISSING and os.environ.get("FLYBALL_REQUIRE") != "all":
        pytest.skip(done.stderr.strip())
    if done.returncode:
        pytest.fail(f"no Prometheus: {done.stderr.strip()}")
    return Prometheus(Path(done.stdout.strip()))
