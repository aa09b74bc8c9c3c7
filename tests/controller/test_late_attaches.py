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
from harness.scripted_engine import POOL, Load
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
    life = "g0" if name == GATEWAY else "i0"
    put(pool, farewell(attach(pool, name, 0, life), 10**6))  # the life before them is over
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


@pytest.mark.parametrize("name", [ENGINE, GATEWAY])
def test_a_life_that_the_log_hears_of_only_after_its_successor_does_not_replace_it(
    pool: ScriptedPool, name: str
) -> None:
    """Its attach lay at a controller that stood still; its farewell follows, and the successor stands again."""
    put(pool, attach(pool, name, 1, "first"))
    put(pool, attach(pool, name, 3, "third"))
    late = attach(pool, name, 1, "second")
    offset = put(pool, late)
    put(pool, farewell(late, offset))
    machine = pool.state.pools[POOL]
    known = machine.gateways[name] if name in pool.gateways else machine.engines[name]

    assert attached(pool, name)
    assert "third" == known.incarnation
    assert known.holding.must_publish == (known.holding.version is not None)
    put(pool, farewell(attach(pool, name, 3, "third"), offset - 1))
    assert not attached(pool, name)


def test_a_late_life_without_a_farewell_is_found_out_by_its_successors_answer(pool: ScriptedPool) -> None:
    """Whoever answers what was told since the attach is there; the late one's controller died without a farewell."""
    for second in range(30):
        pool.load = lambda now_s: Load(concurrency=500.0 if now_s % 20 < 10 else 60.0)
        pool.second()
        if second == 10:
            put(pool, attach(pool, ENGINE, 1, "late"))
            assert "late" == pool.state.pools[POOL].engines[ENGINE].incarnation
    engine = pool.state.pools[POOL].engines[ENGINE]

    assert "i0" == engine.incarnation
    assert engine.holding.acked == engine.holding.version
    assert "acks_of_another_incarnation" not in pool.state.pools[POOL].counts


def test_a_successor_that_answers_is_not_displaced_by_its_own_farewell(pool: ScriptedPool) -> None:
    """A restart is one: once the new incarnation has answered, its leaving brings nobody back."""
    new = attach(pool, ENGINE, 1, "new")
    pool.engines[ENGINE].incarnation = "new"
    offset = put(pool, new)
    pool.load = lambda now_s: Load(concurrency=500.0 if now_s % 20 < 10 else 60.0)
    pool.run(20)
    put(pool, farewell(new, offset))

    assert not attached(pool, ENGINE)


def test_a_successor_whose_first_stream_broke_at_once_stands_again_by_its_next_attempt(pool: ScriptedPool) -> None:
    """Taken for late because it left soon, a real successor is believed when it counts on."""
    put(pool, attach(pool, ENGINE, 2, "old"))
    first = attach(pool, ENGINE, 1, "new")
    put(pool, farewell(first, put(pool, first)))
    assert "old" == pool.state.pools[POOL].engines[ENGINE].incarnation
    offset = put(pool, attach(pool, ENGINE, 2, "new"))

    assert "new" == pool.state.pools[POOL].engines[ENGINE].incarnation
    put(pool, farewell(attach(pool, ENGINE, 2, "old"), offset - 3))
    assert attached(pool, ENGINE)
    put(pool, farewell(attach(pool, ENGINE, 2, "new"), offset))
    assert not attached(pool, ENGINE)
