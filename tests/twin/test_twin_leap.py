"""A leap is many steps at once and nothing else: who runs, who finishes when and what is counted is as step by step."""

import random
from collections.abc import Callable, Sequence as Items
from dataclasses import dataclass, field, fields, replace

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET
from flyball_twin.engine.counters import Counters
from flyball_twin.engine.engine import NEVER, Engine
from flyball_twin.engine.leaping import DecodeLines, Stretch
from flyball_twin.engine.scheduling import AS_VLLM, PLAIN, Scheduling, scheduling_of
from flyball_twin.engine.sequences import Sequence
from flyball_twin.physics import ENGINE_MODEL, Chunk, EngineModel, GpuCondition
from flyball_twin.workload import Request
from twin_parts import with_blocks

Change = tuple[float, Callable[[Engine, float], object]]
"""Something done to an engine at a time."""


@dataclass(slots=True)
class Played:
    """What became of a workload on one engine."""

    engine: Engine
    finished: dict[int, Sequence] = field(default_factory=dict)
    settled: int = 0
    """How often something was settled: steps or stretches."""

    def advance(self, until_s: float) -> None:
        """Settle what ends by then."""
        engine = self.engine
        while engine.step_end_s <= until_s and engine.step_end_s != NEVER:
            now_s = engine.step_end_s
            self.settled += 1
            self.finished |= {item.request.id: item for item in engine.finish_step()}
            engine.begin(now_s)
        engine.run(until_s, lambda _: None)


def arrival(request: Request) -> Change:
    """It arrives at its time."""
    return request.arrival_s, lambda engine, now_s: engine.submit(request, now_s)


def play(engine: Engine, requests: Items[Request], changes: Items[Change] = ()) -> Played:
    """Everything happens at its time; then what is left runs out."""
    played = Played(engine)
    arrivals = [arrival(request) for request in requests]
    for at_s, happen in sorted([*arrivals, *changes], key=lambda change: change[0]):
        played.advance(at_s)
        happen(engine, at_s)
        engine.begin(at_s)
    played.advance(1e9)
    return played


def drawn(
    count: int,
    rate: float,
    prompt: tuple[int, int],
    output: tuple[int, int],
    *,
    seed: int = 1,
    priorities: int = 1,
    prefixes: int = 0,
) -> list[Request]:
    """Poisson arrivals with lengths between bounds, log-uniform; `prefixes` prompts that many begin with."""
    rng = random.Random(seed)

    def length(bounds: tuple[int, int]) -> int:
        return int(bounds[0] * (bounds[1] / bounds[0]) ** rng.random())

    now_s, requests = 0.0, []
    for id_ in range(count):
        now_s += rng.expovariate(rate)
        prompt_tokens = length(prompt)
        shared = rng.randrange(prefixes) if prefixes else 0
        requests.append(
            Request(
                id=id_,
                arrival_s=now_s,
                prompt_tokens=prompt_tokens,
                output_tokens=length(output),
                lane="realtime",
                priority=rng.randrange(priorities),
                prefix=tuple(shared * 1000 + run for run in range(prompt_tokens // 512 // 2)) if prefixes else (),
            )
        )
    return requests


def setting(name: str, value: int) -> Callable[[Engine, float], object]:
    """Set a live knob."""
    return lambda engine, _: engine.set_live(name, value)


def condition(bandwidth: float, clock: float = 1.0) -> Callable[[Engine, float], object]:
    """The GPU is in another condition."""
    return lambda engine, now_s: engine.set_condition(GpuCondition(bandwidth=bandwidth, clock=clock), now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is played, and on what."""

    requests: list[Request]
    changes: tuple[Change, ...] = ()
    model: EngineModel = ENGINE_MODEL
    scheduling: Scheduling = AS_VLLM
    preempts: bool = False


WORKLOADS = {
    "chat": Workload(requests=drawn(500, 4.0, (20, 4000), (5, 600))),
    "long context, preempted": Workload(
        requests=drawn(160, 1.5, (1500, 14_000), (50, 900)), model=with_blocks(3000), preempts=True
    ),
    "prefill-heavy": Workload(requests=drawn(200, 1.5, (3000, 60_000), (1, 20))),
    "caps changed live": Workload(
        requests=drawn(300, 5.0, (50, 2000), (20, 500)),
        changes=(
            (10.123, setting(BATCH_CAP, 4)),
            (20.5, setting(TOKEN_BUDGET, 300)),
            (33.3, setting(BATCH_CAP, 256)),
            (41.0, setting(TOKEN_BUDGET, 8192)),
        ),
    ),
    "bandwidth and clock lost": Workload(
        requests=drawn(300, 3.0, (50, 2000), (20, 500)),
        changes=((12.34, condition(0.4)), (30.0, condition(1.0, 0.5)), (55.5, condition(1.0))),
    ),
    "by priority, preempted": Workload(
        requests=drawn(160, 1.5, (1500, 14_000), (50, 900), priorities=3),
        model=with_blocks(3000),
        scheduling=replace(AS_VLLM, priority=True),
        preempts=True,
    ),
    "shared prefixes": Workload(
        requests=drawn(200, 2.5, (1500, 14_000), (50, 900), prefixes=6),
        model=with_blocks(3000),
        scheduling=replace(AS_VLLM, prefix_cache=True),
        preempts=True,
    ),
    "nothing ahead": Workload(requests=drawn(300, 4.0, (20, 4000), (5, 600)), scheduling=PLAIN),
    "three steps ahead, by priority": Workload(
        requests=drawn(300, 5.0, (20, 4000), (5, 600), priorities=3),
        changes=((10.0, setting(BATCH_CAP, 6)), (40.0, setting(BATCH_CAP, 256))),
        scheduling=Scheduling(steps_ahead=3, priority=True),
    ),
    "prefills first": Workload(requests=drawn(300, 4.0, (20, 8000), (5, 600)), scheduling=scheduling_of("sglang")),
    "in flight": Workload(
        requests=drawn(160, 1.5, (1500, 14_000), (50, 900)),
        model=with_blocks(3000),
        scheduling=scheduling_of("trtllm"),
    ),
    "stalled": Workload(
        requests=drawn(200, 3.0, (50, 2000), (20, 500)),
        changes=tuple((at_s, lambda engine, now_s: engine.stall(now_s, now_s + 3.0)) for at_s in (7.7, 9.0, 40.0)),
    ),
}


def both(workload: Workload) -> tuple[Played, Played]:
    """The workload leaping and step by step."""
    leapt, stepped = (
        play(
            Engine(EngineId("e0"), workload.model, "flash_attn", scheduling=workload.scheduling, stepped=stepped),
            workload.requests,
            workload.changes,
        )
        for stepped in (False, True)
    )
    return leapt, stepped


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_leap_is_its_steps(name: str) -> None:
    """The same requests finish at the same times, with the same preemptions and tokens, and sums agree."""
    workload = WORKLOADS[name]
    leapt, stepped = both(workload)

    assert {request.id for request in workload.requests} == leapt.finished.keys() == stepped.finished.keys()
    for id_, one in stepped.finished.items():
        other = leapt.finished[id_]
        taken_s = (one.finished_s or 0.0) - one.arrived_s
        assert one.finished_s == pytest.approx(other.finished_s, abs=0.001 * taken_s)
        assert one.first_token_s == pytest.approx(other.first_token_s, abs=0.001 * taken_s)
        assert (one.preemptions, one.generated) == (other.preemptions, other.generated)
    there, here = stepped.engine.counters, leapt.engine.counters
    for item in fields(Counters):
        expected = getattr(there, item.name)

        assert getattr(here, item.name) == (
            expected if isinstance(expected, int) else pytest.approx(expected, rel=1e-4)
        )
    assert workload.preempts == (here.preemptions > 0)
    assert stepped.engine.busy_s == pytest.approx(leapt.engine.busy_s, rel=1e-4)


@pytest.mark.parametrize(("name", "fewer"), [("chat", 3), ("long context, preempted", 5), ("stalled", 3)])
def test_a_leap_saves_most_steps(name: str, fewer: int) -> None:
    """So many times fewer are settled: about three for each request, whatever it puts out."""
    leapt, stepped = both(WORKLOADS[name])

    assert stepped.settled == stepped.engine.counters.steps
    assert fewer * leapt.settled < stepped.settled
    assert leapt.settled < 6 * len(leapt.finished)


@pytest.mark.parametrize("name", ["chat", "long context, preempted", "shared prefixes", "prefills first"])
def test_what_is_seen_within_a_leap_is_what_there_is_between_its_steps(name: str) -> None:
    """Whenever one looks, requests, blocks, tokens and counters are those of an engine that goes step by step."""
    workload = WORKLOADS[name]
    seen: list[list[tuple[float, ...]]] = []
    for stepped in (False, True):
        engine = Engine(EngineId("e0"), workload.model, "flash_attn", scheduling=workload.scheduling, stepped=stepped)
        looks: list[tuple[float, ...]] = []

        def look(engine: Engine, now_s: float, looks: list[tuple[float, ...]] = looks) -> None:
            batch, counters = engine.batch, engine.counters
            looks.append(
                (
                    *(batch.running, len(batch.waiting), batch.kv.used, batch.tick, batch.decode_context),
                    *(counters.generation_tokens, counters.steps, counters.itl_count, counters.prompt_tokens),
                    *(counters.itl_s_sum, counters.step_s, counters.read_bytes, counters.flops),
                    *(engine.read_bytes_by(now_s), engine.busy_by(now_s)),
                )
            )

        play(engine, workload.requests, [(0.731 * number, look) for number in range(120)])
        seen.append(looks)
    here, there = seen

    assert len({numbers[:5] for numbers in there}) > 80
    assert all(one[:9] == other[:9] for one, other in zip(there, here, strict=True))
    assert all(one[9:] == pytest.approx(other[9:], rel=1e-3) for one, other in zip(there, here, strict=True))


@settings(max_examples=40, deadline=None)
@given(looks=st.lists(st.floats(0.0, 90.0), max_size=30), blocks=st.sampled_from([400, 3000]))
def test_looking_changes_nothing(looks: list[float], blocks: int) -> None:
    """However often a run is stopped and looked at, it ends bit for bit as if nobody had."""
    requests = drawn(40, 1.5, (50, 5000), (20, 900))
    ends = []
    for at in ((), looks):
        engine = Engine(EngineId("e0"), with_blocks(blocks), "flash_attn")
        changes: list[Change] = [(at_s, lambda engine, _: (engine.batch, engine.counters)) for at_s in at]
        played = play(engine, requests, changes)
        times = {id_: (item.first_token_s, item.finished_s) for id_, item in played.finished.items()}
        ends.append((times, engine.counters, engine.busy_s, engine.hbm_bytes))

    assert ends[0] == ends[1]


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_an_arrival_waits_for_the_steps_that_are_made_already(ahead: int) -> None:
    """It starts at the end of the step under way, also if it came at the very start of that, and of those made ahead.

    It has left the queue when the batch of its step was made: when the step before began, if that is ahead.
    """
    stepped = Engine(EngineId("e0"), ENGINE_MODEL, "flash_attn", stepped=True)
    stepped.submit(Request(id=0, arrival_s=0.0, prompt_tokens=100, output_tokens=500, lane=""), 0.0)
    stepped.begin(0.0)
    ends_s = []
    while stepped.step_end_s != NEVER:
        ends_s.append(stepped.step_end_s)
        stepped.finish_step()
        stepped.begin(ends_s[-1])
    scheduling = Scheduling(steps_ahead=ahead)
    for number in (7, 200, 495):
        for share in (0.0, 0.001, 0.5, 0.999):
            engine = Engine(EngineId("e0"), ENGINE_MODEL, "flash_attn", scheduling=scheduling)
            engine.submit(Request(id=0, arrival_s=0.0, prompt_tokens=100, output_tokens=500, lane=""), 0.0)
            engine.begin(0.0)
            at_s = ends_s[number] + share * (ends_s[number + 1] - ends_s[number]) + 1e-9
            engine.run(at_s, lambda _: None)
            late = engine.submit(Request(id=1, arrival_s=at_s, prompt_tokens=100, output_tokens=1, lane=""), at_s)
            engine.run(at_s + 0.2, lambda _: None)
            begins = number + 1 + ahead
            step_s = ENGINE_MODEL.cost("flash_attn").step_s(1, 100 + begins, [(0, 100)])

            assert late.first_token_s == pytest.approx(ends_s[begins] + step_s, abs=1e-6)
            assert late.scheduled_s == pytest.approx(ends_s[begins - min(1, ahead)], abs=1e-6)


def test_on_an_idle_engine_there_is_nothing_to_be_ahead_of() -> None:
    """What finds nothing running begins at once, and so does what came within the last step of all others."""
    engine = Engine(EngineId("e0"), ENGINE_MODEL, "flash_attn")
    first = engine.submit(Request(id=0, arrival_s=3.0, prompt_tokens=100, output_tokens=1, lane=""), 3.0)
    engine.begin(3.0)
    end_s = engine.step_end_s
    late = engine.submit(Request(id=1, arrival_s=3.001, prompt_tokens=100, output_tokens=1, lane=""), 3.001)
    engine.run(end_s, lambda _: None)

    assert (first.first_token_s, first.scheduled_s) == (end_s, 3.0)
    assert engine.step_end_s == pytest.approx(end_s + ENGINE_MODEL.cost("flash_attn").step_s(0, 0, [(0, 100)]))
    assert late.scheduled_s == 3.001


def test_who_has_to_wait_anyway_does_not_cut_a_leap_short() -> None:
    """With the cap reached, or others before it in the queue, an arrival changes nothing until somebody finishes."""
    engine = Engine(EngineId("e0"), ENGINE_MODEL, "flash_attn")
    engine.set_live(BATCH_CAP, 1)
    requests = [Request(id=id_, arrival_s=0.0, prompt_tokens=100, output_tokens=500, lane="") for id_ in range(3)]
    engine.submit(requests[0], 0.0)
    engine.begin(0.0)
    engine.run(1.0, lambda _: None)
    end_s = engine.step_end_s
    engine.submit(requests[1], 1.0)

    assert end_s == engine.step_end_s > 1.5
    engine.set_live(BATCH_CAP, 2)

    assert engine.step_end_s < 1.1


class Bent:
    """A step cost of straight pieces, with a sharp bend; beside it a smooth one where `curved`."""

    def __init__(self, *, curved: bool = False) -> None:
        self.calls = 0
        self._curved = curved

    def step_s(self, decodes: int, context: int, chunks: Items[Chunk] = ()) -> float:
        """Seconds."""
        self.calls += 1
        slow = max(0.008 + 2e-8 * context, 0.004 + 9e-8 * context, 0.009 + 4e-7 * (context - 75_000))
        return slow + 1e-5 * decodes + (1e-12 * context**1.5 if self._curved else 0.0) + 1e-6 * len(chunks)

    def overhead_s(self, decodes: int, chunks: Items[Chunk] = ()) -> float:
        """Seconds."""
        return 0.001 + 1e-6 * decodes + 1e-6 * len(chunks)

    def read_bytes(self, decodes: int, context: int, chunks: Items[Chunk] = ()) -> float:
        """Bytes."""
        return 1e10 + 1e5 * context + decodes + len(chunks)

    def flops(self, decodes: int, context: int, chunks: Items[Chunk] = ()) -> float:
        """Operations."""
        return 1e12 * decodes + 1e6 * context + len(chunks)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("decodes", [1, 7, 200])
def test_lines_meet_a_cost_that_bends(decodes: int, curved: bool) -> None:  # noqa: FBT001 - a parameter
    """From 200 to 150,000 tokens, over every bend: sums over stretches are those over steps."""
    cost = Bent(curved=curved)
    lines, stretch = DecodeLines(cost), Stretch()
    context, leapt_s, leaps = max(200, decodes), 0.0, 0
    exact_s, steps = 0.0, 0
    while context < 150_000:
        stretch.leap(leapt_s, lines.at(decodes, context), context, float(decodes), 10**9)
        spell_s = sum(cost.step_s(decodes, context + decodes * step) for step in range(stretch.steps))
        assert stretch.after_s(stretch.steps) == pytest.approx(spell_s, rel=2e-6 if stretch.steps > 64 else 1e-4)
        exact_s += spell_s
        leapt_s += stretch.after_s(stretch.steps)
        context += decodes * stretch.steps
        steps += stretch.steps
        leaps += 1

    assert leapt_s == pytest.approx(exact_s, rel=1e-6)
    assert 5 * leaps < steps if decodes < 100 else leaps < steps


@given(
    step_s=st.floats(1e-4, 1.0),
    rise=st.floats(0.0, 1e-4),
    steps=st.integers(1, 3000),
    share=st.floats(0.0, 1.0),
)
def test_the_steps_ended_by_a_time_are_those_whose_end_is_not_after_it(
    step_s: float, rise: float, steps: int, share: float
) -> None:
    """The root of the polynomial agrees with the ends that it is the root of."""
    stretch = Stretch()
    cost = Bent()
    line = DecodeLines(cost).at(1, 5000)
    line.step_s, line.step_rise, line.end = step_s, rise, 10**9
    stretch.leap(10.0, line, 5000, 1.0, steps)
    now_s = 10.0 + share * stretch.after_s(stretch.steps)
    ended = stretch.ended_by(now_s)

    assert 0 <= ended < stretch.steps == steps
    assert ended == 0 or 10.0 + stretch.after_s(ended) <= now_s
    assert ended == steps - 1 or 10.0 + stretch.after_s(ended + 1) > now_s
