"""The long-context collapse: what bandwidth, prefill and memory add, and what only wasted work can."""

import json
from pathlib import Path
from typing import Any

import pytest

from flyball_twin.validation.long_context import (
    CASES,
    COMPARED,
    CONCURRENCIES,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    REPORTED,
    Case,
    CaseResult,
    collapse,
)
from flyball_twin.validation.long_context_section import PICTURE, long_context_section


@pytest.fixture(scope="module")
def results() -> dict[str, CaseResult]:
    """The cases by name, but the slowest."""
    return {case.name: collapse(case) for case in CASES if "8192" not in case.name}


def test_without_waste_n_requests_take_at_most_n_times_as_long_as_one(results: dict[str, CaseResult]) -> None:
    """An engine is never idle, so nothing but wasted work or a lost cache goes beyond; bandwidth and prefill do not."""
    for name in ("32B, fp8 KV", "32B, bf16 KV", "32B, by piece, prefix cache", "14B"):
        for latency in results[name].free:
            assert latency.e2e_s <= 1.03 * latency.concurrency * results[name].parts.alone_s


def test_the_parts_sum_up_to_the_whole(results: dict[str, CaseResult]) -> None:
    """Alone, bandwidth, prefill and memory together are what three at once take, and none is below nothing."""
    for result in results.values():
        parts = result.parts
        added = parts.bandwidth_s + parts.prefill_s + parts.memory_s
        assert pytest.approx(parts.e2e_s) == parts.alone_s + added
        assert min(parts.bandwidth_s, parts.prefill_s, parts.memory_s) > -0.03 * parts.e2e_s


def test_three_caches_fit_in_fp8_and_not_in_bf16(results: dict[str, CaseResult]) -> None:
    """Of the 32B model: so memory adds nothing in FP8, and in BF16 requests wait for it even without preemption."""
    narrow, wide = results["32B, fp8 KV"], results["32B, bf16 KV"]

    assert 0.20 <= narrow.kv_use <= 0.30
    assert wide.kv_use > 0.5
    assert pytest.approx(0.0, abs=0.1) == narrow.parts.memory_s
    assert wide.parts.memory_s > 0.5 * wide.parts.alone_s
    assert not any(latency.preemptions for latency in (*narrow.free, *wide.free))


def test_no_prompt_is_computed_faster_than_the_datasheet_allows(results: dict[str, CaseResult]) -> None:
    """At the peaks a new prompt of the 32B model takes 9 s, so the 2 to 4 s of the report are not for 80,000 tokens."""
    assert 9.0 < results["32B, fp8 KV"].prefill_at_peaks_s < 10.0
    assert 3.0 < results["14B"].prefill_at_peaks_s < 4.0
    for result in results.values():
        assert result.case.same_document or result.free[0].ttft_s > 1.2 * result.prefill_at_peaks_s


def test_letting_prompts_in_by_their_first_piece_collapses(results: dict[str, CaseResult]) -> None:
    """Where preempted prompts are dropped whole, two requests are already 13 times as slow; held at 1 none is."""
    wasteful = results["32B, by piece, budget 2048"]

    assert REPORTED[0] < wasteful.parts.inflation < REPORTED[1]
    assert wasteful.free[1].e2e_s > 10.0 * wasteful.parts.alone_s
    assert wasteful.free[2].preemptions > 100
    for latency in wasteful.held:
        assert latency.e2e_s <= 1.03 * latency.concurrency * wasteful.parts.alone_s
        assert pytest.approx(wasteful.parts.alone_s, rel=0.01) == latency.service_s
        assert 0 == latency.preemptions
    assert 0.0 == wasteful.parts.unexplained


def test_a_kept_prefix_makes_the_same_admission_harmless(results: dict[str, CaseResult]) -> None:
    """What a preempted prompt had is still there when it comes back, so nothing is computed twice."""
    kept = results["32B, by piece, prefix cache"]

    assert kept.free[2].preemptions > 0
    assert kept.parts.inflation < 1.03 * COMPARED
    assert kept.parts.unexplained > 9.0


def test_demand_that_goes_on_grows_a_queue_whatever_the_cap(results: dict[str, CaseResult]) -> None:
    """Three in the time of one, for twenty minutes: no cap helps against more work than an engine can do."""
    result = results["32B, fp8 KV"]

    assert result.steady.free_s > 10.0 * result.parts.alone_s
    assert result.steady.held_s > result.steady.free_s


def test_the_section_says_the_same_as_data_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case with every concurrency stands in the document, which is JSON, and a picture is drawn."""
    few = (Case(name="one", model="qwen3-14b", kv_cache="bf16"),)
    monkeypatch.setattr("flyball_twin.validation.long_context_section.CASES", few)
    section = long_context_section(tmp_path)
    document: Any = json.loads(json.dumps(section.details))

    (case,) = document["cases"]
    assert list(CONCURRENCIES) == [latency["concurrency"] for latency in case["free"]]
    assert (PROMPT_TOKENS, OUTPUT_TOKENS) == (document["prompt_tokens"], document["output_tokens"])
    assert (tmp_path / PICTURE).stat().st_size > 5_000
    assert [1, 1] == [len(grid.rows) for grid in section.grids]
    assert all(len(grid.heads) == len(row) for grid in section.grids for row in grid.rows)
