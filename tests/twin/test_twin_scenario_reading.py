"""A scenario is read exactly, and every mistake is told with its place and what would be right."""

from pathlib import Path

import pytest

from flyball_core.outputs import LaneRule
from flyball_policies.presets import preset
from flyball_policies.reading import read_document
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.fleet.scoring import Phase, Slo
from flyball_twin.scenario.model import (
    DiurnalSource,
    MmppSource,
    Scenario,
    SessionSource,
    Stream,
    TraceSource,
)
from flyball_twin.scenario.reading import InvalidScenario, read_scenario, scenario_of
from scenario_documents import GOOD, MISTAKES, Mistake, good

SMALL = """\
version: 1
duration: 1min
pools:
  a: {engines: [{gpu: h100_sxm, model: llama-3.1-8b}], POLICY}
traffic:
  - trace: azure2023_conv_h1
"""


def read(text: str, path: Path = Path("here/everything.yaml")) -> Scenario:
    """The scenario of a text."""
    return scenario_of(text, path)


def refused(text: str) -> InvalidScenario:
    """What is said of a text that is no scenario."""
    with pytest.raises(InvalidScenario) as caught:
        read(text)
    return caught.value


def test_every_section_means_what_it_says() -> None:
    """Times, seeds, streams, faults, phases and objectives as written; what is left out has its default."""
    found = read(good())

    assert ("everything", "Everything at once") == (found.name, found.title)
    assert (1200.0, 30.0, 2.0, (1, 2)) == (found.duration_s, found.grace_s, found.beat_s, found.seeds)
    assert not found.compare
    chat, code, jumps, day, drawn, recorded = found.streams
    assert (
        Stream(
            source=TraceSource(trace="azure2023_conv_h1"),
            from_s=0.0,
            to_s=1200.0,
            pools=dict.fromkeys(chat.pools, 1.0),
            lanes={"realtime": 0.7, "bulk": 0.3},
        )
        == chat
    )
    assert ["chat"] == list(chat.pools)
    assert (300.0, 900.0) == (code.from_s, code.to_s)
    assert (
        TraceSource(trace="azure2023_code_h1", from_s=60.0, to_s=600.0, speed=2.0, keep=0.5, splice_s=30.0, repeat=True)
        == code.source
    )
    assert (
        MmppSource(
            rates_rps=(1.0, 0.0),
            mean_stay_s=(60.0, 10.0),
            prompt_tokens=(900.0, 0.8),
            output_tokens=(100.0, 0.0),
            longest_tokens=9000,
        )
        == jumps.source
    )
    assert (
        DiurnalSource(
            mean_rps=2.5,
            swing=0.6,
            period_s=43_200.0,
            shift_s=-3600.0,
            prompt_tokens=(900.0, 0.8),
            output_tokens=(100.0, 0.5),
        )
        == day.source
    )
    assert SessionSource(sessions_per_s=0.1, steps=(5.0, 0.5), think_s=(2.0, 1.0), opening_tokens=1024) == drawn.source
    assert SessionSource(sessions_per_s=0.1, trace="claude_code_sessions", longest_tokens=100_000) == recorded.source
    assert (
        Phase(name="zero", from_s=0.0, to_s=60.0),
        Phase(name="first", from_s=60.0, to_s=300.0),
        Phase(name="second", from_s=600.0, to_s=1200.0),
    ) == found.phases


def test_faults_have_their_target_and_their_time() -> None:
    """What is left, how far off, and for good where no end is told."""
    bandwidth, throttle, dead, stalled, unseen, clock = read(good()).faults

    assert Fault(kind=FaultKind.BANDWIDTH, target="engine-1", from_s=300.0, to_s=float("inf"), factor=0.4) == bandwidth
    assert (FaultKind.THROTTLE, "slow", 0.5) == (throttle.kind, throttle.target, throttle.factor)
    assert (FaultKind.DEAD, 60.0, 120.0) == (dead.kind, dead.from_s, dead.to_s)
    assert (FaultKind.STALLED, "slow") == (stalled.kind, stalled.target)
    assert (FaultKind.TELEMETRY_LOSS, "node-0") == (unseen.kind, unseen.target)
    assert Fault(kind=FaultKind.CLOCK_SKEW, target="far", from_s=60.0, to_s=120.0, skew_s=-30.0) == clock


def test_engines_are_numbered_through_the_document() -> None:
    """A group counts on where the one before ended, a name of its own is taken as it is, and nodes fill with 8 GPUs."""
    chat, agents = read(good()).pools
    names = [str(engine.engine) for pool in (chat, agents) for engine in pool.engines]
    slow = chat.engines[2]
    doubled = SMALL.replace("gpu:", "count: 5, tensor_parallel: 2, gpu:")
    many = read(doubled.replace("POLICY", "lanes: {only: {ttft: 1s}}"))

    assert ["engine-0", "engine-1", "slow", "engine-2"] == names
    assert ("far", "a100_sxm", "qwen3-14b", "graphs", "sglang") == (
        slow.node,
        slow.gpu,
        slow.model,
        slow.variant,
        slow.backend,
    )
    assert (2, 64, 2048, 0.85, True, True, 3, 0.6, 90.0) == (
        slow.tensor_parallel,
        slow.max_active_requests,
        slow.max_batched_tokens,
        slow.memory_share,
        slow.prefix_cache,
        slow.priority,
        slow.draft_tokens,
        slow.draft_acceptance,
        slow.cold_start_s,
    )
    assert ["node-0"] * 4 + ["node-1"] == [engine.node for engine in many.pools[0].engines]


def test_lanes_are_the_policys_with_what_is_said_over_it() -> None:
    """Key by key; objectives of the scenario go over those of lanes, and a timeout is the gateway's."""
    found = read(good())
    chat, agents = found.pools

    assert (
        LaneRule(lane="realtime", priority=0, max_wait_s=60.0),
        LaneRule(lane="bulk", priority=5, max_wait_s=90.0),
    ) == chat.lanes
    assert ({"bulk": 45.0}, "random(2)") == (chat.timeouts_s, chat.balance)
    assert (LaneRule(lane="agent", priority=0, max_wait_s=60.0),) == agents.lanes
    assert (
        Slo(lane="realtime", ttft_s=1.0, tpot_s=0.03),
        Slo(lane="bulk", e2e_s=120.0),
        Slo(lane="agent", ttft_s=5.0, e2e_s=30.0),
    ) == found.slos


def test_a_policy_is_inline_a_preset_or_a_file(tmp_path: Path) -> None:
    """Whichever it is, its text is a policy document, and it is told where it came from."""
    inline = read(good()).pools[0]
    assert ("realtime", "bulk") == tuple(lane.name for lane in read_document(inline.policy).lanes)
    assert "here/everything.yaml:31" == inline.policy_source

    named = read(SMALL.replace("POLICY", "policy: demo").replace("conv_h1", "conv_h1\n    lanes: bulk"))
    assert (preset("demo"), "preset demo") == (named.pools[0].policy, named.pools[0].policy_source)

    (tmp_path / "p.yaml").write_text("version: 1\nlanes: {x: {ttft: 1s}}\n")
    (tmp_path / "s.yaml").write_text(SMALL.replace("POLICY", "policy: p.yaml"))
    filed = read_scenario(tmp_path / "s.yaml").pools[0]
    assert ((tmp_path / "p.yaml").read_text(), "x") == (filed.policy, filed.lanes[0].lane)

    (tmp_path / "p.yaml").write_text("version: 1\nlanes: {x: {ttft: 1}}\n")
    with pytest.raises(InvalidScenario, match=r"p\.yaml:2:19: '1' is not a duration"):
        read_scenario(tmp_path / "s.yaml")


def test_what_there_is_but_one_of_need_not_be_named() -> None:
    """The only pool and the only lane get everything."""
    found = read(SMALL.replace("POLICY", "lanes: {only: {ttft: 1s}}"))

    assert ({"a": 1.0}, {"only": 1.0}) == (found.streams[0].pools, found.streams[0].lanes)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.line}: {mistake.said}")
def test_a_mistake_is_told_where_it_is(mistake: Mistake) -> None:
    """One mistake gives one fault, in its line, with what is wrong or what would be right."""
    (fault,) = refused(mistake.made()).faults

    assert (mistake.line, "here/everything.yaml") == (fault.line, fault.file), str(fault)
    assert mistake.said in str(fault)


def test_lanes_must_be_in_every_pool_that_gets_them() -> None:
    """A stream to two pools names the one that lacks its lane."""
    (fault,) = refused(GOOD).faults

    assert "pool 'agents' has no lane 'realtime'" in str(fault)


def test_lanes_of_one_name_promise_one_thing() -> None:
    """Two pools that promise differently are told how to say what holds."""
    text = good().replace("agent: {end_to_end: 30s}", "agent: {end_to_end: 30s}\n      bulk: {ttft: 1s}")
    (fault,) = refused(text).faults

    assert "lane 'bulk' promises something else" in str(fault)
    assert "objectives: {bulk: ...}" in fault.hint
    read(f"{text}  bulk: {{ttft: 9s, end_to_end: 1min}}\n")


def test_all_mistakes_of_a_document_are_told_at_once_in_order() -> None:
    """Those of form together, in the order of the lines; the error itself is one line about the first."""
    text = good()
    chosen = ("grace: 30s", "speed: 2,", "{name: second, from: 10min}")
    made = [one for one in MISTAKES if one.old in chosen]
    for mistake in made:
        text = text.replace(mistake.old, mistake.new)
    error = refused(text)

    assert [mistake.line for mistake in made] == [fault.line for fault in error.faults]
    assert (4, True) == (error.line, "and 2 more" in str(error))
    assert 1 == len(str(error).splitlines())


def test_powers_of_ten_are_numbers_unless_quoted() -> None:
    """As in YAML 1.2 and JSON, whatever YAML 1.1 took them for."""
    asked = "mmpp: {states: [{rate: RATE, stay: 1s}], prompt: {median: 9, spread: 0}, output: {median: 9, spread: 0}}"
    text = SMALL.replace("POLICY", "lanes: {x: {ttft: 1s}}").replace("trace: azure2023_conv_h1", asked)
    (stream,) = read(text.replace("RATE", "1.5e2")).streams

    assert isinstance(stream.source, MmppSource)
    assert (150.0,) == stream.source.rates_rps
    assert "'1.5e2' is not a number" in refused(text.replace("RATE", "'1.5e2'")).problem


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("trace: {name: azure2023_conv_h1, splice: 1ms}", "make each at least 0.0316 s long"),
        ("trace: {name: azure2023_conv_h1, repeat: true, keep: 0.0000001}", "at least 0.1% of a trace"),
        (
            "mmpp: {states: [&s {rate: 1, stay: 1ms}, *s], prompt: &p {median: 9, spread: 0}, output: *p}",
            "make each at least 0.0632 s long",
        ),
    ],
)
def test_streams_that_would_do_nothing_for_ages_are_refused(source: str, said: str) -> None:
    """Stretches, jumps and thinning that yield next to nothing however long one draws."""
    text = SMALL.replace("POLICY", "lanes: {x: {ttft: 1s}}").replace("trace: azure2023_conv_h1", source)

    assert said in str(refused(text.replace("1min", "527min")))


def test_a_file_of_any_length_is_judged_by_its_beginning(tmp_path: Path) -> None:
    """No more of it is read than a scenario may have."""
    with (tmp_path / "long.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidScenario, match="larger than 256 KiB"):
        read_scenario(tmp_path / "long.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("version: 1\ntitle: a\0b\n", "the character"),
        ("a: [", "not YAML"),
        ("- 1\n", "must be a mapping"),
        ("version: 1\n", "does not say its duration"),
        (SMALL.replace(", POLICY", ""), "has no lane"),
        (f"{SMALL}duration: 1min\n", "given twice"),
    ],
)
def test_what_is_no_scenario_at_all_is_said(text: str, said: str) -> None:
    """Nothing, no YAML, no mapping, or without what every scenario has."""
    assert any(said in str(fault) for fault in refused(text).faults)
