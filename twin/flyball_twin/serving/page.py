"""The small engine's Prometheus page: vLLM's names and labels, and a few of its own.

Everything is read when the page is asked for, from the incarnation that runs: after a relaunch all
counters start at zero and `process_start_time_seconds` is another, as with a new process. What vLLM
does not have stands under `flyball_twin_`. The page refuses to be served while the engine is down.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flyball_twin.physics import BLOCK_TOKENS
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.tallies import Tally

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABELS = ("model_name", "engine")


class EnginePage(Collector):
    """The page of one engine under the name of the model that it serves; `more` gives what else stands on it."""

    def __init__(self, paced: PacedEngine, model: str, more: Callable[[], Iterable[Metric]] = tuple) -> None:
        self._paced, self._more = paced, more
        self._values = (model, "0")
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def render(self) -> bytes:
        """The page as it is now."""
        self._paced.advance()
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Every family of the page."""
        yield from self._gauges()
        yield from self._counters()
        yield from self._histograms()
        yield from self._own()
        yield from self._more()

    def _gauges(self) -> Iterator[Metric]:
        batch = self._paced.engine.batch
        yield self._gauge("vllm:num_requests_running", "Requests in the running batch.", batch.running)
        yield self._gauge("vllm:num_requests_waiting", "Requests that wait to be admitted.", len(batch.waiting))
        used = batch.kv.used / batch.kv.capacity
        yield self._gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use; 1 is full.", used)
        labels = ("block_size", "num_gpu_blocks", "engine")
        config = GaugeMetricFamily("vllm:cache_config_info", "The KV cache as it was configured.", labels=labels)
        config.add_metric((str(BLOCK_TOKENS), str(batch.kv.capacity), "0"), 1.0)
        yield config
        text = "When this incarnation began to serve, Unix time."
        yield GaugeMetricFamily("process_start_time_seconds", text, self._paced.started_wall_s)

    def _counters(self) -> Iterator[Metric]:
        counters = self._paced.engine.counters
        yield self._counter("vllm:prompt_tokens", "Prompt tokens computed.", counters.prompt_tokens)
        yield self._counter("vllm:generation_tokens", "Tokens put out.", counters.generation_tokens)
        yield self._counter("vllm:num_preemptions", "Requests taken back for want of KV blocks.", counters.preemptions)
        over = CounterMetricFamily(
            "vllm:request_success", "Requests that are over, by reason.", labels=(*_LABELS, "finished_reason")
        )
        for reason, number in self._paced.tallies.finished.items():
            over.add_metric((*self._values, reason), number)
        yield over
        # Zero where it is switched off, as vLLM's: nothing is ever asked of it.
        yield self._counter(
            "vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", counters.prefix_queries
        )
        yield self._counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", counters.prefix_hits)
        text = "Estimated bytes read from HBM."
        yield self._counter("vllm:estimated_read_bytes_per_gpu", text, counters.read_bytes)
        text = "Estimated floating-point operations."
        yield self._counter("vllm:estimated_flops_per_gpu", text, counters.flops)

    def _histograms(self) -> Iterator[Metric]:
        tallies = self._paced.tallies
        for name, text, tally in (
            ("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.", tallies.ttft),
            ("vllm:inter_token_latency_seconds", "Between two tokens of a request.", tallies.itl),
            ("vllm:e2e_request_latency_seconds", "From a request's arrival to its last token.", tallies.e2e),
            ("vllm:request_queue_time_seconds", "From a request's arrival to its first step.", tallies.queue),
        ):
            yield self._histogram(name, text, tally)

    def _own(self) -> Iterator[Metric]:
        engine, late = self._paced.engine, self._paced.late
        yield self._counter("flyball_twin_steps", "Steps of this incarnation.", engine.counters.steps)
        text = "Time that the steps of this incarnation took."
        yield self._counter("flyball_twin_step_seconds", text, engine.counters.step_s)
        text = "How far behind their ends steps were settled, summed up over all incarnations."
        yield self._counter("flyball_twin_lag_seconds", text, late.total_s)
        text = "Requests that relaunches cut off, over all incarnations."
        yield self._counter("flyball_twin_lost_requests", text, self._paced.lost)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _histogram(self, name: str, text: str, tally: Tally) -> Metric:
        family = HistogramMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, tally.cumulative(), tally.total)
        return family
