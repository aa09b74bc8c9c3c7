"""Which engines answer: failed requests say that one is down, `GET /health` says when it is back.

An engine counts as up until something says otherwise. A connection that is refused or broken
before an answer began takes it down at once; a probe that is slow or answered with a 5xx only when
several follow each other. One answered probe brings it back. It retries no request.
"""

import asyncio
from dataclasses import dataclass, field

import aiohttp
import structlog

from flyball_agents.gateway.admission import Admission
from flyball_core.ids import EngineId

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeLimits:
    """How often and how patient, in seconds."""

    period_s: float = 2.0
    timeout_s: float = 5.0
    fall: int = 3
    """Probes in a row without a good answer that take an engine down."""


@dataclass(slots=True)
class Probing:
    """Watches one engine; drive it with `run`."""

    engine: EngineId
    url: str
    """The base URL."""
    admission: Admission
    session: aiohttp.ClientSession
    limits: ProbeLimits
    failed_probes: int = 0
    _now: asyncio.Event = field(default_factory=asyncio.Event)

    def failed(self, why: str) -> None:
        """A request met no engine there, or lost it before an answer began."""
        self._turn(up=False, why=why)
        self._now.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self._probe()
            try:
                async with asyncio.timeout(self.limits.period_s):
                    await self._now.wait()
            except TimeoutError:
                pass
            else:
                # A moment's pause: where every request fails, each must not cost a probe of its own.
                await asyncio.sleep(self.limits.period_s / 20)
            self._now.clear()

    async def _probe(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self.limits.timeout_s)
        try:
            async with self.session.get(f"{self.url}/health", timeout=timeout, allow_redirects=False) as answer:
                why = f"health: {answer.status}" if answer.status >= 500 else ""
        except aiohttp.ClientConnectorError as error:
            self._turn(up=False, why=str(error))
            return
        except (aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or type(error).__name__
        self.failed_probes = self.failed_probes + 1 if why else 0
        if not why or self.failed_probes >= self.limits.fall:
            self._turn(up=not why, why=why)

    def _turn(self, *, up: bool, why: str) -> None:
        if self.admission.balancer.is_up(self.engine) != up:
            log.info("engine_up", engine=self.engine) if up else log.warning("engine_down", engine=self.engine, why=why)
            self.admission.set_up(self.engine, up=up)
