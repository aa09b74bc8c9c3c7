"""Engines' and gateways' pages become samples, and what is wrong with a page costs what it must."""

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.samples import Sample
from structlog.testing import capture_logs

from flyball_agents.node import pages
from flyball_agents.node.engine_names import VLLM, Metric
from flyball_agents.node.engine_page import MOST_RANKS, EngineReader
from flyball_agents.node.gateway_page import MOST_LANES, GatewayReader
from flyball_agents.node.newest import NothingNew
from flyball_agents.node.pages import PageRefused
from flyball_agents.node.scraping import PageLimits, PageReader, PageSampler
from flyball_agents.sampling import Reading, Sampler
from flyball_core.frames import ENGINE_NUMBERS, EngineSample, GatewaySample
from flyball_core.ids import BootId, EngineId, Incarnation
from flyball_service.config import ScrapedEngine, ScrapedGateway
from flyball_twin.stand_ins.pages import MODEL, VllmPage
from sampler_contract import SamplerContract

URL = "http://127.0.0.1:8000/metrics"
BOOT = BootId("7-abcd")
LIMITS = PageLimits(timeout_s=1.0)


def engine_reader(model: str = "") -> EngineReader:
    """A reader of engine `e1` on GPUs 2 and 3."""
    target = ScrapedEngine(engine="e1", pool="chat", metrics=URL, gpus=(2, 3), variant="graphs", model=model)
    return EngineReader(target, BOOT)


def gateway_reader() -> GatewayReader:
    """A reader of gateway `g1`."""
    return GatewayReader(ScrapedGateway(gateway="g1", pool="chat", metrics=URL), BOOT)


def engines(reader: EngineReader, page: bytes, now_s: float = 1.0) -> list[EngineSample]:
    """The samples of a page."""
    reading = reader.read(page, now_s)

    assert (reading.taken_s, reading.gpus, reading.gateways) == (now_s, (), ())
    assert all(pooled.pool == "chat" for pooled in reading.engines)
    return [pooled.sample for pooled in reading.engines]


def gateways(reader: GatewayReader, page: bytes) -> list[GatewaySample]:
    """The samples of a gateway's page."""
    return [pooled.sample for pooled in reader.read(page, 1.0).gateways]


def gateway_page(
    *, name: str = "g1", incarnation: str = "i-1", lanes: Mapping[str, float] | None = None, started_s: float = 0.0
) -> bytes:
    """A page of the small gateway; `lanes` gives the requests of each."""
    registry = CollectorRegistry()
    if name:
        Info("flyball_gateway", "Who.", registry=registry).info({"gateway": name, "incarnation": incarnation})
    queued = Gauge("flyball_gateway_requests_queued", "Waiting.", ["lane"], registry=registry)
    flying = Gauge("flyball_gateway_requests_in_flight", "In flight.", ["lane"], registry=registry)
    total = Counter("flyball_gateway_requests", "Arrived.", ["lane"], registry=registry)
    waits = Histogram("flyball_gateway_queue_seconds", "Waited.", ["lane"], registry=registry)
    Gauge("flyball_gateway_engine_up", "Up.", ["engine"], registry=registry).labels("e1").set(1)
    for lane, number in (lanes if lanes is not None else {"bulk": 5.0, "realtime": 7.0}).items():
        queued.labels(lane).set(2)
        flying.labels(lane).set(3)
        total.labels(lane).inc(number)
        waits.labels(lane).observe(0.25)
    if started_s:
        Gauge("process_start_time_seconds", "Start.", registry=registry).set(started_s)
    return generate_latest(registry)


class Fed:
    """A page's sampler with something that scrapes: a new page before each sample."""

    def __init__(self, reader: PageReader, page: bytes) -> None:
        self._sampler, self._page = PageSampler(URL, reader, LIMITS), page

    @property
    def name(self) -> str:
        """Its name."""
        return self._sampler.name

    def sample(self, now_s: float) -> Reading:
        """Scrape, and hand over."""
        self._sampler.take(self._page, now_s)
        return self._sampler.sample(now_s)


class TestAnEnginesPageKeepsTheContract(SamplerContract):
    """An engine's page is a sampler."""

    def sampler(self) -> Sampler:
        """Two ranks."""
        page = VllmPage(ranks=2)
        page.serve(3)
        return Fed(engine_reader(), page.text())


class TestAGatewaysPageKeepsTheContract(SamplerContract):
    """So is a gateway's."""

    def sampler(self) -> Sampler:
        """Two lanes."""
        return Fed(gateway_reader(), gateway_page())


def test_a_page_becomes_a_sample() -> None:
    """Gauges, counters, histograms' sums and counts, and the cache's capacity, from a page as vLLM writes it."""
    page = VllmPage()
    page.serve(4)
    reader = engine_reader(MODEL)

    assert engines(reader, page.text()) == [
        EngineSample(
            engine=EngineId("e1"),
            incarnation=Incarnation("e1@1700000000.00"),
            rank=0,
            gpus=(2, 3),
            variant="graphs",
            requests_running=3.0,
            requests_waiting=0.0,
            kv_used_ratio=0.25,
            kv_capacity_tokens=27890.0 * 16,
            prompt_tokens_total=400.0,
            generation_tokens_total=200.0,
            requests_finished_total=4.0,
            preemptions_total=0.0,
            ttft_s_sum=2.0,
            ttft_count=4.0,
            itl_s_sum=2.0,
            itl_count=4.0,
            queue_s_sum=2.0,
            queue_count=4.0,
            prefix_queried_tokens_total=400.0,
            prefix_hit_tokens_total=120.0,
            drafted_tokens_total=0.0,
            accepted_tokens_total=0.0,
            e2e_s_sum=2.0,
            e2e_count=4.0,
            steps_total=4.0,
        )
    ]
    assert (reader.missing, reader.renamed) == ({}, {})


def test_every_rank_is_a_sample() -> None:
    """The label `engine` is the data-parallel rank; ranks do not mix."""
    page = VllmPage(ranks=3)
    page.serve(2, rank=2)
    samples = engines(engine_reader(), page.text())

    assert [(sample.rank, sample.requests_finished_total) for sample in samples] == [(0, 0.0), (1, 0.0), (2, 2.0)]
    assert {sample.kv_capacity_tokens for sample in samples} == {27890.0 * 16 / 3}  # vLLM says the sum of their blocks


@pytest.mark.parametrize(
    ("size", "tokens"), [("131072", 131072.0), ("None", 27890.0 * 16), ("0", 27890.0 * 16), ("-1", 27890.0 * 16)]
)
def test_a_capacity_that_is_told_goes_before_one_that_is_worked_out(size: str, tokens: float) -> None:
    """With layers of several kinds a block's tokens are not the same for all; only vLLM knows what that comes to."""
    info = (
        f'vllm:cache_config_info{{engine="0",num_gpu_blocks="27890",block_size="16",kv_cache_size_tokens="{size}"}} 1\n'
    )
    page = VllmPage().text(without="cache_config_info{") + info.encode()

    assert engines(engine_reader(), page)[0].kv_capacity_tokens == tokens


@pytest.mark.parametrize(
    ("new", "old", "value"),
    [
        ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "kv_used_ratio"),
        ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds", "itl_s_sum"),
        ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "prefix_hit_tokens_total"),
        ("vllm:prompt_tokens_total", "vllm:prompt_tokens", "prompt_tokens_total"),
    ],
)
def test_an_older_name_is_known(new: str, old: str, value: str) -> None:
    """What an older engine says under another name is taken, and said to be renamed."""
    page = VllmPage()
    page.serve(4)
    (now,) = engines(engine_reader(), page.text())
    reader = engine_reader()
    (then,) = engines(reader, page.text(rename={new: old}))

    assert then == now
    assert value in reader.renamed
    assert reader.renamed[value].startswith(old)
    assert reader.missing == {}


def test_the_newer_name_goes_before_the_older_one() -> None:
    """An engine that shows both, as vLLM does for one release, is read by the newer."""
    page = VllmPage().text() + b'vllm:gpu_cache_usage_perc{engine="0",model_name="%s"} 0.75\n' % MODEL.encode()
    (sample,) = engines(engine_reader(), page)

    assert sample.kv_used_ratio == 0.0


@pytest.mark.parametrize("metric", [metric for metric in VLLM if metric.expected], ids=lambda metric: metric.value)
def test_a_metric_that_is_gone_is_missing_and_named(metric: Metric) -> None:
    """Each wanted metric can be missing without harm to the others; it is counted page by page."""
    page = VllmPage()
    page.serve(4)
    reader = engine_reader()
    text = page.text(without=metric.names[0] + "{")
    (sample,) = engines(reader, text)
    engines(reader, text)

    assert getattr(sample, metric.value) is None
    assert reader.missing == {metric.value: "absent"}
    assert reader.missed == {metric.value: 2}
    here = [name for name in ENGINE_NUMBERS if getattr(sample, name) is not None]
    assert len(here) == 20


def test_what_an_engine_shows_only_on_demand_is_no_loss() -> None:
    """Speculation and estimates that are off are missing without a word, and an estimate of zero is none."""
    page = VllmPage()
    page.serve(1)
    reader = engine_reader()
    (sample,) = engines(reader, page.text(without="spec_decode"))

    assert (sample.drafted_tokens_total, sample.estimated_flops_total) == (None, None)
    assert reader.missing == {}
    page.counters["estimated_flops_per_gpu"].labels(model_name=MODEL, engine="0").inc(5e12)
    assert engines(reader, page.text())[0].estimated_flops_total == 5e12


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("NaN", "not_finite"),
        ("+Inf", "not_finite"),
        ("-3.0", "negative"),
        ("1.5", "out_of_range"),
        ("1" + "0" * 400, "not_finite"),
    ],
)
def test_a_number_that_cannot_be_is_missing(text: str, why: str) -> None:
    """No number, none that fits: dropped and named, the others are taken."""
    page = VllmPage().text(without="kv_cache_usage_perc{") + f'vllm:kv_cache_usage_perc{{engine="0"}} {text}\n'.encode()
    reader = engine_reader()
    (sample,) = engines(reader, page)

    assert sample.kv_used_ratio is None
    assert reader.missing == {"kv_used_ratio": why}
    assert sample.requests_running == 0.0


def test_two_series_for_one_rank_are_no_value() -> None:
    """A gauge that is there twice within a rank is ambiguous; parts of a sum are added up."""
    page = VllmPage()
    page.serve(5)
    reader = engine_reader()
    text = page.text() + b'vllm:num_requests_running{engine="0",tp_rank="1"} 9.0\n'
    (sample,) = engines(reader, text)

    assert (sample.requests_running, sample.requests_finished_total) == (None, 5.0)
    assert reader.missing == {"requests_running": "ambiguous"}


@pytest.mark.parametrize("labels", ['num_gpu_blocks="None",block_size="16"', 'block_size="16"', 'num_gpu_blocks="-1"'])
def test_a_capacity_that_is_not_told_is_missing(labels: str) -> None:
    """VLLM writes labels of every kind; only two whole numbers make a capacity."""
    page = VllmPage().text(without="cache_config_info{") + f'vllm:cache_config_info{{engine="0",{labels}}} 1\n'.encode()
    reader = engine_reader()

    assert engines(reader, page)[0].kv_capacity_tokens is None
    assert reader.missing == {"kv_capacity_tokens": "absent"}


@pytest.mark.parametrize(("model", "refused"), [("", False), (MODEL, False), ("another", True)])
def test_the_page_of_another_model_is_not_taken(model: str, *, refused: bool) -> None:
    """Where the configuration names a model, its page carries that name."""
    if not refused:
        assert engines(engine_reader(model), VllmPage().text())
        return
    with pytest.raises(PageRefused, match=f"wrong_model: is of {MODEL}, not of another"):
        engine_reader(model).read(VllmPage().text(), 1.0)


def test_a_page_of_two_models_is_of_nobody() -> None:
    """Even where no model is asked for: their numbers would be mixed."""
    page = VllmPage().text() + VllmPage(model="other").text()

    with pytest.raises(PageRefused, match="wrong_model: is of several models"):
        engine_reader().read(page, 1.0)


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"", "foreign"),
        (b"\n", "foreign"),
        (b"<html><body>vllm:num_requests_running</body></html>\n", "foreign"),
        (b"process_start_time_seconds 1.7e9\n", "foreign"),
        (b"sglang:num_running_reqs 3.0\n", "foreign"),
        (b"vllm:num_requests_running 3.0", "malformed"),
        (b"vllm:num_requests_running three\n", "malformed"),
        (b"vllm:num_requests_running{\n", "malformed"),
        (b'vllm:num_requests_running{engine="0"} \n', "malformed"),
        (b'vllm:num_requests_running{engine="0} 3.0\n', "malformed"),
        (b'vllm:num_requests_running{engine="a"} 3.0\n', "malformed"),
        (b'vllm:num_requests_running{engine="-1"} 3.0\n', "malformed"),
        (b'vllm:num_requests_running{engine="\xff"} 3.0\n', "malformed"),
        (b'vllm:num_requests_running{engine="0",engine="1"} 3.0\n', "malformed"),
    ],
)
def test_a_page_that_is_none_is_refused_as_a_whole(page: bytes, reason: str) -> None:
    """Wrong content is named, and nothing of it is taken, whatever stands beside it."""
    with pytest.raises(PageRefused) as refused:
        engine_reader().read(page, 1.0)
    assert refused.value.reason == reason
    if reason == "malformed":
        with pytest.raises(PageRefused):
            engine_reader().read(VllmPage().text() + page, 1.0)


def test_a_page_cut_off_anywhere_is_refused_or_whole_lines() -> None:
    """A truncated page never gives a number that was not on it, but for a sum of which parts are gone."""
    page = VllmPage()
    page.serve(1234)
    text = page.text()
    reader = engine_reader()
    (whole,) = engines(reader, text)
    after_a_line = [place + 1 for place, byte in enumerate(text) if byte == ord("\n")]
    for end in sorted({*range(0, len(text), 97), *after_a_line}):
        try:
            (sample,) = engines(reader, text[:end])
        except PageRefused:
            continue
        assert all(
            getattr(sample, name) in (None, getattr(whole, name))
            for name in ENGINE_NUMBERS
            if name != "requests_finished_total"
        )


@given(st.binary(max_size=300))
def test_no_page_raises_anything_but_its_refusal(noise: bytes) -> None:
    """Whatever a source serves, a reader answers with samples or a refusal."""
    for reader in (engine_reader(), gateway_reader()):
        for page in (noise, b"vllm:num_requests_running" + noise + b"\n", b"flyball_gateway_info{" + noise + b"\n"):
            try:
                reading = reader.read(page, 1.0)
            except PageRefused:
                continue
            assert reading.engines or reading.gateways


def test_too_many_ranks_are_not_believed() -> None:
    """Nor lanes: a page must not make frames of any size."""
    ranks = b"".join(b'vllm:num_requests_running{engine="%d"} 1\n' % rank for rank in range(MOST_RANKS + 1))
    lanes = b"".join(b'flyball_gateway_requests_queued{lane="%d"} 1\n' % lane for lane in range(MOST_LANES + 1))

    with pytest.raises(PageRefused, match="malformed"):
        engine_reader().read(ranks, 1.0)
    with pytest.raises(PageRefused, match="malformed"):
        gateway_reader().read(lanes, 1.0)


def test_an_incarnation_is_told_by_the_process_start() -> None:
    """A restart is another start time; counters travel raw, before and after."""
    reader = engine_reader()
    first, second = VllmPage(started_s=1.7e9), VllmPage(started_s=1.7e9 + 61.25)
    first.serve(9)
    second.serve(1)
    seen = [engines(reader, page.text())[0] for page in (first, first, second)]

    assert [sample.incarnation for sample in seen] == ["e1@1700000000.00"] * 2 + ["e1@1700000061.25"]
    assert [sample.prompt_tokens_total for sample in seen] == [900.0, 900.0, 100.0]
    assert reader.incarnations.seen == 2


def test_without_a_start_time_a_counter_that_went_down_is_a_new_incarnation() -> None:
    """Never a name that was used before: it carries the agent's boot and a number that grows."""
    reader = engine_reader()
    seen = []
    for served in (9, 3, 8, 2):
        page = VllmPage(started_s=None)
        page.serve(served)
        seen.append(engines(reader, page.text())[0].incarnation)

    assert seen == ["e1@7-abcd.1", "e1@7-abcd.2", "e1@7-abcd.2", "e1@7-abcd.3"]


def test_a_counter_of_any_rank_tells_a_restart() -> None:
    """Also one that was missing for a while; a gauge that went down tells nothing."""
    reader = engine_reader()
    page = VllmPage(ranks=2, started_s=None)
    page.serve(3, rank=1, running=9)
    engines(reader, page.text())
    page.serve(1, rank=1, running=1)
    assert {sample.incarnation for sample in engines(reader, page.text(without="prompt_tokens"))} == {"e1@7-abcd.1"}
    fresh = VllmPage(ranks=2, started_s=None)
    fresh.serve(3, rank=0)

    assert {sample.incarnation for sample in engines(reader, fresh.text())} == {"e1@7-abcd.2"}


def test_lines_that_did_not_change_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page costs what has changed on it; what is no wanted metric costs nothing but being looked at."""
    parsed: list[bytes] = []
    parse = pages._parse  # noqa: SLF001 - what a line costs is the claim

    def watched(line: bytes) -> Sample:
        parsed.append(line)
        return parse(line)

    monkeypatch.setattr(pages, "_parse", watched)
    page, reader = VllmPage(), engine_reader()
    page.serve(3)
    engines(reader, page.text())
    assert 25 <= len(parsed) <= 40
    assert page.text().count(b"\n") > 300
    parsed.clear()
    engines(reader, page.text())
    assert parsed == []
    page.gauges["num_requests_running"].labels(model_name=MODEL, engine="0").set(17)

    assert engines(reader, page.text())[0].requests_running == 17.0
    assert len(parsed) == 1


def test_a_gateways_page_becomes_a_sample_per_lane() -> None:
    """Requests and waits of each lane, under the incarnation that the gateway tells."""
    first, second = gateways(gateway_reader(), gateway_page(lanes={"realtime": 7.0, "bulk": 5.0}))

    assert (first.gateway, first.incarnation, first.lane, second.lane) == ("g1", "i-1", "bulk", "realtime")
    assert first[3:] == (2.0, 3.0, 5.0, 0.25, 1.0)
    assert second[3:] == (2.0, 3.0, 7.0, 0.25, 1.0)


def test_the_page_of_another_gateway_is_not_taken() -> None:
    """A gateway's page says whose it is."""
    with pytest.raises(PageRefused, match="wrong_gateway: is of g2, not of g1"):
        gateway_reader().read(gateway_page(name="g2"), 1.0)


def test_a_gateway_that_tells_no_incarnation_is_told_apart_by_its_start() -> None:
    """By when its process started, and where that is not told either, by counters that went down."""
    reader = gateway_reader()
    assert gateways(reader, gateway_page(name="", started_s=1.7e9))[0].incarnation == "g1@1700000000.00"
    more, less = gateway_page(name="", lanes={"": 9.0}), gateway_page(name="", lanes={"": 3.0})

    assert [gateways(reader, page)[0].incarnation for page in (more, less)] == ["g1@7-abcd.1", "g1@7-abcd.2"]


def test_what_a_gateway_does_not_say_is_missing() -> None:
    """Absent, or no number that could be."""
    reader = gateway_reader()
    (sample,) = gateways(reader, b"flyball_gateway_requests_queued 2\nflyball_gateway_requests_total NaN\n")

    assert sample[2:] == ("", 2.0, None, None, None, None)
    assert reader.missing == {
        "requests_in_flight": "absent",
        "requests_total": "not_finite",
        "queue_s_sum": "absent",
        "queue_count": "absent",
    }


def test_a_sampler_says_what_turned_and_only_then() -> None:
    """Away, back and values missing are each said once; the counts say how often."""
    sampler = PageSampler(URL, engine_reader(), LIMITS)
    whole, less = VllmPage().text(), VllmPage().text(without="num_requests_waiting{")
    with capture_logs() as lines:
        for _ in range(3):
            sampler.refused(PageRefused("unreachable", "Connection refused"))
        sampler.refused(PageRefused("timeout", "not there after 1 s"))
        sampler.take(whole, 1.0)
        sampler.take(less, 2.0)
        sampler.take(less, 3.0)
        sampler.refused(PageRefused("too_large", "is larger than 2000000 bytes"))

    assert [(line["event"], line.get("reason", "")) for line in lines] == [
        ("engine_unreachable", "unreachable"),
        ("engine_unreachable", "timeout"),
        ("engine_back", ""),
        ("engine_values_missing", ""),
        ("engine_page_refused", "too_large"),
    ]
    assert lines[3]["missing"] == {"requests_waiting": "absent"}
    assert sampler.failures == {"unreachable": 3, "timeout": 1, "too_large": 1}
    assert sampler.trouble == "too_large: is larger than 2000000 bytes"


def test_a_page_is_handed_over_once() -> None:
    """A page that was taken is not passed off as a new one, and the newest goes before older ones."""
    sampler = PageSampler(URL, engine_reader(), LIMITS)
    sampler.take(VllmPage().text(), 1.0)
    sampler.take(VllmPage().text(), 2.0)

    assert sampler.sample(2.0).taken_s == 2.0
    with pytest.raises(NothingNew):
        sampler.sample(2.5)
