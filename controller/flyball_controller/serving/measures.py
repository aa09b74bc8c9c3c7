"""What the controller counts of itself, for `/metrics`.

Labels are bounded: partitions, kinds, reasons, and pools up to a limit; never engines. What can be read
off the living state is read when somebody asks, and kept nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball_core.inputs import Ack, AckStatus

MOST_POOLS = 1_000
"""Pools with numbers of their own; those beyond share one label."""

OTHERS = "_others"
Label = TypeVar("Label", str, int)
_TICK_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The living state in numbers, at one moment."""

    tick_age_s: dict[int, float]
    """By partition owned: seconds since its last tick."""
    inputs_behind: dict[int, int]
    pools_by_mode: dict[str, int]
    stale_pools: int
    streams_by_kind: dict[str, int]
    heartbeat_age_s: dict[str, float]
    """By pool of the log: age of the newest heartbeat read here, by wall clock. Leases reach only as far."""
    ignored_records: int
    handshakes: int = 0
    """Connections over TLS that began."""
    connections: int = 0
    """Connections that came to a call."""
    samples_waiting: dict[int, int] = field(default_factory=dict)
    """By partition: samples appended through this controller that their owner has not read."""
    inputs_set_aside: dict[str, int] = field(default_factory=dict)
    """Inputs of the partitions owned that belong to no pool or cannot be read, by reason."""


class Measures:
    """Counters and histograms of one controller, and gauges from what `now` answers."""

    def __init__(self, registry: CollectorRegistry, now: Callable[[], Now]) -> None:
        self._pools: set[str] = set()
        self.tick_s = Histogram(
            "flyball_controller_tick_seconds",
            "From appending a tick to having published its answers.",
            buckets=_TICK_BUCKETS_S,
            registry=registry,
        )
        self._pushes = _counter(registry, "pushes", "Messages sent to receivers.", "kind")
        self._superseded = _counter(registry, "superseded", "Messages that a newer one replaced unsent.", "kind")
        self._acks = _counter(registry, "acks", "Directives and tables that receivers took.", "pool")
        self._nacks = _counter(registry, "nacks", "Directives and tables that receivers refused.", "pool")
        self._refused = _counter(registry, "attaches_refused", "Attach streams refused or ended from here.", "reason")
        self._callers_refused = _counter(registry, "callers_refused", "Calls refused for who called.", "reason")
        self._orders = _counter(registry, "orders", "Operators' orders by what became of them.", "outcome")
        self._appends_refused = _counter(registry, "appends_refused", "Appends refused at the door.", "reason")
        self._shed = _counter(registry, "frames_shed", "Frames kept out to come again later.", "reason")
        self._reads_refused = _counter(registry, "reads_refused", "Operators' reads refused.", "reason")
        self._failures = _counter(registry, "failures", "Failures that a loop survived.", "loop")
        self.appended_records = _counter(registry, "appended_records", "Records appended for agents.")
        self.appended_bytes = _counter(registry, "appended_bytes", "Bytes appended for agents.")
        self.claims = _counter(registry, "claims", "Partitions taken.")
        self.losses = _counter(registry, "ownerships_lost", "Partitions lost to a later claim.")
        registry.register(_Living(now))

    def pushed(self, kind: str) -> None:
        """A message was sent."""
        self._pushes.labels(kind).inc()

    def superseded(self, kind: str) -> None:
        """A message was replaced unsent."""
        self._superseded.labels(kind).inc()

    def acked(self, ack: Ack) -> None:
        """A receiver answered."""
        counter = self._nacks if ack.status is AckStatus.NACK else self._acks
        counter.labels(self._pool(ack.pool)).inc()

    def ended(self, reason: str) -> None:
        """An attach stream was refused or ended from here."""
        self._refused.labels(reason).inc()

    def caller_refused(self, reason: str) -> None:
        """Somebody called who is not allowed to, or in another's name."""
        self._callers_refused.labels(reason).inc()

    def ordered(self, outcome: str) -> None:
        """An operator's order came to this."""
        self._orders.labels(outcome).inc()

    def append_refused(self, reason: str) -> None:
        """An append was refused at the door."""
        self._appends_refused.labels(reason).inc()

    def shed(self, reason: str, frames: int) -> None:
        """So many frames were kept out."""
        self._shed.labels(reason).inc(frames)

    def read_refused(self, reason: str) -> None:
        """An operator's read was refused at the door."""
        self._reads_refused.labels(reason).inc()

    def failed(self, loop: str) -> None:
        """A loop met an error and went on."""
        self._failures.labels(loop).inc()

    def _pool(self, name: str) -> str:
        if name not in self._pools and len(self._pools) >= MOST_POOLS:
            return OTHERS
        self._pools.add(name)
        return name


def _counter(registry: CollectorRegistry, name: str, documentation: str, *labels: str) -> Counter:
    return Counter(f"flyball_controller_{name}", documentation, labels, registry=registry)


class _Living(Collector):
    """Gauges of the state as it is when they are asked for."""

    def __init__(self, now: Callable[[], Now]) -> None:
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: before the log is open there is no state to ask."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The gauges."""
        now = self._now()
        heartbeats = dict(sorted(now.heartbeat_age_s.items())[:MOST_POOLS])
        yield _gauge("partitions_owned", "Partitions in this controller's hands.", "", {"": len(now.tick_age_s)})
        yield _gauge("tick_age_seconds", "Since the last tick of a partition owned.", "partition", now.tick_age_s)
        yield _gauge("inputs_behind", "Inputs known and not stepped through.", "partition", now.inputs_behind)
        yield _gauge("samples_waiting", "Samples appended here and not read yet.", "partition", now.samples_waiting)
        yield _gauge("inputs_set_aside", "Inputs unreadable or of no pool.", "reason", now.inputs_set_aside)
        yield _gauge("pools", "Pools owned here, by mode.", "mode", now.pools_by_mode)
        yield _gauge("stale_pools", "Pools owned here without recent telemetry.", "", {"": now.stale_pools})
        yield _gauge("streams", "Receivers attached here.", "kind", now.streams_by_kind)
        yield _gauge("heartbeat_age_seconds", "Age of the newest heartbeat of a pool.", "pool", heartbeats)
        yield _gauge(
            "ignored_records",
            "Records of the directives topic that were overtaken or of no use.",
            "",
            {"": now.ignored_records},
        )
        yield _total("handshakes", "Connections over TLS that began, those refused included.", now.handshakes)
        yield _total("connections", "Connections that came to a call.", now.connections)


def _total(name: str, documentation: str, value: int) -> Metric:
    family = CounterMetricFamily(f"flyball_controller_{name}", documentation)
    family.add_metric([], value)
    return family


def _gauge(name: str, documentation: str, label: str, values: Mapping[Label, float]) -> Metric:
    family = GaugeMetricFamily(f"flyball_controller_{name}", documentation, labels=[label] if label else [])
    for key, value in values.items():
        family.add_metric([str(key)] if label else [], value)
    return family
