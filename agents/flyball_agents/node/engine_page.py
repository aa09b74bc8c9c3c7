"""From an engine's page to samples, one per data-parallel rank, and what is missing in them.

Decides nothing about an engine: a value that is not there, or is no number that it could have,
is missing and named. What a page has beyond the table of names is ignored.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from prometheus_client.samples import Sample

from flyball_agents.node.engine_names import (
    CAPACITY,
    CAPACITY_INFO,
    CAPACITY_LABELS,
    CAPACITY_TOLD,
    MODEL_LABEL,
    RANK_LABEL,
    VLLM,
    Metric,
)
from flyball_agents.node.incarnations import Incarnations
from flyball_agents.node.pages import (
    ABSENT,
    FOREIGN,
    MALFORMED,
    PROCESS_START,
    WRONG_MODEL,
    PageParser,
    PageRefused,
    number_of,
    parts_fault,
    told_by_start,
)
from flyball_agents.sampling import PooledEngine, Reading
from flyball_core.frames import ENGINE_NUMBERS, EngineSample
from flyball_core.ids import BootId, EngineId, PoolId
from flyball_service.config import ScrapedEngine

MOST_RANKS = 64
"""A page with more data-parallel ranks is not believed."""

AMBIGUOUS = "ambiguous"
"""The page has several series of it within a rank, and none is the rank's."""

_MOST_DIGITS = 12

_PLACES: dict[str, tuple[Metric, int]] = {
    name: (metric, place) for metric in VLLM for place, name in enumerate(metric.names)
}
_COUNTERS = frozenset(name for name in ENGINE_NUMBERS if name.endswith(("_total", "_sum", "_count")))


class _Rank:
    """What the page says of one rank."""

    def __init__(self) -> None:
        self.capacity: float | None = None
        self._series: dict[str, tuple[int, list[float]]] = {}

    def take(self, metric: Metric, place: int, number: float) -> None:
        """Take one series; what stands under a newer name of the same value goes before an older one."""
        held = self._series.get(metric.value)
        if held is None or place < held[0]:
            self._series[metric.value] = (place, [number])
        elif place == held[0]:
            held[1].append(number)

    def numbers(self, missing: dict[str, str], renamed: dict[str, str]) -> dict[str, float]:
        """The rank's values; what is missing or renamed is noted."""
        numbers: dict[str, float] = {}
        for metric in VLLM:
            place, series = self._series.get(metric.value, (0, []))
            fault = _series_fault(metric, series)
            if fault:
                missing[metric.value] = fault
            elif series and not (metric.zero_is_missing and not any(series)):
                numbers[metric.value] = sum(series)
            if place and metric.expected:
                renamed[metric.value] = metric.names[place]
        if self.capacity is None:
            missing[CAPACITY] = ABSENT
        else:
            numbers[CAPACITY] = self.capacity
        return numbers


def _series_fault(metric: Metric, series: Sequence[float]) -> str:
    if not series:
        return ABSENT if metric.expected else ""
    if len(series) > 1 and not metric.summed:
        return AMBIGUOUS
    return parts_fault(metric.value, series)


def _rank_of(sample: Sample) -> int:
    rank = sample.labels.get(RANK_LABEL, "0")
    if not (rank.isascii() and rank.isdecimal() and len(rank) <= 4):
        raise PageRefused(MALFORMED, f"{RANK_LABEL}={rank!r} is no rank")
    return int(rank)


def _capacity_of(sample: Sample, ranks: int) -> float | None:
    """Tokens that the KV cache of one of the page's ranks holds; None if the engine does not say."""
    told = _whole(sample.labels.get(CAPACITY_TOLD, ""))
    blocks, block_tokens = (_whole(sample.labels.get(label, "")) for label in CAPACITY_LABELS)
    return told or blocks * block_tokens / ranks or None


def _whole(text: str) -> float:
    """The whole number that a label holds; 0 for none, as labels are of every kind."""
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else 0.0


class EngineReader:
    """The pages of one engine."""

    kind = "engine"

    def __init__(self, target: ScrapedEngine, boot: BootId) -> None:
        self.id = target.engine
        self.missing: Mapping[str, str] = {}
        """Expected values that the last page lacked in some rank, and why."""
        self.renamed: Mapping[str, str] = {}
        """Values that it had under an older name, and that name."""
        self.missed: Counter[str] = Counter()
        """How many pages lacked each expected value."""
        self.incarnations = Incarnations(target.engine, boot)
        self._target = target
        self._parser = PageParser([*_PLACES, CAPACITY_INFO, PROCESS_START])

    def read(self, page: bytes, now_s: float) -> Reading:
        """The engine as a page from `now_s` shows it. Raises `PageRefused`."""
        samples = self._parser.samples(page)
        self._check_model({sample.labels[MODEL_LABEL] for sample in samples if MODEL_LABEL in sample.labels})
        ranks = _by_rank(samples)
        missing: dict[str, str] = {}
        renamed: dict[str, str] = {}
        numbers = {rank: said.numbers(missing, renamed) for rank, said in sorted(ranks.items())}
        counters: dict[Hashable, float] = {
            (rank, name): number for rank, said in numbers.items() for name, number in said.items() if name in _COUNTERS
        }
        incarnation = self.incarnations.of(told_by_start(self.id, samples), counters)
        self.missing, self.renamed = missing, renamed
        self.missed.update(missing.keys())
        target = self._target
        return Reading(
            now_s,
            engines=tuple(
                PooledEngine(
                    PoolId(target.pool),
                    EngineSample(
                        EngineId(target.engine),
                        incarnation,
                        rank,
                        target.gpus,
                        target.variant,
                        *(said.get(name) for name in ENGINE_NUMBERS),
                    ),
                )
                for rank, said in numbers.items()
            ),
        )

    def _check_model(self, models: set[str]) -> None:
        wanted = self._target.model
        if wanted and models != {wanted}:
            raise PageRefused(WRONG_MODEL, f"is of {', '.join(sorted(models)) or 'no model'}, not of {wanted}")
        if len(models) > 1:
            raise PageRefused(WRONG_MODEL, f"is of several models: {', '.join(sorted(models))}")


def _by_rank(samples: Sequence[Sample]) -> dict[int, _Rank]:
    ranks: dict[int, _Rank] = {}
    capacities: dict[int, Sample] = {}
    for sample in samples:
        if sample.name == PROCESS_START:
            continue
        number = _rank_of(sample)
        rank = ranks.setdefault(number, _Rank())
        if sample.name == CAPACITY_INFO:
            capacities[number] = sample
        else:
            rank.take(*_PLACES[sample.name], number_of(sample))
    for number, sample in capacities.items():
        ranks[number].capacity = _capacity_of(sample, len(ranks))
    if not ranks:
        raise PageRefused(FOREIGN, "has none of the metrics that are looked for")
    if len(ranks) > MOST_RANKS:
        raise PageRefused(MALFORMED, f"has {len(ranks)} ranks; the most believed is {MOST_RANKS}")
    return ranks
