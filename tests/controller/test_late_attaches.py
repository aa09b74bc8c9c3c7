"""Attaches and farewells that the log takes late, in any order: what stands is what the receiver did last.

While the log is away, one receiver's words wait at each controller that it went to meanwhile.
"""

from dataclasses import replace
from itertools import permutations

import pytest

from flyball_controller.farewells import farewell
from flyball_core.ids import Incarnation
from flyball_core.inputs import Attach
from flyball_core.outputs import RecordKind
from harness.scripted_engine import POOL
from harness.scripted_pool import ScriptedPool, scripted_pool

ENGINE, GATEWAY = "e0-0", "gw0"


@pytest.fixture
def pool() -> ScriptedPool:
    """A pool in control, some seconds old."""
    made = scripted_pool()
    made.run(5)
    return made


def attach(pool: ScriptedPool, name: str, attempt: int, incarnation: str = "i0") -> Attach:
    """The attach of one attempt of an incarnation."""
    said = pool.gateways[name].attach() if name in pool.gateways else pool.engines[name].attach()
    return replace(said, attempt=attempt, incarnation=Incarnation(incarnation))


def attached(pool: ScriptedPool, name: str) -> bool:
    """Whether the machine takes it to be attached."""
    machine = pool.state.pools[POOL]
    return machine.gateways[name].attached if name in pool.gateways else machine.engines[name].attached


def put(pool: ScriptedPool, body: Attach) -> int:
    """Append it; its offset."""
    pool.put(body)
    return len(pool.log.inputs) - 1


@pytest.mark.parametrize("name", [ENGINE, GATEWAY])
def test_a_receiver_that_moved_on_stays_attached_in_whatever_order_the_log_takes_its_words(
    pool: ScriptedPool, name: str
) -> None:
    """Attempts 1 and 2 are over, 3 stands: attached, for every order in which farewells follow their attaches."""
    words = [(number, True) for number in (1, 2, 3)] + [(number, False) for number in (1, 2)]
    orders = [
        order
        for order in permutations(words)
        if all(order.index((number, True)) < order.index((number, False)) for number in (1, 2))
    ]
    assert 30 == len(orders)
    for at, order in enumerate(orders):
        incarnation = f"i-{at}"
        offsets: dict[int, int] = {}
        for number, comes in order:
            body = attach(pool, name, number, incarnation)
            if comes:
                offsets[number] = put(pool, body)
            else:
                put(pool, farewell(body, offsets[number]))

        assert attached(pool, name), order
        put(pool, farewell(attach(pool, name, 3, incarnation), offsets[3]))
        assert not attached(pool, name), order


def test_a_killed_engines_last_attach_does_not_replace_its_successors(pool: ScriptedPool) -> None:
    """It is counted, raises no alarm, and its farewell changes nothing."""
    put(pool, attach(pool, ENGINE, 1, "old"))
    put(pool, attach(pool, ENGINE, 1, "new"))
    alarms = len(pool.log.decisions(RecordKind.ALARM))
    late = attach(pool, ENGINE, 2, "old")
    put(pool, farewell(late, put(pool, late)))

    machine = pool.state.pools[POOL]
    assert attached(pool, ENGINE)
    assert "new" == machine.engines[ENGINE].incarnation
    assert 1 == machine.counts["attaches_of_an_earlier_incarnation"]
    assert alarms == len(pool.log.decisions(RecordKind.ALARM))


def test_an_earlier_incarnation_may_come_back_once_its_successor_has_left(pool: ScriptedPool) -> None:
    """Of two engines under one name, the one that stays is governed again when the other is gone."""
    put(pool, attach(pool, ENGINE, 1, "old"))
    offset = put(pool, attach(pool, ENGINE, 1, "new"))
    put(pool, farewell(attach(pool, ENGINE, 1, "new"), offset))
    put(pool, attach(pool, ENGINE, 2, "old"))

    assert attached(pool, ENGINE)
    assert "old" == pool.state.pools[POOL].engines[ENGINE].incarnation


def test_receivers_that_do_not_count_are_told_apart_by_offsets(pool: ScriptedPool) -> None:
    """A farewell to an earlier attach is late, one to the last attach is not."""
    first = put(pool, attach(pool, ENGINE, 0, "i9"))
    second = put(pool, attach(pool, ENGINE, 0, "i9"))
    put(pool, farewell(attach(pool, ENGINE, 0, "i9"), first))
    assert attached(pool, ENGINE)

    put(pool, farewell(attach(pool, ENGINE, 0, "i9"), second))
    assert not attached(pool, ENGINE)
