"""The small engine's Prometheus page: read by Prometheus' own parser, and true."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flyball_core.knobs import VARIANT
from flyball_twin.physics import ENGINE_MODEL
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.page import EnginePage
from serving_parts import MODEL, HandClock, paced_engine, ring, served
from twin_parts import with_blocks

Sample = dict[tuple[str, str], float]

SCRAPED = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:num_preemptions",
    "vllm:request_success",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:estimated_read_bytes_per_gpu",
    "vllm:estimated_flops_per_gpu",
}
"""Families, as Prometheus' parser names them, that vLLM's page has and agents read."""


def read(page: str) -> Sample:
    """Every sample by its name and what tells it from others of that name."""
    found: Sample = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = sample.labels.get("le") or sample.labels.get("finished_reason") or ""
            assert (sample.name, key) not in found
            found[sample.name, key] = sample.value
    return found


def busy(clock: HandClock) -> PacedEngine:
    """An engine in the middle of its work, with preemptions behind it and an abort."""
    paced = paced_engine(clock, with_blocks(120))
    streams = []
    for number in range(30):
        streams.append(paced.submit(100 + 7 * number, 40 + number, "stop" if number % 3 else "length"))
        ring(clock, clock.now_s + 0.05)
    paced.abort(streams[-1])
    ring(clock, clock.now_s + 1.0)
    return paced


def test_no_series_tells_when_it_was_created() -> None:
    """Counters stand on the page once: there is no second series that says since when they count."""
    assert "_created" not in EnginePage(busy(HandClock()), MODEL).render().decode()


def test_the_page_has_vllms_families_types_and_labels() -> None:
    """What an agent reads from vLLM is here under the same names, typed and told what it is."""
    families = list(text_string_to_metric_families(EnginePage(busy(HandClock()), MODEL).render().decode()))
    by_name = {family.name: family for family in families}

    assert SCRAPED <= set(by_name)
    assert all(family.documentation for family in families)
    for name in SCRAPED - {"vllm:cache_config_info"}:
        assert all({"model_name": MODEL, "engine": "0"}.items() <= s.labels.items() for s in by_name[name].samples)
    assert {"counter", "gauge", "histogram"} == {family.type for family in families}
    (config,) = by_name["vllm:cache_config_info"].samples
    assert {"block_size": "16", "num_gpu_blocks": "120", "engine": "0"} == config.labels


def test_the_page_agrees_with_the_engine() -> None:
    """Gauges, counters and histograms are the engine's own numbers, in the middle of the work."""
    paced = busy(HandClock())
    found, counters, batch = read(EnginePage(paced, MODEL).render().decode()), paced.engine.counters, paced.engine.batch

    assert batch.running == found["vllm:num_requests_running", ""] > 0
    assert len(batch.waiting) == found["vllm:num_requests_waiting", ""]
    assert batch.kv.used / batch.kv.capacity == found["vllm:kv_cache_usage_perc", ""]
    assert counters.prompt_tokens == found["vllm:prompt_tokens_total", ""]
    assert counters.generation_tokens == found["vllm:generation_tokens_total", ""]
    assert counters.preemptions == found["vllm:num_preemptions_total", ""] > 0
    assert counters.read_bytes == found["vllm:estimated_read_bytes_per_gpu_total", ""]
    assert counters.flops == found["vllm:estimated_flops_per_gpu_total", ""]
    over = {reason: found["vllm:request_success_total", reason] for reason in ("stop", "length", "abort")}
    assert (counters.requests_finished, 1) == (over["stop"] + over["length"], over["abort"])
    assert min(over.values()) > 0
    for name, count, total in (
        ("time_to_first_token", counters.ttft_count, counters.ttft_s_sum),
        ("inter_token_latency", counters.itl_count, counters.itl_s_sum),
        ("e2e_request_latency", counters.e2e_count, counters.e2e_s_sum),
        ("request_queue_time", counters.queue_count, counters.queue_s_sum),
    ):
        assert count == found[f"vllm:{name}_seconds_count", ""] == found[f"vllm:{name}_seconds_bucket", "+Inf"]
        assert total == pytest.approx(found[f"vllm:{name}_seconds_sum", ""])


def test_a_bound_belongs_to_its_bucket() -> None:
    """Observations count where vLLM's buckets count them, and cumulate."""
    paced = paced_engine(HandClock())
    for value in (0.009, 0.01, 0.011, 100.0):
        paced.tallies.itl.observe(value)
    found = read(EnginePage(paced, MODEL).render().decode())

    name = "vllm:inter_token_latency_seconds_bucket"
    assert [2, 3, 3, 4] == [found[name, bound] for bound in ("0.01", "0.025", "80.0", "+Inf")]


def test_a_relaunch_starts_the_page_over() -> None:
    """Counters are at zero and the process's start is a later one; it does not move while an incarnation lasts."""
    clock = HandClock()
    paced = busy(clock)
    page = EnginePage(paced, MODEL)
    before = read(page.render().decode())
    ring(clock, clock.now_s + 1.0)
    still = read(page.render().decode())
    paced.restart({VARIANT: "splitkv"})
    ring(clock, clock.now_s + ENGINE_MODEL.cold_start_s + 1.0)
    after = read(page.render().decode())

    start = ("process_start_time_seconds", "")
    assert before[start] == still[start] < after[start]
    assert 0 == after["vllm:generation_tokens_total", ""] == after["vllm:time_to_first_token_seconds_count", ""]


async def test_the_page_is_scraped_over_http() -> None:
    """With the content type that Prometheus asks for, and with what has been served so far."""
    async with served() as engine:
        await engine.post("/v1/completions", {"prompt": "x", "max_tokens": 3})
        async with engine.session.get("/metrics") as answer:
            page = await answer.text()

    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert (3, 1) == tuple(
        read(page)[key] for key in (("vllm:generation_tokens_total", ""), ("vllm:request_success_total", "length"))
    )
