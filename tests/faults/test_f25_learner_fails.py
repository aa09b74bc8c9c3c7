"""Fault 25: a learner diverges, raises, or takes 30 s.

Inside `step` it is caught, and the baseline proposes in the same tick. Outside, a miss of
the 200 ms deadline is an input and the baseline holds; failed three times in a row it is
quarantined until an operator resets it. Replay is bit-equal throughout.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from flyball_controller.machine import PartitionState, Seams, step
from flyball_controller.machine.export import export_state
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.slow import DEADLINE_S, SlowRunner
from flyball_core.inputs import Order, Proposal, SlowProposal, TargetKind
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import Output, RecordKind, Snapshot
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.seam import Memory, Policy, PoolView
from harness.invariants import check_events
from harness.scripted_engine import POOL, Load
from harness.scripted_pool import LOG_ID, ScriptedPool, scripted_pool

TRIPS = 3


class Learner:
    """A policy inside the tick that fails as the test says."""

    name = "learner"

    def __init__(self, fail: Callable[[PoolView, Memory], object]) -> None:
        self._fail = fail

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Whatever goes wrong."""
        return cast("list[Proposal]", self._fail(view, memory))


def wish(view: PoolView, value: object, policy: str = "learner") -> Proposal:
    """A proposal with a value that may be none."""
    made = Proposal(policy=policy, kind=TargetKind.ENGINE, target=view.engines[0], knob=BATCH_CAP, value=1, reason="")
    object.__setattr__(made, "value", value)
    return made


def diverge(view: PoolView, memory: Memory) -> object:
    """A gradient that doubles at every tick until it is no number any more."""
    memory["gain"] = memory.get("gain", 1e300) * 1e10
    return [wish(view, memory["gain"])]


def recurse(view: PoolView, memory: Memory) -> object:
    """It calls itself without an end."""
    return recurse(view, memory)


FAILURES: dict[str, Callable[[PoolView, Memory], object]] = {
    "raises": lambda _view, _memory: 1 / 0,
    "diverges": diverge,
    "proposes NaN": lambda view, _memory: [wish(view, math.nan)],
    "proposes nothing at all": lambda _view, _memory: None,
    "proposes words": lambda _view, _memory: ["more"],
    "proposes an object": lambda view, _memory: [wish(view, object())],
    "proposes beyond 64 bits": lambda view, _memory: [wish(view, 10**30)],
    "proposes as an operator": lambda view, _memory: [wish(view, 5, "override:o1")],
    "proposes no text": lambda view, _memory: [wish(view, "\ud800")],
    "recurses": recurse,
}


def governed(slot: PolicySlot) -> ScriptedPool:
    """A pool under changing load, governed by one slot."""
    pool = scripted_pool(
        load=lambda now: Load(concurrency=230.0 if now % 60 < 30 else 300.0), seams=Seams(slots=(slot,))
    )
    pool.engines["e0-1"].slowness = 2.2
    return pool


def course_of(pool: ScriptedPool) -> list[tuple[float, str, object]]:
    """What receivers applied, and when."""
    return [(event.time_s, event.target, tuple(sorted(event.values.items()))) for event in pool.log.applied]


def replayed(pool: ScriptedPool, seams: Seams) -> tuple[list[Output], bytes]:
    """The recorded inputs through `step` again."""
    state, outputs = PartitionState(log_id=LOG_ID, partition=0), list[Output]()
    for item in pool.log.inputs:
        outputs.extend(step(state, item, seams))
    return outputs, export_state(state)


@pytest.fixture(scope="module")
def baseline() -> list[tuple[float, str, object]]:
    """The course under the baseline alone."""
    pool = governed(PolicySlot(CapsAimd()))
    pool.run(200)
    return course_of(pool)


@pytest.mark.parametrize("failure", FAILURES)
def test_f25_inside_step_the_baseline_takes_over_in_the_same_tick(
    failure: str, baseline: list[tuple[float, str, object]]
) -> None:
    """However it fails, from the first tick on the course is that of the baseline, tick by tick."""
    pool = governed(PolicySlot(Learner(FAILURES[failure]), CapsAimd()))
    pool.run(200)

    assert baseline == course_of(pool)
    assert len(baseline) > 10
    assert [] == check_events(pool.log).all


@pytest.mark.parametrize("failure", FAILURES)
def test_f25_inside_step_it_is_quarantined_after_3_trips_until_an_operator_resets_it(failure: str) -> None:
    """Three failures in a row, one alarm, no further call; after the order it is asked again."""
    calls: list[int] = []

    def counted(view: PoolView, memory: Memory) -> object:
        calls.append(1)
        return FAILURES[failure](view, memory)

    pool = governed(PolicySlot(Learner(counted), CapsAimd()))
    pool.run(20)

    assert TRIPS == len(calls)
    assert 1 == len([r for r in pool.log.decisions(RecordKind.ALARM) if "policy learner is quarantined" in r.summary])
    pool.put(Order(pool=POOL, author="op", reset_policy="learner"))
    pool.run(20)

    assert 2 * TRIPS == len(calls)


@pytest.mark.parametrize("failure", FAILURES)
def test_f25_inside_step_replay_is_bit_equal(failure: str) -> None:
    """The same inputs give the same outputs and the same state, failures included."""
    pool = governed(PolicySlot(Learner(FAILURES[failure]), CapsAimd()))
    pool.run(60)
    outputs, state = replayed(pool, Seams(slots=(PolicySlot(Learner(FAILURES[failure]), CapsAimd()),)))

    assert pool.log.outputs == outputs
    assert export_state(pool.state) == state


def test_f25_now_and_then_a_failure_is_forgiven() -> None:
    """Two failures, then a success: the count starts again, and nothing is quarantined."""

    def sometimes(view: PoolView, memory: Memory) -> object:
        memory["n"] = memory.get("n", 0) + 1
        if memory["n"] % 3:
            raise ValueError
        return []

    pool = governed(PolicySlot(Learner(sometimes), CapsAimd()))
    pool.run(60)

    assert {} == pool.state.pools["chat"].quarantined


def test_f25_a_baseline_that_fails_too_stops_nothing() -> None:
    """With both failing nothing is proposed, and `step` goes on."""

    class Worse(Learner):
        name = "worse"

    broken: Policy = Worse(FAILURES["raises"])
    pool = governed(PolicySlot(Learner(FAILURES["raises"]), broken))
    pool.run(20)

    assert {"learner", "worse"} == set(pool.state.pools["chat"].quarantined)
    assert [] == [d for d in pool.log.told() if "e0-1" == getattr(d, "engine", "")]


class Sleeper:
    """A policy outside the tick that takes 30 s."""

    name = "sleeper"

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Half a minute later: nothing."""
        del view, memory
        self._gate.wait(30.0)
        return []


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets sleepers go at the end."""
    event = threading.Event()
    yield event
    event.set()


def with_slow(name: str) -> Seams:
    """The baseline inside the tick and a slow policy outside."""
    return Seams(slots=(PolicySlot(CapsAimd()),), slow=(name,))


async def live(pool: ScriptedPool, runner: SlowRunner, seconds: int) -> list[SlowProposal]:
    """Seconds of life with the runner's answers appended as inputs."""
    answers = []
    for _ in range(seconds):
        for output in pool.second():
            if isinstance(output, Snapshot):
                for answer in await runner.answer(output):
                    answers.append(answer)
                    pool.put(answer)
    return answers


async def test_f25_outside_step_a_deadline_of_200_ms_is_kept_and_the_miss_is_an_input(
    gate: threading.Event, baseline: list[tuple[float, str, object]]
) -> None:
    """A policy that takes 30 s costs 200 ms: a miss in the log, the baseline's course, and after 3 misses silence."""
    pool = governed(PolicySlot(CapsAimd()))
    pool.seams = with_slow("sleeper")
    start = time.monotonic()
    answers = await live(pool, SlowRunner([Sleeper(gate)]), 200)

    assert 0.2 == DEADLINE_S
    assert time.monotonic() - start < 20.0
    assert ["no answer within 0.2 s"] == [answer.missed for answer in answers[:1]]
    assert TRIPS == len(answers)
    assert answers == [i.body for i in pool.log.inputs if isinstance(i.body, SlowProposal)]
    assert {"sleeper"} == set(pool.state.pools["chat"].quarantined)
    assert baseline == course_of(pool)


async def test_f25_outside_step_replay_is_bit_equal_without_the_policy(gate: threading.Event) -> None:
    """A replay, which runs no slow policy, gives the same outputs: the miss stands in the log."""
    pool = governed(PolicySlot(CapsAimd()))
    pool.seams = with_slow("sleeper")
    await live(pool, SlowRunner([Sleeper(gate)], deadline_s=0.01), 60)
    outputs, state = replayed(pool, with_slow("sleeper"))

    assert _without_views(pool.log.outputs) == _without_views(outputs)
    assert export_state(pool.state) == state


async def test_f25_outside_step_an_operator_lets_it_try_again(gate: threading.Event) -> None:
    """After the reset it is asked at the next tick, and what it says then is used."""

    class Mended(Sleeper):
        def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
            memory["n"] = memory.get("n", 0) + 1
            if memory["n"] <= TRIPS:
                raise RuntimeError("not yet")
            return [wish(view, 40, self.name)]

    pool = governed(PolicySlot(CapsAimd()))
    pool.seams = with_slow("sleeper")
    runner = SlowRunner([Mended(gate)], deadline_s=5.0)
    first = await live(pool, runner, 10)
    pool.put(Order(pool=POOL, author="op", reset_policy="sleeper"))
    second = await live(pool, runner, 10)

    assert ["RuntimeError: not yet"] * TRIPS == [answer.missed for answer in first]
    assert {""} == {answer.missed for answer in second}
    assert any(
        v.proposal.policy == "sleeper" and v.allowed is not None for d in pool.log.decisions() for v in d.verdicts
    )


def _without_views(outputs: list[Output]) -> list[object]:
    """Outputs as they can be compared: a snapshot's view holds arrays, which have no equality of their own."""
    return [(o.pool, o.tick_revision, o.policies) if isinstance(o, Snapshot) else o for o in outputs]
