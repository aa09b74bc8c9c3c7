"""What an agent can read on this node, found out once: for `flyball agent --check`.

Asks the same sources through the same code as a running agent, and writes nothing: no spool, no
boot, no frame. Every value is named, with where it comes from, or why it is missing and what would help.
"""

import asyncio
import random
import time
from dataclasses import dataclass

import aiohttp

from flyball_agents.node.nvml import NOT_OPENED, NvmlSampler
from flyball_agents.node.nvml_gpu import SOURCES, NvmlGpu
from flyball_agents.node.reading_thread import ReadingThread
from flyball_agents.node.scraping import PageLimits, PageSampler, page_session
from flyball_agents.node.targets import page_readers
from flyball_agents.sampling import Reading
from flyball_core.errors import Retryable
from flyball_core.frames import ENGINE_NUMBERS, GATEWAY_NUMBERS, EngineSample, GatewaySample, GpuSample
from flyball_core.ids import BootId
from flyball_service.config import AgentConfig, GpuSource
from flyball_service.running import own_name

DRIVER_S = 10.0
"""Longest wait for the driver."""
_BETWEEN_S = 0.25
"""Time between the two readings that a bandwidth needs."""
_THREAD_ENDS_S = 1.0

REMEDIES = {
    "NO_PERMISSION": (
        "run the agent with more rights, or let users read performance counters "
        "(driver option NVreg_RestrictProfilingToAdminUsers=0)"
    ),
    "LIBRARY_NOT_FOUND": (
        "install NVIDIA's driver, or give the container its library (libnvidia-ml.so.1); "
        "say `agent.gpus: none` where there are no GPUs"
    ),
    "DRIVER_NOT_LOADED": "load NVIDIA's kernel module",
    "LIB_RM_VERSION_MISMATCH": "the driver was exchanged: start the agent, or its container, anew",
    "NOT_SUPPORTED": "this GPU or its driver does not tell it (HBM bandwidth needs Hopper or newer)",
    "FUNCTION_NOT_FOUND": "a newer driver tells it",
    "GPU_IS_LOST": "the GPU fell off the bus: reset it, or boot the node anew",
    "MIG": "GPUs in MIG mode tell it only slice by slice, which is not read",
}
"""What helps against an error of NVML; nothing for those that pass, or that we know no help for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueFound:
    """One value of a GPU."""

    value: str
    """Its name in a sample."""
    source: str
    """Where it comes from."""
    number: float | None
    missing: str
    """Why it is missing, in one word; empty if it is there."""

    @property
    def remedy(self) -> str:
        """What would help; empty if nothing is known to."""
        return REMEDIES.get(self.missing, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFound:
    """One GPU that is read."""

    gpu: int
    uuid: str
    model: str
    mig: bool
    values: tuple[ValueFound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpusFound:
    """The node's GPUs."""

    source: GpuSource
    trouble: str
    """Why no GPU is read, as CALL: ERROR; empty if they are, or are not to be."""
    gpus: tuple[GpuFound, ...] = ()
    absent: tuple[tuple[int, str], ...] = ()
    """GPUs that are there and not read, by index, and why."""

    @property
    def remedy(self) -> str:
        """What would help against `trouble`."""
        return REMEDIES.get(self.trouble.rpartition(": ")[2], "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFound:
    """One page, as it was when it was asked for."""

    kind: str
    id: str
    url: str
    trouble: str
    """Why nothing of it is taken, as REASON: CLAUSE; empty if it is."""
    seconds: float
    bytes: int
    parts: int
    """Data-parallel ranks of an engine, lanes of a gateway."""
    incarnation: str
    found: tuple[str, ...]
    """Values that it gives, by their names in a sample."""
    missing: tuple[tuple[str, str], ...]
    """Expected values that it lacks, and why."""
    renamed: tuple[tuple[str, str], ...]
    """Values found under an older name, and that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFound:
    """All that an agent would read."""

    agent: str
    gpus: GpusFound
    pages: tuple[PageFound, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is missing."""
        values = [value for gpu in self.gpus.gpus for value in gpu.values]
        return not (
            self.gpus.trouble
            or self.gpus.absent
            or any(value.missing for value in values)
            or any(page.trouble or page.missing for page in self.pages)
        )


async def check_agent(section: AgentConfig) -> AgentFound:
    """Read every source of the section once. Ends within the driver's and the pages' bounds; raises `Rejected`."""
    samplers = [
        PageSampler(url, reader, PageLimits(timeout_s=section.scrape_timeout_s))
        for url, reader in page_readers(section, BootId("check"))
    ]
    async with page_session() as session:
        pages = asyncio.gather(*(_page(sampler, session) for sampler in samplers))
        gpus = await _gpus(section.gpus)
        return AgentFound(agent=own_name(section.name), gpus=gpus, pages=tuple(await pages))


async def _page(sampler: PageSampler, session: aiohttp.ClientSession) -> PageFound:
    began_s = time.monotonic()
    await sampler.scrape(session, time.monotonic)
    took_s = time.monotonic() - began_s
    reader = sampler.reader
    reading = sampler.sample(began_s) if not sampler.trouble else Reading(began_s)
    samples: list[EngineSample | GatewaySample] = [one.sample for one in reading.engines]
    samples += [one.sample for one in reading.gateways]
    return PageFound(
        kind=reader.kind,
        id=reader.id,
        url=sampler.url,
        trouble=sampler.trouble,
        seconds=took_s,
        bytes=sampler.page_bytes,
        parts=len(samples),
        incarnation=samples[0].incarnation if samples else "",
        found=tuple(
            name
            for name in dict.fromkeys((*ENGINE_NUMBERS, *GATEWAY_NUMBERS))
            if any(getattr(sample, name, None) is not None for sample in samples)
        ),
        missing=tuple(sorted(reader.missing.items())),
        renamed=tuple(sorted(reader.renamed.items())),
    )


async def _gpus(source: GpuSource) -> GpusFound:
    if source is not GpuSource.NVML:
        return GpusFound(source=source, trouble="")
    nvml = NvmlSampler(random.Random())
    thread = ReadingThread(nvml, clock=time.monotonic, period_s=_BETWEEN_S)
    thread.start()
    until_s = time.monotonic() + DRIVER_S
    while nvml.readings < 2 and nvml.down in ("", NOT_OPENED) and time.monotonic() < until_s:  # noqa: ASYNC110 - a thread is waited for
        await asyncio.sleep(_BETWEEN_S / 10)
    trouble = f"NVML: no answer within {DRIVER_S:g} s" if nvml.down == NOT_OPENED else nvml.down
    gpus, absent = nvml.gpus, tuple(sorted(nvml.absent.items()))
    try:
        samples = {sample.gpu_index: sample for sample in nvml.sample(until_s).gpus}
    except Retryable:
        samples = {}
    found = tuple(_gpu(gpu, samples[gpu.index]) for gpu in gpus if gpu.index in samples)
    await asyncio.to_thread(thread.stop, _THREAD_ENDS_S)
    return GpusFound(source=source, trouble=trouble, gpus=found, absent=absent)


def _gpu(gpu: NvmlGpu, sample: GpuSample) -> GpuFound:
    numbers = sample._asdict()
    return GpuFound(
        gpu=gpu.index,
        uuid=gpu.uuid,
        model=gpu.model,
        mig=gpu.mig,
        values=tuple(
            ValueFound(
                value=value,
                source=where,
                number=None if value in gpu.missing else numbers[value],
                missing=gpu.missing.get(value, ""),
            )
            for value, where in SOURCES.items()
        ),
    )
