"""A scenario plays through the production control plane: pools apart, runs repeatable, logs sound."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import Verdict, replay_log
from flyball_core.errors import Rejected
from flyball_core.frames import Frame
from flyball_core.ids import PoolId
from flyball_core.inputs import Attach, PolicyText, TargetKind, Tick
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input
from flyball_twin.governed.life import GOVERNED, UNGOVERNED
from harness.invariants import check_log
from life_parts import TWO_POOLS, Lived, live, scenario

CHAT, ANSWERS = PoolId("chat"), PoolId("answers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where lives may leave what they leave."""
    return tmp_path_factory.mktemp("life")


@pytest.fixture(scope="module")
def lived(folder: Path) -> Lived:
    """Two pools, one in control and one in advise, beside the same ungoverned."""
    return asyncio.run(live(scenario(), folder / "first"))


async def test_every_pool_has_its_own_order_and_receivers(lived: Lived) -> None:
    """Policies come through the log; each engine and each gateway's pool has a receiver, the ungoverned fleet none."""
    bodies = [decode_input(0, value).body for value in await lived.written(Topic.INPUTS)]
    orders = [body.pool for body in bodies if isinstance(body, PolicyText)]
    attached = {(body.kind, body.pool, body.target) for body in bodies if isinstance(body, Attach)}

    assert [CHAT, ANSWERS] == orders
    assert attached == {
        (TargetKind.ENGINE, "chat", "engine-0"),
        (TargetKind.ENGINE, "chat", "engine-1"),
        (TargetKind.ENGINE, "answers", "large"),
        (TargetKind.GATEWAY, "chat", "gateway-0"),
        (TargetKind.GATEWAY, "answers", "gateway-0"),
    }


async def test_a_beat_is_as_long_as_the_scenario_says(folder: Path) -> None:
    """A beat of 5 s: the fleets, the agents and the owner go 5 s at a time, and all frames are taken."""
    slow = await live(replace(scenario(), beat_s=5.0, compare=False), folder / "slow")
    bodies = [decode_input(0, value).body for value in await slow.written(Topic.INPUTS)]
    ticks = [body for body in bodies if isinstance(body, Tick)]

    assert {5.0} == {tick.interval_s for tick in ticks[1:]}
    assert slow.life.clock.now_s == pytest.approx(scenario().end_s, abs=5.0)
    assert 0 == slow.frames.rejected
    assert slow.frames.sent == slow.frames.delivered > 0


async def test_only_what_is_in_control_is_changed(lived: Lived) -> None:
    """The pool in control is moved and holds what it was told; the one in advise and the ungoverned fleet are not."""
    observed = lived.life.observed
    governed, static = lived.life.fleets[GOVERNED].fleet, lived.life.fleets[UNGOVERNED].fleet

    assert {"chat"} == {pool for pool, _ in observed.changed}
    assert any(change.acked_at_s is not None for change in observed.changes)
    assert governed.pools[CHAT].engines[0].max_batched_tokens < 8192
    assert {8192} == {
        engine.max_batched_tokens for engine in [*static.engines.values(), *governed.pools[ANSWERS].engines]
    }
    assert {"chat", "answers", "static-chat", "static-answers"} <= set(observed.regime_s)


async def test_one_agent_sees_each_node_with_all_its_gpus(lived: Lived) -> None:
    """Each node of each fleet has an agent, which reports the GPUs of its engines, both of a parallel one."""
    bodies = [decode_input(0, value).body for value in await lived.written(Topic.INPUTS)]
    last = {(str(body.agent), body.pool): body for body in bodies if isinstance(body, Frame)}

    assert {"flyball-left", "flyball-right", "static-left", "static-right"} == {agent for agent, _ in last}
    assert [0, 1] == [gpu.gpu_index for gpu in last["flyball-right", ANSWERS].gpus]
    assert (0, 1) == last["flyball-right", ANSWERS].engines[0].gpus
    assert [0, 1] == [gpu.gpu_index for gpu in last["flyball-left", CHAT].gpus]
    assert 1 == len(last["flyball-left", ANSWERS].gateways)  # the gateway stands on the first node


async def test_a_run_is_a_function_of_scenario_and_seed(lived: Lived, folder: Path) -> None:
    """Played again, every input and every decision is the same, byte for byte; under another seed it is not."""
    again = await live(scenario(), folder / "again")
    other = await live(scenario(), folder / "other", seed=2)

    for topic in (Topic.INPUTS, Topic.DECISIONS, Topic.DIRECTIVES):
        assert await lived.written(topic) == await again.written(topic)
    assert await lived.written(Topic.DECISIONS) != await other.written(Topic.DECISIONS)


async def test_the_log_of_a_life_is_sound(lived: Lived) -> None:
    """It replays identically, breaks no promise, and accounts for every frame."""
    report = await replay_log(lived.log, standard_seams, own_fingerprint())
    frames = lived.frames

    assert Verdict.IDENTICAL is report.verdict
    assert [] == (await check_log(lived.log)).all
    assert frames.sent == frames.delivered >= 2 * 2 * 100
    assert (frames.late, frames.dropped, frames.spooled) == (0, 0, 0)


async def test_both_fleets_are_asked_the_same(lived: Lived) -> None:
    """As many requests arrive in each pool and lane of either fleet."""
    cards = [watched.card.tally for watched in lived.life.fleets.values()]

    assert cards[0].score().arrivals == cards[1].score().arrivals > 2000
    assert cards[0].score(pool=ANSWERS, lane="batch").arrivals == cards[1].score(pool=ANSWERS).arrivals > 50


async def test_without_comparison_there_is_one_fleet(folder: Path) -> None:
    """`compare: false` leaves out the ungoverned fleet, its agents and its pools in the log."""
    alone = await live(scenario(TWO_POOLS.replace("duration: 90s", "duration: 5s\ncompare: false")), folder / "alone")

    assert [GOVERNED] == list(alone.life.fleets)
    assert {"chat", "answers"} == set(alone.life.observed.ticks)
    assert alone.frames.sent == alone.frames.delivered


async def test_a_pool_without_an_order_is_observed(folder: Path) -> None:
    """Where a scenario names no policy nothing is ordered, and nothing changes."""
    text = TWO_POOLS.replace("duration: 90s", "duration: 20s").replace("mode: control", "mode: observe")
    seen = (await live(scenario(text), folder / "observed")).life.observed

    assert not seen.changed
    assert {"observe", "advise"} == {tick.mode for tick in seen.ticks.values()}


async def test_two_pools_may_not_meet_under_one_name(folder: Path) -> None:
    """A pool called as another's ungoverned twin is refused before anything is played."""
    with pytest.raises(Rejected, match="static-chat"):
        await live(scenario(TWO_POOLS.replace("answers", "static-chat")), folder / "met")
