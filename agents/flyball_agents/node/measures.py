"""What an agent says of itself at `/metrics`, read off the living parts when somebody asks.

Keeps no number of its own but how long scrapes took. Labels are bounded by what the node has: its
engines and gateways, its GPUs, NVML's calls and error names.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball_agents.agent_loop import BeatCounts
from flyball_agents.node.appending import WatchedAppender
from flyball_agents.node.scraping import PageSampler
from flyball_agents.sampling import Sampling
from flyball_agents.shipper import Shipper
from flyball_agents.spool import Spool

if TYPE_CHECKING:
    from flyball_agents.node.nvml import NvmlSampler

_PREFIX = "flyball_agent_"
_PAGE = ("kind", "id")
_SCRAPE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_BEAT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentParts:
    """The living parts of one agent."""

    spool: Spool
    shipper: Shipper
    sampling: Sampling
    beats: BeatCounts
    appender: WatchedAppender
    pages: Sequence[PageSampler]
    nvml: "NvmlSampler | None"


def scrape_seconds(registry: CollectorRegistry) -> Histogram:
    """How long scrapes took, by kind and id of what was scraped."""
    return Histogram(
        f"{_PREFIX}scrape_seconds",
        "From asking for a page to its last byte parsed, or to giving it up.",
        _PAGE,
        buckets=_SCRAPE_BUCKETS_S,
        registry=registry,
    )


def beat_seconds(registry: CollectorRegistry) -> Histogram:
    """How long beats took: nothing that an agent waits for may show here."""
    return Histogram(
        f"{_PREFIX}beat_seconds",
        "From the beginning of a beat until everything was sampled and lay in the spool.",
        buckets=_BEAT_BUCKETS_S,
        registry=registry,
    )


class AgentMeasures(Collector):
    """The families of one agent; register it with a registry."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        """All families, as they stand now."""
        yield from self._frames()
        yield from self._sources()
        yield from self._pages()
        if self._parts.nvml is not None:
            yield from _gpus(self._parts.nvml)

    def _frames(self) -> Iterator[Metric]:
        parts, account = self._parts, self._parts.spool.accounting
        yield _count("frames_sampled", "Frames taken into the spool.", account.taken)
        yield _count("frames_recovered", "Frames of earlier lives found in the spool.", account.recovered)
        yield _count("frames_sent", "Frames handed to the log, repeats included.", parts.shipper.attempts)
        yield _count("frames_delivered", "Frames that the log has confirmed.", account.delivered)
        yield _count("frames_synced", "Frames that the disk had for sure before the log had them.", account.synced)
        yield _counts("frames_dropped", "Frames given up.", ("reason",), _single(account.dropped))
        yield _gauge("spool_frames", "Frames neither delivered nor dropped.", parts.spool.waiting)
        yield _gauge("spool_bytes", "Bytes of the spool on disk.", parts.spool.bytes_on_disk)
        yield _count("spool_sync_failures", "Files of the spool that could not be synced.", parts.spool.sync_failures)
        yield _counts("appends", "Appends by outcome.", ("outcome",), _single(parts.appender.outcomes))
        yield _count("beats", "Times that everything was sampled.", parts.beats.beats)
        yield _count("beats_skipped", "Times that could not be kept, and were not made up for.", parts.beats.skipped)

    def _sources(self) -> Iterator[Metric]:
        troubles = dict(self._parts.sampling.troubles)
        yield _counts(
            "source_troubles",
            "Samples that a source had nothing new for (raised), had too late, or had as no finite number.",
            ("source", "trouble"),
            troubles.items(),
        )
        up = _gauges("source_up", "Whether the source gave something when it was last read.", ("source",))
        for page in self._parts.pages:
            up.add_metric((page.name,), not page.trouble)
        if self._parts.nvml is not None:
            up.add_metric((self._parts.nvml.name,), not self._parts.nvml.down)
        yield up

    def _pages(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            f"{_PREFIX}scrape_failures", "Scrapes of which nothing was taken.", labels=(*_PAGE, "reason")
        )
        size = _gauges("page_bytes", "Size of the last page that was taken.", _PAGE)
        missing = _gauges("value_missing", "1 for a value that the last page lacked.", (*_PAGE, "value", "reason"))
        missed = CounterMetricFamily(f"{_PREFIX}values_missed", "Pages that lacked a value.", labels=(*_PAGE, "value"))
        renamed = _gauges("value_renamed", "1 for a value found under an older name.", (*_PAGE, "value", "name"))
        seen = CounterMetricFamily(f"{_PREFIX}incarnations", "Starts of it that were seen.", labels=_PAGE)
        for page in self._parts.pages:
            reader = page.reader
            who = (reader.kind, reader.id)
            size.add_metric(who, page.page_bytes)
            seen.add_metric(who, reader.incarnations.seen)
            for reason, number in page.failures.items():
                failures.add_metric((*who, reason), number)
            for value, why in reader.missing.items():
                missing.add_metric((*who, value, why), 1)
            for value, number in reader.missed.items():
                missed.add_metric((*who, value), number)
            for value, name in reader.renamed.items():
                renamed.add_metric((*who, value, name), 1)
        yield from (failures, size, missing, missed, renamed, seen)


def _gpus(nvml: "NvmlSampler") -> Iterator[Metric]:
    gpus = nvml.gpus
    yield _count("nvml_openings", "Times that NVML was opened.", nvml.openings)
    # Copied at once: the thread that reads may add to it meanwhile.
    yield _counts("nvml_errors", "Calls of NVML that gave no answer.", ("call", "code"), dict(nvml.door.errors).items())
    counted = _gauges("gpus", "GPUs that are read, and those that are not, by why.", ("state",))
    counted.add_metric(("read",), len(gpus))
    absent = list(dict(nvml.absent).values())
    for code in sorted(set(absent)):
        counted.add_metric((code,), absent.count(code))
    yield counted
    missing = _gauges("gpu_value_missing", "1 for a value that the last reading lacked.", ("gpu", "value", "reason"))
    for gpu in gpus:
        for value, why in gpu.missing.items():
            missing.add_metric((str(gpu.index), value, why), 1)
    yield missing


def _single(counts: Mapping[str, int]) -> list[tuple[tuple[str], int]]:
    return [((name,), number) for name, number in counts.items()]


def _count(name: str, text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, value=value)


def _counts(
    name: str, text: str, labels: Sequence[str], counts: Iterable[tuple[Sequence[str], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for values, number in counts:
        family.add_metric(values, number)
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _gauges(name: str, text: str, labels: Sequence[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=labels)
