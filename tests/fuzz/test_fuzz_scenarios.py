"""Scenarios and traces: refused with their mistakes, or read and played."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_twin.scenario.reading import InvalidScenario, scenario_of
from fuzz_scenarios import scenario, trace
from fuzz_strategies import mutated


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("scenario"))
def test_scenario_with_any_bytes(data: bytes) -> None:
    """A scenario is refused with all its mistakes, or read."""
    scenario(data)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("trace"))
def test_trace_with_any_bytes(data: bytes) -> None:
    """A trace is refused by name, or in order."""
    trace(data)


def test_aliases_do_not_make_a_short_document_long() -> None:
    """Lists of one thing in lists of one thing are refused within seconds."""
    states = f"states: [&s {{rate: 1, stay: 1s}}{', *s' * 20_000}]"
    lengths = "prompt: {median: 1, spread: 0}, output: {median: 1, spread: 0}"
    text = (
        "version: 1\nduration: 1min\npools: {a: {engines: [{gpu: h100_sxm, model: qwen3-14b}], lanes: {x: {}}}}\n"
        f"traffic: [&t {{mmpp: {{{states}, {lengths}}}}}{', *t' * 20_000}]\n"
    )
    began_s = time.process_time()
    with pytest.raises(InvalidScenario, match="at most 256"):
        scenario_of(text, Path("s.yaml"))

    assert 10.0 > time.process_time() - began_s
