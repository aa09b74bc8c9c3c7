"""The gateway's numbers for Prometheus, read from plain counters when somebody asks.

`flyball agent` reads the same page: the names of requests, queue and in-flight by lane are a contract.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

from flyball_agents.gateway.admission import Admission
from flyball_agents.gateway.forwarding import ForwardCounts
from flyball_agents.offers import Target


class GatewayMetrics(Collector):
    """One gateway's numbers; register it with a registry."""

    def __init__(self, target: Target, admission: Admission, counts: ForwardCounts) -> None:
        self._target = target
        self._admission = admission
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All families, as they stand now."""
        who = GaugeMetricFamily(
            "flyball_gateway_info", "This gateway's name and incarnation.", labels=("gateway", "incarnation")
        )
        who.add_metric((self._target.name, self._target.incarnation), 1)
        yield who
        yield from self._of_lanes()
        yield from self._of_engines()
        yield from self._of_requests()

    def _of_lanes(self) -> Iterable[Metric]:
        lanes = self._admission.lanes
        queued = GaugeMetricFamily(
            "flyball_gateway_requests_queued", "Requests that wait for a place.", labels=("lane",)
        )
        flying = GaugeMetricFamily(
            "flyball_gateway_requests_in_flight", "Requests at an engine, not answered in full yet.", labels=("lane",)
        )
        total = CounterMetricFamily("flyball_gateway_requests", "Requests that came, once each.", labels=("lane",))
        waits = SummaryMetricFamily(
            "flyball_gateway_queue_seconds", "How long requests waited for a place, given up or not.", labels=("lane",)
        )
        for lane, counts in lanes.items():
            queued.add_metric((lane,), counts.queued)
            flying.add_metric((lane,), counts.in_flight)
            total.add_metric((lane,), counts.requests)
            waits.add_metric((lane,), counts.waits, counts.waited_s)
        return queued, flying, total, waits

    def _of_engines(self) -> Iterable[Metric]:
        balancer = self._admission.balancer
        up = GaugeMetricFamily("flyball_gateway_engine_up", "Whether the engine answers.", labels=("engine",))
        weight = GaugeMetricFamily(
            "flyball_gateway_engine_weight", "Share of new requests, 0 to 256.", labels=("engine",)
        )
        cap = GaugeMetricFamily(
            "flyball_gateway_engine_cap", "Most requests in flight at the engine; 0 is none.", labels=("engine",)
        )
        flying = GaugeMetricFamily(
            "flyball_gateway_engine_in_flight", "Requests at the engine, not answered in full yet.", labels=("engine",)
        )
        for engine in balancer.engines:
            up.add_metric((engine,), balancer.is_up(engine))
            weight.add_metric((engine,), balancer.weight(engine))
            cap.add_metric((engine,), balancer.cap(engine))
            flying.add_metric((engine,), balancer.in_flight(engine))
        return up, weight, cap, flying

    def _of_requests(self) -> Iterable[Metric]:
        counts = self._counts
        answers = CounterMetricFamily(
            "flyball_gateway_engine_responses", "Answers begun, by class of status.", labels=("engine", "code")
        )
        for (engine, code), number in sorted(counts.responses.items()):
            answers.add_metric((engine, code), number)
        refused = CounterMetricFamily(
            "flyball_gateway_requests_refused", "Requests that the gateway answered by itself.", labels=("reason",)
        )
        for reason, number in sorted(counts.refused.items()):
            refused.add_metric((reason,), number)
        return (
            answers,
            refused,
            CounterMetricFamily(
                "flyball_gateway_requests_retried", "Requests sent to a second engine.", value=counts.retried
            ),
            CounterMetricFamily(
                "flyball_gateway_answers_broken_off",
                "Answers that ended too early with their engine.",
                value=counts.broken_off,
            ),
            CounterMetricFamily(
                "flyball_gateway_clients_gone", "Requests whose client left before the end.", value=counts.clients_gone
            ),
        )
