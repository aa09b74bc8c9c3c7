"""From a gateway's page to samples, one per lane.

The names are those of Flyball's own small gateway. A gateway that does not tell lanes apart gives
one sample without a lane.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from prometheus_client.samples import Sample

from flyball_agents.node.incarnations import Incarnations
from flyball_agents.node.pages import (
    ABSENT,
    FOREIGN,
    MALFORMED,
    PROCESS_START,
    WRONG_GATEWAY,
    PageParser,
    PageRefused,
    number_of,
    parts_fault,
    told_by_start,
)
from flyball_agents.sampling import PooledGateway, Reading
from flyball_core.frames import GATEWAY_NUMBERS, GatewaySample
from flyball_core.ids import BootId, GatewayId, PoolId
from flyball_service.config import ScrapedGateway

MOST_LANES = 64
"""A page with more lanes is not believed."""

MOST_NAME = 200
"""Nor is one with a longer name of a lane or an incarnation, in characters: all go into the frame, beside engines."""

INFO = "flyball_gateway_info"
NAMES = {
    "flyball_gateway_requests_queued": "requests_queued",
    "flyball_gateway_requests_in_flight": "requests_in_flight",
    "flyball_gateway_requests_total": "requests_total",
    "flyball_gateway_queue_seconds_sum": "queue_s_sum",
    "flyball_gateway_queue_seconds_count": "queue_count",
}
"""Values of a gateway sample by their names on the page; `lane` tells lanes apart."""

_COUNTERS = frozenset({"requests_total", "queue_s_sum", "queue_count"})


class GatewayReader:
    """The pages of one gateway."""

    kind = "gateway"

    def __init__(self, target: ScrapedGateway, boot: BootId) -> None:
        self.id = target.gateway
        self.missing: Mapping[str, str] = {}
        """Values that the last page lacked in some lane, and why."""
        self.renamed: Mapping[str, str] = {}
        """Always empty: no name has changed so far."""
        self.missed: Counter[str] = Counter()
        """How many pages lacked each value."""
        self.incarnations = Incarnations(target.gateway, boot)
        self._target = target
        self._parser = PageParser([*NAMES, INFO, PROCESS_START])

    def read(self, page: bytes, now_s: float) -> Reading:
        """The gateway as a page from `now_s` shows it. Raises `PageRefused`."""
        samples = self._parser.samples(page)
        told = self._told(samples)
        lanes = _by_lane(samples)
        missing: dict[str, str] = {}
        numbers = {lane: _numbers(series, missing) for lane, series in sorted(lanes.items())}
        counters: dict[Hashable, float] = {
            (lane, name): number for lane, said in numbers.items() for name, number in said.items() if name in _COUNTERS
        }
        incarnation = self.incarnations.of(told, counters)
        self.missing = missing
        self.missed.update(missing.keys())
        pool, gateway = PoolId(self._target.pool), GatewayId(self._target.gateway)
        return Reading(
            now_s,
            gateways=tuple(
                PooledGateway(
                    pool, GatewaySample(gateway, incarnation, lane, *(said.get(name) for name in GATEWAY_NUMBERS))
                )
                for lane, said in numbers.items()
            ),
        )

    def _told(self, samples: Sequence[Sample]) -> str:
        """The incarnation that the page tells, itself or by when its process started; empty if it does not."""
        for sample in samples:
            if sample.name == INFO:
                name = sample.labels.get("gateway", "")
                if name != self.id:
                    raise PageRefused(WRONG_GATEWAY, f"is of {name or 'no gateway'}, not of {self.id}")
                return _name(sample, "incarnation")
        return told_by_start(self.id, samples)


def _name(sample: Sample, label: str) -> str:
    name = sample.labels.get(label, "")
    if len(name) > MOST_NAME:
        raise PageRefused(MALFORMED, f"names a {label} in {len(name)} characters; the most believed is {MOST_NAME}")
    return name


def _by_lane(samples: Sequence[Sample]) -> dict[str, dict[str, list[float]]]:
    lanes: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        if sample.name in NAMES:
            series = lanes.setdefault(_name(sample, "lane"), {})
            series.setdefault(NAMES[sample.name], []).append(number_of(sample))
    if not lanes:
        raise PageRefused(FOREIGN, "has none of the metrics that are looked for")
    if len(lanes) > MOST_LANES:
        raise PageRefused(MALFORMED, f"has {len(lanes)} lanes; the most believed is {MOST_LANES}")
    return lanes


def _numbers(series: Mapping[str, Sequence[float]], missing: dict[str, str]) -> dict[str, float]:
    """A lane's values; series of one name within a lane are parts of a sum. What is missing is noted."""
    numbers: dict[str, float] = {}
    for name in GATEWAY_NUMBERS:
        parts = series.get(name, ())
        fault = parts_fault(name, parts) if parts else ABSENT
        if fault:
            missing[name] = fault
        else:
            numbers[name] = sum(parts)
    return numbers
