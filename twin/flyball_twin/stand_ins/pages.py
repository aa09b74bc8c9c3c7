"""vLLM's Prometheus page at its full size, made by the client library that vLLM itself uses.

The twin's own engines serve a smaller page, of what they simulate. This one has every family of one large server
that Flyball reads and most of those that it must skip; its numbers are moved by hand and have no physics.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MODEL = "llama-3.1-8b"
"""The model's name on every line, unless another is given."""
_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_TOKENS = tuple(float(2**power) for power in range(18))

HISTOGRAMS = {
    "time_to_first_token_seconds": _SECONDS,
    "inter_token_latency_seconds": _SECONDS,
    "request_time_per_output_token_seconds": _SECONDS,
    "e2e_request_latency_seconds": _SECONDS,
    "request_queue_time_seconds": _SECONDS,
    "request_inference_time_seconds": _SECONDS,
    "request_prefill_time_seconds": _SECONDS,
    "request_decode_time_seconds": _SECONDS,
    "request_prompt_tokens": _TOKENS,
    "request_generation_tokens": _TOKENS,
    "iteration_tokens_total": _TOKENS,
    "request_max_num_generation_tokens": _TOKENS,
    "request_params_n": _TOKENS,
    "request_params_max_tokens": _TOKENS,
    "request_num_preemptions": _TOKENS,
}
REASONS = ("stop", "length", "abort", "error")
CONFIG = {
    "block_size": "16",
    "cache_dtype": "auto",
    "calculate_kv_scales": "False",
    "cpu_kvcache_space_bytes": "None",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.9",
    "is_attention_free": "False",
    "kv_cache_memory_bytes": "None",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "num_cpu_blocks": "None",
    "num_gpu_blocks": "27890",
    "num_gpu_blocks_override": "None",
    "prefix_caching_hash_algo": "sha256",
    "sliding_window": "None",
    "swap_space": "4.0",
    "swap_space_bytes": "4294967296.0",
}


class VllmPage:
    """One vLLM server's metrics, moved as its ranks work.

    Of one rank some 500 lines: 42 kB, or 52 kB where the model's name has 37 letters, for it stands on every line.
    `started_s` is the process's start, Unix seconds; None leaves it out.
    """

    def __init__(self, *, ranks: int = 1, model: str = MODEL, started_s: float | None = 1.7e9) -> None:
        self.registry = CollectorRegistry()
        self._labels = [{"model_name": model, "engine": str(rank)} for rank in range(ranks)]
        self.gauges = {
            name: self._gauge(name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        }
        self.counters = {
            name: self._counter(name)
            for name in (
                "prompt_tokens",
                "generation_tokens",
                "num_preemptions",
                "prefix_cache_queries",
                "prefix_cache_hits",
                "external_prefix_cache_queries",
                "external_prefix_cache_hits",
                "spec_decode_num_draft_tokens",
                "spec_decode_num_accepted_tokens",
                "estimated_flops_per_gpu",
                "estimated_read_bytes_per_gpu",
                "estimated_write_bytes_per_gpu",
            )
        }
        self.finished = Counter(
            "vllm:request_success", "Requests.", ["model_name", "engine", "finished_reason"], registry=self.registry
        )
        for labels in self._labels:
            for reason in REASONS:
                self.finished.labels(finished_reason=reason, **labels)
        self.histograms = {name: self._histogram(name, buckets) for name, buckets in HISTOGRAMS.items()}
        self.config = Gauge("vllm:cache_config_info", "Cache.", ["engine", *sorted(CONFIG)], registry=self.registry)
        for labels in self._labels:
            self.config.labels(engine=labels["engine"], **CONFIG).set(1)
        if started_s is not None:
            Gauge("process_start_time_seconds", "Start.", registry=self.registry).set(started_s)

    def serve(self, requests: int, *, rank: int = 0, running: float = 3.0) -> None:
        """Let one rank answer so many requests of 100 prompt tokens and 50 generated ones."""
        labels = self._labels[rank]
        self.gauges["num_requests_running"].labels(**labels).set(running)
        self.gauges["kv_cache_usage_perc"].labels(**labels).set(0.25)
        self.counters["prompt_tokens"].labels(**labels).inc(100 * requests)
        self.counters["generation_tokens"].labels(**labels).inc(50 * requests)
        self.counters["prefix_cache_queries"].labels(**labels).inc(100 * requests)
        self.counters["prefix_cache_hits"].labels(**labels).inc(30 * requests)
        for number in range(requests):
            reason = REASONS[number % 2]
            self.finished.labels(finished_reason=reason, **labels).inc()
            for histogram in self.histograms.values():
                histogram.labels(**labels).observe(0.5)

    def text(self, without: str = "", rename: Mapping[str, str] | None = None) -> bytes:
        """The page; without the lines that hold `without`, and with metrics renamed."""
        page = generate_latest(self.registry).decode()
        if without:
            page = "".join(line for line in page.splitlines(keepends=True) if without not in line)
        for new, old in (rename or {}).items():
            page = page.replace(new, old)
        return page.encode()

    def _gauge(self, name: str) -> Gauge:
        gauge = Gauge(f"vllm:{name}", "A gauge.", ["model_name", "engine"], registry=self.registry)
        for labels in self._labels:
            gauge.labels(**labels)
        return gauge

    def _counter(self, name: str) -> Counter:
        counter = Counter(f"vllm:{name}", "A counter.", ["model_name", "engine"], registry=self.registry)
        for labels in self._labels:
            counter.labels(**labels)
        return counter

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}", "A histogram.", ["model_name", "engine"], buckets=buckets, registry=self.registry
        )
        for labels in self._labels:
            histogram.labels(**labels)
        return histogram
