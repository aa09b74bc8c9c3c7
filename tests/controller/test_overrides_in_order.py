"""Several pins of one knob: an engine's own before the pool's, and of equals the one that was set last."""

import pytest

from flyball_controller.machine.orders import standing_intent
from flyball_core.inputs import OverrideSet
from flyball_core.knobs import BATCH_CAP
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

ENGINE = "e0-0"


@pytest.fixture
def pool() -> ScriptedPool:
    """A pool in control, some seconds old."""
    made = scripted_pool()
    made.run(5)
    return made


def pin(pool: ScriptedPool, override_id: str, value: int, target: str = "") -> None:
    """Set an override, and let the pool come to it."""
    pool.put(
        OverrideSet(
            pool=POOL,
            override_id=override_id,
            target=target,
            knob=BATCH_CAP,
            value=value,
            expires_wall_s=WALL_S + 3600.0,
            reason="a test",
            author="ada",
        )
    )
    pool.run(40)


def cap(pool: ScriptedPool) -> object:
    """What the engine holds."""
    return pool.engines[ENGINE].setting[BATCH_CAP]


@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")])
def test_the_pin_that_was_set_last_holds_whatever_its_id(pool: ScriptedPool, ids: tuple[str, str]) -> None:
    """Ids are random: their order says nothing about what the operator wants."""
    pin(pool, ids[0], 40)
    pin(pool, ids[1], 80)
    assert 80 == cap(pool)


def test_a_pin_set_again_is_the_last_one(pool: ScriptedPool) -> None:
    """Under an id that was there already it goes before what was set in between."""
    pin(pool, "a", 40)
    pin(pool, "b", 80)
    pin(pool, "a", 50)
    assert 50 == cap(pool)


def test_an_engines_own_pin_goes_before_a_later_one_of_the_pool(pool: ScriptedPool) -> None:
    """However late the pool's was set."""
    pin(pool, "a", 40, target=ENGINE)
    pin(pool, "b", 80)
    assert 40 == cap(pool)


def test_the_order_outlives_retention(pool: ScriptedPool) -> None:
    """The standing orders, as an owner repeats them, keep it: a pool that knows nothing else holds the same."""
    pin(pool, "b", 40)
    pin(pool, "a", 80)
    intent = standing_intent(pool.state.pools[POOL], len(pool.log.inputs))
    assert intent is not None
    other = scripted_pool()
    other.put(intent)
    other.run(40)

    assert 80 == cap(other)
