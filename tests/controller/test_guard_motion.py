"""Whatever is proposed, nothing published leaves bounds, slew or dwell: judged by the invariant monitor."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from flyball_controller.machine import Seams
from flyball_controller.machine.seams import PolicySlot
from flyball_core.inputs import Proposal, TargetKind
from flyball_core.knobs import BATCH_CAP, VARIANT, WEIGHT
from flyball_policies.seam import Memory, PoolView
from harness.invariants import check_events
from harness.scripted_pool import POLICY, ScriptedPool, scripted_pool

WISHES = st.tuples(
    st.sampled_from(["e0-0", "e0-1", "e1-0", "e1-1", "nobody"]),
    st.sampled_from([BATCH_CAP, WEIGHT, VARIANT, "nothing"]),
    st.one_of(
        st.integers(-10, 400),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.sampled_from(["graphs", "splitkv", "", "x"]),
    ),
)

QUICK = (
    POLICY
    + """\
guard: {restart_dwell: 20s, canary: 5s, raise_dwell: 5s, drain_timeout: 5s, relaunch_timeout: 20s}
"""
)


class Restless:
    """A policy that wants something else at every tick, as told."""

    name = "restless"

    def __init__(self, courses: list[list[tuple[str, str, int | float | bool | str]]]) -> None:
        self._courses = courses

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """The next wishes of the course."""
        del view
        tick = memory["tick"] = memory.get("tick", -1) + 1
        return [
            Proposal(policy=self.name, kind=TargetKind.ENGINE, target=target, knob=knob, value=value, reason="")
            for target, knob, value in self._courses[tick % len(self._courses)]
        ]


def restless_pool(courses: list[list[tuple[str, str, int | float | bool | str]]]) -> ScriptedPool:
    """A pool governed by such a policy alone."""
    pool = scripted_pool(policy=QUICK, seams=Seams(slots=(PolicySlot(Restless(courses)),)))
    pool.relaunch_s = 4.0
    return pool


@settings(max_examples=60, deadline=None)
@given(courses=st.lists(st.lists(WISHES, max_size=6), min_size=1, max_size=12))
def test_no_proposals_whatever_break_bounds_slew_or_dwell(
    courses: list[list[tuple[str, str, int | float | bool | str]]],
) -> None:
    """Any course of proposals, of any type and size, keeps promises 2, 4 and 5."""
    pool = restless_pool(courses)
    pool.run(40)

    assert [] == check_events(pool.log).all


EXTREMES: dict[str, Callable[[int], int]] = {
    "up and down": lambda tick: 10**6 if tick % 2 else -(10**6),
    "always up": lambda _tick: 10**9,
    "always down": lambda _tick: -1,
}


@pytest.mark.parametrize("course", EXTREMES)
def test_the_wildest_courses_stay_within_the_rails(course: str) -> None:
    """Caps driven to the ends of the world for ten minutes stay within 4 to 128, and rise once in 5 s at most."""
    wanted = EXTREMES[course]
    pool = restless_pool([[("e0-0", BATCH_CAP, wanted(tick)), ("e0-0", WEIGHT, wanted(tick))] for tick in range(2)])
    pool.run(600)
    caps = [event.values[BATCH_CAP] for event in pool.log.applied if BATCH_CAP in event.values]
    expected = {"up and down": {4}, "always up": {128}, "always down": {4}}

    assert [] == check_events(pool.log).all
    assert caps
    assert all(isinstance(cap, int) and 4 <= cap <= 128 for cap in caps)
    assert caps[-1] in expected[course] or course == "up and down"
