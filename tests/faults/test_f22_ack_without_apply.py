"""Fault 22: an engine acknowledges what it does not apply.

What it reads back differs: it is `diverged` within three ticks, and nothing is learned
from it until it holds what it was told.
"""

import pytest

from flyball_controller.machine import Seams
from flyball_controller.machine.seams import PolicySlot
from flyball_core.inputs import OverrideClear, OverrideSet, Proposal
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import RecordKind
from flyball_policies.caps_aimd import CapsAimd
from flyball_policies.seam import Memory, PoolView
from flyball_policies.weights_speed import WeightsSpeed
from harness.invariants import check_events
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool


class Watching:
    """The standard policies, and a note of which engines they were allowed to learn from."""

    name = "watching"

    def __init__(self) -> None:
        self.usable: list[frozenset[str]] = []

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Nothing; only look."""
        del memory
        self.usable.append(frozenset(e for e, ok in zip(view.engines, view.usable.tolist(), strict=True) if ok))
        return []


@pytest.fixture
def deaf() -> tuple[ScriptedPool, Watching]:
    """A pool in which one engine says yes to everything and does nothing; an operator has just asked it for a cap."""
    watching = Watching()
    slots = tuple(PolicySlot(policy) for policy in (CapsAimd(), WeightsSpeed(), watching))
    pool = scripted_pool(seams=Seams(slots=slots))
    pool.run(5)
    pool.engines["e0-0"].deaf = True
    pool.put(
        OverrideSet(
            pool=POOL,
            override_id="o1",
            target="e0-0",
            knob=BATCH_CAP,
            value=80,
            expires_wall_s=WALL_S + 1e6,
            reason="test",
            author="op",
        )
    )
    return pool, watching


def diverged(pool: ScriptedPool) -> str:
    """What the machine says the engine holds instead."""
    return pool.state.pools["chat"].engines["e0-0"].holding.diverged


def test_f22_it_is_diverged_within_3_ticks(deaf: tuple[ScriptedPool, Watching]) -> None:
    """From the order to the alarm at most three ticks, and the alarm says what is held and what was told."""
    pool, _ = deaf
    pool.run(3)

    assert "max_active_requests is 64, not 80" == diverged(pool)
    assert "e0-0 diverged: max_active_requests is 64, not 80" in [
        record.summary for record in pool.log.decisions(RecordKind.ALARM)
    ]


def test_f22_nothing_is_learned_from_it_meanwhile(deaf: tuple[ScriptedPool, Watching]) -> None:
    """From the tick after, no policy may use it; the others stay usable."""
    pool, watching = deaf
    pool.run(3)
    watching.usable.clear()
    pool.engines["e0-0"].slowness = 3.0
    pool.run(60)

    assert {frozenset({"e0-1", "e1-0", "e1-1"})} == set(watching.usable)
    assert 128 == pool.gateways["gw0"].table["weight:e0-0"]


def test_f22_it_is_told_again_with_back_off_and_others_move_on(deaf: tuple[ScriptedPool, Watching]) -> None:
    """Each time in a newer version, with ever longer waits; 5 minutes bring fewer than 10 attempts."""
    pool, _ = deaf
    pool.run(300)
    told = pool.log.told("e0-0")

    assert 3 < len(told) < 10
    assert len(told) == len({directive.version for directive in told})
    assert [] == check_events(pool.log).all


def test_f22_once_it_holds_what_it_was_told_it_is_learned_from_again(deaf: tuple[ScriptedPool, Watching]) -> None:
    """The divergence ends with the first acknowledgement that reads back right; the knob goes back to where it was."""
    pool, watching = deaf
    pool.run(20)
    pool.engines["e0-0"].deaf = False
    pool.put(OverrideClear(pool=POOL, override_id="o1", author="op"))
    pool.run(60)

    assert "" == diverged(pool)
    assert "e0-0" in watching.usable[-1]
    assert 64 == pool.engines["e0-0"].setting[BATCH_CAP]
