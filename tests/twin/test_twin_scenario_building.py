"""What is built from a scenario is what it says, the same for the same seed, and estimated fairly."""

from dataclasses import replace
from pathlib import Path

import pytest

from flyball_core.errors import Rejected
from flyball_twin.engine.scheduling import AS_VLLM, BatchPolicy, scheduling_of
from flyball_twin.fleet.outcomes import Outcome
from flyball_twin.scenario.building import build_fleet, build_traffic, scheduling
from flyball_twin.scenario.estimate import estimate, notes
from flyball_twin.scenario.model import Scenario, TraceSource
from flyball_twin.scenario.reading import load_scenario, scenario_of
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request
from scenario_documents import good

EVERYTHING = scenario_of(good(), Path("everything.yaml"))
ONE = """\
version: 1
duration: DURATION
pools:
  a:
    engines: [{gpu: h100_sxm, model: llama-3.1-8b}]
    lanes: {only: {ttft: 1s}}
traffic:
  - SOURCE
"""


def one(source: str, duration: str = "10min") -> Scenario:
    """One engine and one source."""
    return scenario_of(ONE.replace("SOURCE", source).replace("DURATION", duration), Path("one.yaml"))


def asked(scenario: Scenario, seed: int) -> list[Request]:
    """All requests, each answered when it comes."""
    traffic = build_traffic(scenario, seed)
    requests: list[Request] = []
    while traffic.next_s() < NEVER:
        requests.append(traffic.take())
        traffic.ended(requests[-1], requests[-1].arrival_s)
    return requests


def test_traffic_is_a_function_of_scenario_and_seed() -> None:
    """Twice the same, and with another seed something else; ids count arrivals, and none comes after the end."""
    first, again, other = asked(EVERYTHING, 1), asked(EVERYTHING, 1), asked(EVERYTHING, 2)

    assert first == again != other
    assert list(range(len(first))) == [request.id for request in first]
    assert first[-1].arrival_s < EVERYTHING.duration_s
    assert {("chat", "realtime"), ("chat", "bulk"), ("agents", "agent")} == {(r.pool, r.lane) for r in first}
    assert {("realtime", 0), ("bulk", 5), ("agent", 0)} == {(r.lane, r.priority) for r in first}


def test_one_stream_does_not_move_another() -> None:
    """Without the others a stream asks what it asked among them."""
    alone = asked(replace(EVERYTHING, streams=EVERYTHING.streams[:1]), 1)
    arrivals = {request.arrival_s for request in alone}
    among = [r for r in asked(replace(EVERYTHING, streams=EVERYTHING.streams[:3]), 1) if r.arrival_s in arrivals]

    assert [(r.arrival_s, r.lane) for r in alone] == [(r.arrival_s, r.lane) for r in among]


def test_engines_are_built_as_planned() -> None:
    """Caps, budgets, variants, scheduling, speculation and cold start reach the engine; lanes reach the gateway."""
    fleet = build_fleet(EVERYTHING, 1)
    slow = next(engine for name, engine in fleet.engines.items() if name == "slow")
    chat = next(pool for name, pool in fleet.pools.items() if name == "chat")

    assert (64, 2048, "graphs") == (slow.max_active_requests, slow.max_batched_tokens, slow.variant)
    assert (2, "sglang", 3, 90.0) == (
        slow.model.tensor_parallel,
        slow.model.backend,
        slow.model.draft_tokens,
        slow.model.cold_start_s,
    )
    assert (BatchPolicy.PREFILL_FIRST, True, True, 0.6) == (
        slow.scheduling.policy,
        slow.scheduling.priority,
        slow.scheduling.prefix_cache,
        slow.scheduling.draft_acceptance,
    )
    assert (1, False) == (slow.scheduling.steps_ahead, slow.scheduling.one_prompt_a_step)
    assert "A100" in slow.model.gpu.name
    assert {"realtime", "bulk"} == set(chat.gateway.lanes)
    assert (45.0, NEVER) == (chat.gateway.timeout_s("bulk"), chat.gateway.timeout_s("realtime"))


def test_what_every_fleet_is_asked_is_the_same() -> None:
    """An engine a fifth as fast is asked the same requests, though sessions' later."""
    drawn = one("{sessions: {rate: 0.2, think: {median: 2s, spread: 1}}}", "5min")
    sessions: list[dict[tuple[str, int], tuple[int, int]]] = []
    for faulty in (False, True):
        outcomes: list[Outcome] = []
        fault = EVERYTHING.faults[0]
        slowed = replace(drawn, faults=(replace(fault, target="engine-0", from_s=0.0, factor=0.2),))
        fleet = build_fleet(slowed if faulty else drawn, 1, outcomes.append)
        fleet.run_until(300.0)
        fleet.close()
        sessions.append(
            {(o.request.session, o.request.turn): (o.request.prompt_tokens, o.request.output_tokens) for o in outcomes}
        )
    healthy, slow = sessions

    assert len(slow) < len(healthy)
    assert slow.items() <= healthy.items()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("model: llama-3.1-8b", "model: deepseek-r1"),
        ("trace: azure2023_conv_h1", "trace: {name: azure2023_conv_h1, from: 2h}"),
    ],
)
def test_what_cannot_be_built_is_refused(change: str, said: str) -> None:
    """A model that does not fit its GPU, a cut beyond its trace."""
    text = ONE.replace("SOURCE", "trace: azure2023_conv_h1").replace("DURATION", "1min").replace(change, said)
    with pytest.raises(Rejected, match=r"does not fit|has nothing from 7200 s"):
        build_fleet(scenario_of(text, Path("one.yaml")), 1)


@pytest.mark.parametrize("name", ["chat-rated", "heterogeneous"])
def test_an_estimate_tells_the_load(name: str) -> None:
    """Asked for four times its load, a fleet puts out what it can: the estimate is within a quarter of that."""
    scenario = load_scenario(name)
    (told,) = estimate(scenario)
    (stream,) = scenario.streams
    assert isinstance(stream.source, TraceSource)
    faster = replace(stream, source=replace(stream.source, speed=4.0 * stream.source.speed / told.load))
    put_out = 0

    def record(outcome: Outcome) -> None:
        nonlocal put_out
        put_out += outcome.request.output_tokens if outcome.finished and outcome.ended_s >= 60.0 else 0

    fleet = build_fleet(replace(scenario, streams=(faster,), duration_s=180.0, faults=()), 1, record)
    fleet.run_until(180.0)
    measured = told.output_tokens_per_s / (put_out / 120.0)

    assert measured == pytest.approx(told.load, rel=0.25)


def test_an_estimate_counts_what_is_asked() -> None:
    """Requests, tokens a second and what prompts share are those of the requests; longer ones than fit are counted."""
    requests = asked(one("trace: mooncake_conversation"), 1)
    (told,) = estimate(one("trace: mooncake_conversation"))

    assert (len(requests), 0) == (told.requests, told.too_long)
    assert told.prompt_tokens_per_s == pytest.approx(sum(r.prompt_tokens for r in requests) / 600.0)
    assert 0.1 < told.shared < 0.5
    small = one("trace: mooncake_conversation")
    (pool,) = small.pools
    squeezed = replace(pool, engines=(replace(pool.engines[0], memory_share=0.3),))
    (told,) = estimate(replace(small, pools=(squeezed,)))
    assert sum(r.prompt_tokens + r.output_tokens > told.longest_tokens for r in requests) == told.too_long > 0


def test_a_trace_that_ends_early_is_noted() -> None:
    """With what would play on; a trace that is repeated or spliced is not."""
    (note,) = notes(one("trace: {name: mooncake_conversation, speed: 3}"))

    assert "ends after 300 s of 600 s" in note
    assert () == notes(one("trace: {name: mooncake_conversation, speed: 3, repeat: true}"))
    assert () == notes(one("trace: {name: mooncake_conversation, speed: 3, splice: 1min}"))


@pytest.mark.parametrize(("backend", "singly"), [("vllm", True), ("sglang", False), ("trtllm", True)])
def test_engines_schedule_as_their_backend_does_by_itself(backend: str, singly: bool) -> None:  # noqa: FBT001 - a parameter
    """All make a step's batch while the one before runs; prompts come one a step where measured engines let them."""
    plan = next(iter(EVERYTHING.pools)).engines[0]
    made = scheduling(replace(plan, backend=backend))

    assert (made.policy, made.steps_ahead, made.one_prompt_a_step) == (
        scheduling_of(backend).policy,
        1,
        singly,
    )
    assert scheduling_of("vllm") is AS_VLLM


def test_a_backend_that_nobody_knows_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(Rejected, match="backend takes one of vllm, sglang, trtllm, not 'tgi'"):
        scheduling_of("tgi")
