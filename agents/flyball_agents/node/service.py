"""`flyball agent`: the parts of one node's agent put together, and run until told to stop.

It samples from the first moment, whatever is missing: an engine, the driver, the log. What it cannot
send it keeps in its spool. It ends only when it is told to, or for its own configuration's faults.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from flyball_agents.accounting import Witness
from flyball_agents.agent_loop import BeatCounts, Pace, run_agent, wait_for
from flyball_agents.node.appending import DEADLINE_S, GrpcAppender, LaterAppender, WatchedAppender, reach
from flyball_agents.node.life import one_life
from flyball_agents.node.measures import AgentMeasures, AgentParts, beat_seconds, scrape_seconds
from flyball_agents.node.reading_thread import ReadingThread
from flyball_agents.node.scraping import PageLimits, PageSampler, keep_scraping, page_session
from flyball_agents.node.targets import page_readers
from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import Sampler
from flyball_agents.shipper import Shipper
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import Rejected
from flyball_core.ids import AgentId, BootId
from flyball_log.opening import is_kafka
from flyball_proto.codec import encode_frame
from flyball_service.certificate_measures import CertificateMeasures, expiries_of, watch_expiry
from flyball_service.channels import Backoff
from flyball_service.config import AgentConfig, Config, GpuSource
from flyball_service.exposing import new_registry, serve_http
from flyball_service.health import Health
from flyball_service.kafka import LOG, open_log_patiently
from flyball_service.running import own_name, refusal_in
from flyball_service.tls import Tls

_SPOOL = "spool"
_LEAD = 0.5
"""Sources are read so much of a period before the beat, so that each beat finds a new reading."""
_PERIODS_OF_AGE = 1.5
_LEAST_AGE_S = 2.0
"""A reading older than so many periods, and than this, is not a reading of this beat."""
_ALIVE_S = 15.0
"""The beat is missed for so long before the agent calls itself dead."""
_THREAD_ENDS_S = 2.0
"""Longest wait for the driver when the agent ends."""
_REACH_FIRST_S, _REACH_MOST_S = 0.5, 8.0

if TYPE_CHECKING:
    from flyball_agents.node.nvml import NvmlSampler

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAddresses:
    """Where an agent can be asked about itself."""

    http: int
    """Port of `/metrics`, `/live` and `/ready`."""


async def run_agent_service(
    config: Config,
    stop: asyncio.Event,
    *,
    started: Callable[[AgentAddresses], None] | None = None,
    sources: Sequence[Sampler] = (),
    witness: Witness | None = None,
) -> None:
    """Run the agent of the section `agent` until `stop` is set; `started` is told where it can be asked.

    `sources` are read beside those of the section; `witness` is told of every frame.

    Raises `Rejected` and `Fatal` for what no waiting heals: a section that makes no sense, a folder that
    another agent uses, an address that cannot be listened on, certificates that cannot be read.
    """
    section = config.agent
    if section is None:
        raise Rejected(f"{config.file} has no section `agent`")
    name = AgentId(own_name(section.name))
    folder = config.state / "agent" / name
    with one_life(folder) as boot:
        try:
            await _Life(config, section, name, boot, folder, sources=sources, witness=witness).run(stop, started)
        except BaseExceptionGroup as group:
            if (refusal := refusal_in(group)) is None:
                raise
            raise refusal from group


class _Life:
    """One agent from its start to its end: what it is made of, and the tasks that keep it going."""

    def __init__(
        self,
        config: Config,
        section: AgentConfig,
        name: AgentId,
        boot: BootId,
        folder: Path,
        *,
        sources: Sequence[Sampler],
        witness: Witness | None,
    ) -> None:
        self._config, self._section = config, section
        self._pace = Pace(clock=time.monotonic, wall_clock=time.time, period_s=section.period_s)
        self._health, self.registry = Health(), new_registry()
        self._pages = _page_samplers(section, boot, self.registry)
        self._nvml = _nvml_sampler(section)
        self._kafka = LaterAppender() if is_kafka(config.log) else None
        tls = None if config.tls is None else Tls(config.tls, role="agent", name=name)
        self._expiries = expiries_of(config, tls)
        self.registry.register(CertificateMeasures("agent", self._expiries))
        self._door = self._kafka or GrpcAppender(section.controllers, tls)
        self._appender = WatchedAppender(self._door, self._health)
        limits = SpoolLimits(most_bytes=int(section.spool.megabytes * 1e6), most_age_s=section.spool.age_s)
        self._spool = Spool(folder / _SPOOL, limits, witness)
        self._shipper = Shipper(self._spool, random.Random())
        self._agent = NodeAgent(
            agent=name,
            boot=boot,
            samplers=[*([self._nvml] if self._nvml is not None else []), *self._pages, *sources],
            spool=self._spool,
            shipper=self._shipper,
            encode=encode_frame,
            most_age_s=max(_LEAST_AGE_S, _PERIODS_OF_AGE * section.period_s),
        )
        self._counts = BeatCounts(took=beat_seconds(self.registry).observe)
        log.info("agent_starts", agent=name, boot=boot, engines=len(section.engines), frames_kept=self._spool.waiting)
        for other in sorted(folder.parent.glob(f"*/{_SPOOL}")):
            if other.parent != folder and any(other.glob("*.seg")):
                # A controller takes frames of their own agent alone, so nobody else can send them.
                log.warning("frames_of_another_name", folder=str(other), agent=other.parent.name)

    async def run(self, stop: asyncio.Event, started: Callable[[AgentAddresses], None] | None) -> None:
        """Everything until `stop` is set, then the end of everything."""
        self.registry.register(AgentMeasures(self._parts()))
        self._health.waits_for(LOG, "not reached yet")
        async with AsyncExitStack() as closing:
            closing.callback(self._spool.close)
            closing.push_async_callback(self._door.close)
            http = await serve_http(self._section.http, self.registry, self._health)
            closing.push_async_callback(http.close)
            session = await closing.enter_async_context(page_session())
            if self._nvml is not None:
                thread = ReadingThread(self._nvml, clock=self._pace.clock, period_s=self._section.period_s)
                thread.start()
                closing.push_async_callback(_end, thread)
            if started is not None:
                started(AgentAddresses(http=http.port))
            await self._work(stop, session)

    async def _work(self, stop: asyncio.Event, session: aiohttp.ClientSession) -> None:
        clock, period_s = self._pace.clock, self._section.period_s
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(keep_scraping(page, session, stop=stop, clock=clock, period_s=period_s))
                for page in self._pages
            ]
            beside.append(tasks.create_task(self._reach(stop)))
            beside.append(tasks.create_task(self._watch(stop)))
            beside.append(tasks.create_task(watch_expiry(self._expiries.values())))
            await wait_for(stop, _LEAD * period_s)
            await run_agent(
                self._agent,
                self._shipper,
                self._spool,
                self._appender,
                stop=stop,
                pace=self._pace,
                counts=self._counts,
            )
            for task in beside:
                task.cancel()

    async def _reach(self, stop: asyncio.Event) -> None:
        """Come to the log, however long it takes."""
        if self._kafka is None:
            await reach(self._appender, stop, Backoff(random.Random(), _REACH_FIRST_S, _REACH_MOST_S).next_s)
            return
        # A live frame that waits longer for its append is none any more, and those behind it wait too.
        opened = await open_log_patiently(self._config, self._health, stop, append_timeout_s=DEADLINE_S)
        if opened is not None:
            self._kafka.opened(opened)
            self._shipper.hurry()

    async def _watch(self, stop: asyncio.Event) -> None:
        """Say that the agent is alive as long as its beat goes on."""
        kept = -1
        while not stop.is_set():
            if self._counts.beats != kept:
                kept = self._counts.beats
                self._health.beat("sampling", self._pace.clock(), _ALIVE_S + self._section.period_s)
            await wait_for(stop, self._section.period_s)

    def _parts(self) -> AgentParts:
        return AgentParts(
            spool=self._spool,
            shipper=self._shipper,
            sampling=self._agent.sampling,
            beats=self._counts,
            appender=self._appender,
            pages=self._pages,
            nvml=self._nvml,
        )


def _page_samplers(section: AgentConfig, boot: BootId, registry: CollectorRegistry) -> list[PageSampler]:
    took = scrape_seconds(registry)
    limits = PageLimits(timeout_s=section.scrape_timeout_s)
    return [
        PageSampler(url, reader, limits, took=took.labels(kind=reader.kind, id=reader.id).observe)
        for url, reader in page_readers(section, boot)
    ]


def _nvml_sampler(section: AgentConfig) -> "NvmlSampler | None":
    if section.gpus is not GpuSource.NVML:
        return None
    from flyball_agents.node.nvml import NvmlSampler  # a node without GPUs needs no pynvml

    return NvmlSampler(random.Random())


async def _end(thread: ReadingThread) -> None:
    if not await asyncio.to_thread(thread.stop, _THREAD_ENDS_S):
        log.warning("nvml_left_hanging", waited_s=_THREAD_ENDS_S)
