"""A receiver that went over to another controller stays attached, however late the first one tells of its leaving."""

from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.pusher import Pusher
from flyball_core.inputs import Attach
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input
from harness.logged_pool import Wire, logged_pool
from harness.odd_logs import QUICK, records_of
from harness.scripted_pool import ScriptedPool, scripted_pool


def attach_of(pool: ScriptedPool, name: str) -> Attach:
    """What an engine or gateway of the pool says of itself."""
    return pool.engines[name].attach() if name in pool.engines else pool.gateways[name].attach()


@pytest.mark.parametrize("name", ["e0-0", "gw0"])
def test_a_late_farewell_ends_no_later_attach(name: str) -> None:
    """The farewell to an attach that another of the same incarnation followed changes nothing, and is counted."""
    pool = scripted_pool()
    pool.run(2)
    known = pool.state.pools["chat"]
    target = known.engines[name] if name in known.engines else known.gateways[name]
    first = target.attach_offset
    attach = attach_of(pool, name)
    pool.put(attach)
    farewell = replace(attach, attached=False, ends=first)
    pool.put(farewell)

    assert target.attached
    assert 1 == known.counts["detaches_of_another_attach"]
    pool.put(replace(farewell, ends=target.attach_offset))

    assert not target.attached


@pytest.mark.parametrize("name", ["e0-0", "gw0"])
def test_a_farewell_that_names_no_attach_ends_the_one_in_force(name: str) -> None:
    """Farewells from before there were offsets in them keep their meaning."""
    pool = scripted_pool()
    known = pool.state.pools["chat"]
    target = known.engines[name] if name in known.engines else known.gateways[name]
    pool.put(replace(attach_of(pool, name), attached=False))

    assert not target.attached


async def test_an_engine_that_moved_between_controllers_goes_on_being_governed(tmp_path: Path) -> None:
    """The first controller notices last that the engine has gone to the second; the owner knows better."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    engine = pool.scripted.engines["e0-0"]
    first, second = Pusher(log), Pusher(log)
    old, new = Wire(engine, pool), Wire(engine, pool)
    await first.attached(old, engine.attach())
    await second.attached(new, engine.attach())
    await first.detached(old, engine.attach())
    await pool.second(owner)

    assert owner.owned[0].state.pools["chat"].engines["e0-0"].attached
    await second.detached(new, engine.attach())
    await pool.second(owner)

    assert not owner.owned[0].state.pools["chat"].engines["e0-0"].attached
    await log.close()


async def test_a_farewell_names_the_attach_that_it_ends(tmp_path: Path) -> None:
    """What a pusher puts on record when a link ends is the offset of the attach that began it."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, _ = await logged_pool(log)
    engine = pool.scripted.engines["e0-0"]
    pusher, link = Pusher(log), Wire(engine, pool)
    await pusher.attached(link, engine.attach())
    at = (await log.bounds(Topic.INPUTS, 0)).end - 1
    await pusher.detached(link, engine.attach())
    said = [decode_input(r.offset, r.value).body for r in await records_of(log, Topic.INPUTS, 0)]

    assert isinstance(said[-1], Attach)
    assert (False, at) == (said[-1].attached, said[-1].ends)
    await log.close()
