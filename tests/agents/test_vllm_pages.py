"""Pages that a real vLLM 0.32.0 served, read as the agent reads them: names, units, labels, counting.

What is in them and how they were recorded says the README of tests/data/vllm_0_32. When a later vLLM renames or
recounts, its pages get a folder of their own beside that one, and these stay.
"""

import gzip
import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flyball_agents.node.engine_names import VLLM
from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.pages import PageRefused
from flyball_core.frames import ENGINE_NUMBERS, EngineSample
from flyball_core.ids import BootId, EngineId, Incarnation
from flyball_service.config import ScrapedEngine
from flyball_twin.stand_ins.pages import VllmPage

FOLDER = Path(__file__).resolve().parents[1] / "data" / "vllm_0_32"
ALL = sorted(path.name.removesuffix(".txt.gz") for path in FOLDER.glob("*.txt.gz"))
COUNTERS = [name for name in ENGINE_NUMBERS if name.endswith(("_total", "_sum", "_count"))]


def page(name: str) -> bytes:
    """A recorded page."""
    return gzip.decompress((FOLDER / f"{name}.txt.gz").read_bytes())


def reader(model: str = "tiny") -> EngineReader:
    """A reader of engine `e1`, which serves `model`."""
    url = "http://127.0.0.1:8102/metrics"
    return EngineReader(ScrapedEngine(engine="e1", pool="chat", metrics=url, model=model), BootId("7-abcd"))


def samples(name: str, by: EngineReader | None = None) -> list[EngineSample]:
    """The samples of a recorded page, one per rank."""
    return [pooled.sample for pooled in (by or reader()).read(page(name), 1.0).engines]


def grown(before: str, after: str) -> dict[str, float]:
    """By how much each counter grew between two pages of one rank."""
    (first,), (second,) = samples(before), samples(after)
    return {
        name: getattr(second, name) - getattr(first, name) for name in COUNTERS if getattr(second, name) is not None
    }


@pytest.mark.parametrize("name", ALL)
def test_nothing_expected_is_missing_or_renamed(name: str) -> None:
    """Every value that vLLM shows without being asked is there, under the newest name that the table knows."""
    by = reader()
    assert samples(name, by)

    assert (by.missing, by.renamed) == ({}, {})


def test_a_loaded_page_becomes_a_sample() -> None:
    """Every value of a busy server, to the digit: 8 requests run, 4 wait, and 2.2 % of 131,072 tokens are held."""
    assert samples("loaded") == [
        EngineSample(
            engine=EngineId("e1"),
            incarnation=Incarnation("e1@1795280155.45"),
            rank=0,
            gpus=(),
            variant="",
            requests_running=8.0,
            requests_waiting=4.0,
            kv_used_ratio=0.021505376344086002,
            kv_capacity_tokens=131072.0,
            prompt_tokens_total=5633.0,
            generation_tokens_total=1342.0,
            requests_finished_total=16.0,
            preemptions_total=0.0,
            ttft_s_sum=37.93379521369934,
            ttft_count=24.0,
            itl_s_sum=34.21708251698146,
            itl_count=1318.0,
            queue_s_sum=9.26699461800672,
            queue_count=16.0,
            prefix_queried_tokens_total=5633.0,
            prefix_hit_tokens_total=0.0,
            e2e_s_sum=49.06039810180664,
            e2e_count=16.0,
            steps_total=169.0,
        )
    ]


def test_what_the_page_counts_is_what_the_client_counted() -> None:
    """Requests and tokens agree exactly; each token after the first is one interval."""
    client = json.loads((FOLDER / "client.json").read_text())
    counted = grown("started", "drained")

    assert counted["requests_finished_total"] == counted["queue_count"] == client["requests"]
    assert counted["prompt_tokens_total"] == client["prompt_tokens"]
    assert counted["generation_tokens_total"] == client["generation_tokens"]
    for name in ("ttft_count", "itl_count", "e2e_count"):
        assert counted[name] == client[name]


@pytest.mark.parametrize("name", ["ttft", "itl", "e2e"])
def test_what_the_page_measures_is_what_the_client_measured(name: str) -> None:
    """Seconds, from the arrival at the server: within 1 % of the client's own clock over 49 requests."""
    client = json.loads((FOLDER / "client.json").read_text())
    measured = grown("started", "drained")
    page_s, client_s = (found[f"{name}_s_sum"] / found[f"{name}_count"] for found in (measured, client))

    assert page_s == pytest.approx(client_s, rel=0.01)


def test_time_in_queue_is_part_of_the_time_to_the_first_token() -> None:
    """12 streams at 8 places: a third wait, and the wait is within the time to the first token."""
    measured = grown("started", "drained")

    assert 0.25 < measured["queue_s_sum"] / measured["ttft_s_sum"] < 0.75


def test_an_aborted_request_is_not_counted_as_finished() -> None:
    """Its tokens and its first token are counted, its end is not; neither are requests that were refused."""
    counted = grown("drained", "rest")

    assert counted["requests_finished_total"] == counted["e2e_count"] == 2
    assert counted["ttft_count"] == 3
    assert counted["generation_tokens_total"] == 20 + 10 + 8
    assert counted["prompt_tokens_total"] == 6 + 4 + 221


def test_a_restart_is_another_incarnation() -> None:
    """The page of a single API server says when its process started; counters begin at zero again."""
    by = reader()
    (before,), (after,), (later,) = samples("before_restart", by), samples("started", by), samples("drained", by)

    assert (before.incarnation, after.incarnation) == ("e1@1795279724.20", "e1@1795280155.45")
    assert later.incarnation == after.incarnation
    assert by.incarnations.seen == 2
    assert before.requests_finished_total == 43.0
    assert {getattr(after, name) for name in COUNTERS} == {0.0, None}


def test_ranks_of_one_page_have_a_capacity_each() -> None:
    """The page says 2048 blocks of 128 tokens for each of two ranks, which is their sum; each rank holds 131,072."""
    assert page("two_ranks").count(b'num_gpu_blocks="2048"') == 2
    first, second = samples("two_ranks")

    assert (first.rank, second.rank) == (0, 1)
    assert first.kv_capacity_tokens == second.kv_capacity_tokens == 131072.0
    assert (first.requests_finished_total, second.requests_finished_total) == (13.0, 12.0)
    assert (first.generation_tokens_total, second.generation_tokens_total) == (390.0, 360.0)


def test_without_the_label_the_blocks_are_shared_by_the_ranks() -> None:
    """An older vLLM has no such label, and its ranks' blocks are added up just the same."""
    older = page("two_ranks").replace(b'kv_cache_size_tokens="131072",', b"")
    found = [pooled.sample.kv_capacity_tokens for pooled in reader().read(older, 1.0).engines]

    assert found == [131072.0, 131072.0]


def test_several_api_servers_do_not_say_when_they_started() -> None:
    """Their page is put together of several processes; a counter that goes down tells a restart then."""
    assert b"process_start_time_seconds" not in page("two_ranks")

    assert {sample.incarnation for sample in samples("two_ranks")} == {"e1@7-abcd.1"}


def test_estimates_are_there_where_they_were_asked_for() -> None:
    """Without `--enable-mfu-metrics` they stand at zero, which is missing."""
    (without,), (asked, _) = samples("drained"), samples("two_ranks")

    assert (without.estimated_read_bytes_total, without.estimated_flops_total) == (None, None)
    assert (asked.estimated_read_bytes_total, asked.estimated_flops_total) == (17622254592.0, 234786988032.0)


def test_the_page_of_another_model_is_refused() -> None:
    """The name that the server was given stands on every line."""
    with pytest.raises(PageRefused, match="wrong_model: is of tiny, not of other"):
        reader("other").read(page("loaded"), 1.0)


def test_the_stand_in_labels_what_is_read_as_vllm_does() -> None:
    """The page that tests and the bench are made of is no kinder than the real one: same names, same labels."""
    wanted = {name for metric in VLLM if metric.expected for name in metric.names}

    def labels(text: bytes) -> dict[str, set[frozenset[str]]]:
        found: dict[str, set[frozenset[str]]] = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                if sample.name in wanted:
                    found.setdefault(sample.name, set()).add(frozenset(sample.labels))
        return found

    assert labels(VllmPage().text()) == labels(page("loaded"))
