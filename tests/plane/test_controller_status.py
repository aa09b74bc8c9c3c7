"""What operators are told of a pool is what its owner knows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flyball_controller.machine.state import Canary, EngineState, Relaunch
from flyball_controller.owner import Owned
from flyball_controller.serving.status import partition_status, pool_status, stale_pool
from flyball_core.ids import LogId
from flyball_core.inputs import OverrideSet
from flyball_core.knobs import BATCH_CAP
from flyball_proto.v1 import common_pb2, services_pb2 as pb
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

OTHER = LogId("22222222-2222-4222-8222-222222222222")


def told(pool: ScriptedPool) -> pb.PoolStatus:
    """The status of the scripted pool."""
    return pool_status(pool.state, pool.state.pools[POOL], 1.0)


def target(status: pb.PoolStatus, name: str) -> pb.TargetStatus:
    """What is told of one target."""
    return next(one for one in status.targets if one.target == name)


class TestAGovernedPool:
    """Engines, gateways and agents of a pool that runs as it should."""

    def test_the_pool_says_where_it_stands(self) -> None:
        """Owner, epoch, mode, regime, times and the author of the policy are the state's."""
        pool = scripted_pool()
        pool.run(10)
        status = told(pool)

        assert ("chat", "c1", 0, common_pb2.MODE_CONTROL) == (status.pool, status.owner, status.epoch, status.mode)
        assert (9.0, WALL_S + 10.0, "op") == (status.time_s, status.wall_s, status.policy_author)
        assert pool.state.pools[POOL].regime.name == status.regime
        assert 0.0 <= status.regime_s <= status.time_s
        assert pool.state.pools[POOL].features == dict(status.features)
        assert 20 == status.counts["delivered"]

    def test_an_engine_without_trouble(self) -> None:
        """What it is wanted to hold, what it holds, what it was told and answered."""
        pool = scripted_pool()
        pool.run(10)
        one = target(told(pool), "e0-0")

        assert (common_pb2.TARGET_KIND_ENGINE, "i0", True, "", False) == (
            one.kind,
            one.incarnation,
            one.attached,
            one.trouble,
            one.stale,
        )
        assert one.effective[BATCH_CAP].integer == pool.engines["e0-0"].setting[BATCH_CAP]
        assert one.told == one.acked
        assert ("graphs", "serving", False) == (one.variant, one.phase, one.degraded)
        assert [BATCH_CAP, "variant"] == [knob.name for knob in one.knobs]

    def test_a_gateway_is_wanted_to_hold_its_table(self) -> None:
        """Its routes are told as what is wanted, and what it answered as what it holds."""
        pool = scripted_pool()
        pool.run(10)
        one = target(told(pool), "gw0")

        assert common_pb2.TARGET_KIND_GATEWAY == one.kind
        assert dict(one.wanted) == dict(one.effective)
        assert "weight:e0-0" in one.wanted

    def test_agents_are_as_old_as_their_newest_frame(self) -> None:
        """A frame's age counts from when it was sampled, in the machine's time; silence makes it grow and stale."""
        pool = scripted_pool()
        pool.run(10)

        assert [("a0", "b0", 1.0, False), ("a1", "b0", 1.0, False)] == [
            (one.agent, one.boot, one.age_s, one.stale) for one in told(pool).agents
        ]
        for _ in range(10):
            pool.tick()

        assert [(11.0, True), (11.0, True)] == [(one.age_s, one.stale) for one in told(pool).agents]

    def test_an_agent_silent_for_long_has_no_age(self) -> None:
        """Its clock is forgotten after a while: then its age is unknown, and it is stale."""
        pool = scripted_pool()
        pool.run(3)
        for _ in range(200):
            pool.tick()

        assert [(False, True)] * 2 == [(one.HasField("age_s"), one.stale) for one in told(pool).agents]


class TestTrouble:
    """The first thing that stands between what is wanted and what is held."""

    @pytest.mark.parametrize(
        ("change", "trouble"),
        [
            (lambda engine: setattr(engine, "attached", False), "not attached"),
            (lambda engine: setattr(engine.holding, "nack", "too much"), "nack: too much"),
            (lambda engine: setattr(engine.holding, "diverged", "cap is 3, not 4"), "diverged: cap is 3, not 4"),
            (lambda engine: setattr(engine.holding, "foreign_log", OTHER), f"holds another log: {OTHER}"),
            (lambda engine: setattr(engine, "row_tick", -100), "stale"),
        ],
    )
    def test_is_told_in_words(self, change: Callable[[EngineState], Any], trouble: str) -> None:
        """Each kind of trouble has its words."""
        pool = scripted_pool()
        pool.run(5)
        change(pool.state.pools[POOL].engines["e0-0"])

        assert trouble == target(told(pool), "e0-0").trouble

    def test_an_engine_without_telemetry_is_stale_and_so_may_be_the_pool(self) -> None:
        """An engine is stale after the policy's ticks, a pool once all its engines are."""
        pool = scripted_pool()
        pool.run(8)

        assert not stale_pool(pool.state.pools[POOL])
        for _ in range(3):
            pool.tick()

        assert not any(one.stale for one in told(pool).targets)
        for _ in range(3):
            pool.tick()

        assert [True] * 4 == [one.stale for one in told(pool).targets if one.kind == common_pb2.TARGET_KIND_ENGINE]
        assert stale_pool(pool.state.pools[POOL])

    def test_a_pool_without_engines_is_not_stale(self) -> None:
        """There is nothing that could be."""
        assert not stale_pool(scripted_pool(agents=0).state.pools[POOL])


def test_orders_in_force_are_told() -> None:
    """Overrides, pause, quarantined policies and relaunches under way."""
    pool = scripted_pool()
    pool.run(2)
    state = pool.state.pools[POOL]
    override = OverrideSet(
        pool=POOL,
        override_id="o1",
        target="e0-0",
        knob=BATCH_CAP,
        value=20,
        expires_wall_s=2e9,
        reason="r",
        author="ada",
    )
    state.overrides["o1"], state.paused, state.quarantined = override, True, {"caps": "it failed"}
    state.relaunches = [
        Relaunch(engine="e0-0", variant="splitkv", before="graphs", phase="draining", since_s=0.0, decision="d")
    ]
    state.canary = Canary(engine="e0-1", variant="splitkv", before="graphs", until_s=1.0, decision="d")
    status = told(pool)

    assert (True, {"caps": "it failed"}) == (status.paused, dict(status.quarantined))
    assert [("o1", 20, "ada")] == [(one.override_id, one.value.integer, one.author) for one in status.overrides]
    assert ["e0-0 to splitkv: draining", "e0-1 in splitkv: watched as a canary"] == list(status.relaunching)


def test_a_partition_says_how_far_it_is_behind() -> None:
    """The inputs known here that were not stepped through yet."""
    pool = scripted_pool()
    pool.run(3)
    owned = Owned(state=pool.state, seams=pool.seams, next_offset=10, epoch=4, end=17)

    assert pb.PartitionStatus(partition=0, epoch=4, inputs_behind=7, ticks=3) == partition_status(owned)
    assert 0 == partition_status(replace(owned, end=3)).inputs_behind


def test_a_thousand_engines_fit_into_a_message() -> None:
    """The status of a large pool with two gateways is below what a client takes."""
    pool = scripted_pool(agents=125, per_agent=8, gateways=2)
    pool.run(4)

    assert told(pool).ByteSize() < 2 * 1024 * 1024
