"""The one table from metric names on an engine's page to the values of an engine sample.

vLLM's names, as of 0.33 and back to the first V1 releases: where a metric was renamed, the newest
name comes first, and what an older engine says under an older name is taken all the same. Other
engines get tables of their own here. Rates and means are not taken: counters travel raw.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """Where one value of an engine sample stands on the page."""

    value: str
    """The value's name in a sample."""
    names: tuple[str, ...]
    """Names that it has or had, the newest first."""
    expected: bool = True
    """Whether its absence is worth a word: not so for what an engine shows only when it is configured to."""
    summed: bool = False
    """Whether its series within a rank, such as one per reason, are parts of one sum."""
    zero_is_missing: bool = False
    """Whether an engine that does not count it says zero."""


def _histogram(name: str, *older: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = (name, *older)
    return tuple(f"{one}_sum" for one in names), tuple(f"{one}_count" for one in names)


def _counter(*names: str) -> tuple[str, ...]:
    """The names with `_total`, as the Python client writes them, and without, as others do."""
    return (*(f"{name}_total" for name in names), *names)


_TTFT_SUM, _TTFT_COUNT = _histogram("vllm:time_to_first_token_seconds")
_ITL_SUM, _ITL_COUNT = _histogram("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds")
_QUEUE_SUM, _QUEUE_COUNT = _histogram("vllm:request_queue_time_seconds")
_E2E_SUM, _E2E_COUNT = _histogram("vllm:e2e_request_latency_seconds")

VLLM = (
    Metric("requests_running", ("vllm:num_requests_running",)),
    Metric("requests_waiting", ("vllm:num_requests_waiting",)),
    Metric("kv_used_ratio", ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
    Metric("prompt_tokens_total", _counter("vllm:prompt_tokens")),
    Metric("generation_tokens_total", _counter("vllm:generation_tokens")),
    Metric("requests_finished_total", _counter("vllm:request_success"), summed=True),
    Metric("preemptions_total", _counter("vllm:num_preemptions")),
    Metric("ttft_s_sum", _TTFT_SUM),
    Metric("ttft_count", _TTFT_COUNT),
    Metric("itl_s_sum", _ITL_SUM),
    Metric("itl_count", _ITL_COUNT),
    Metric("queue_s_sum", _QUEUE_SUM),
    Metric("queue_count", _QUEUE_COUNT),
    Metric("e2e_s_sum", _E2E_SUM),
    Metric("e2e_count", _E2E_COUNT),
    Metric("prefix_queried_tokens_total", _counter("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")),
    Metric("prefix_hit_tokens_total", _counter("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")),
    Metric("drafted_tokens_total", _counter("vllm:spec_decode_num_draft_tokens"), expected=False),
    Metric("accepted_tokens_total", _counter("vllm:spec_decode_num_accepted_tokens"), expected=False),
    Metric("steps_total", ("vllm:iteration_tokens_total_count", "flyball_twin_steps_total"), expected=False),
    Metric("step_s_total", ("flyball_twin_step_seconds_total",), expected=False),
    Metric(
        "estimated_read_bytes_total",
        _counter("vllm:estimated_read_bytes_per_gpu"),
        expected=False,
        zero_is_missing=True,
    ),
    Metric("estimated_flops_total", _counter("vllm:estimated_flops_per_gpu"), expected=False, zero_is_missing=True),
)
"""What is taken of a vLLM page; Flyball's own small engine adds two names. The estimates are per GPU, as in vLLM."""

CAPACITY = "kv_capacity_tokens"
CAPACITY_INFO = "vllm:cache_config_info"
CAPACITY_TOLD = "kv_cache_size_tokens"
"""The label of that metric that tells the KV cache's capacity, of each rank by itself."""
CAPACITY_LABELS = ("num_gpu_blocks", "block_size")
"""Without it the capacity is the product of these two, shared by the page's ranks, whose blocks vLLM adds up."""

RANK_LABEL = "engine"
"""The data-parallel rank; a page without it is of one rank."""
MODEL_LABEL = "model_name"
