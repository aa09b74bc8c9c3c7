"""Through its doors the twin looks like a real fleet: settable, readable, sampled, and no more than that."""

import pytest

from flyball_agents.engine_adapter import EngineControls, SettingsSurface
from flyball_agents.gateway_adapter import GatewayControls, LanePlace, TableDefaults, TableSurface
from flyball_core.errors import Rejected
from flyball_core.frames import BandwidthSource
from flyball_core.ids import EngineId, PoolId
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.gateway import MAX_WAIT_S
from flyball_twin.governed.doors import EngineDoor, GatewayDoor, Probe
from flyball_twin.physics import ENGINE_MODEL
from twin_parts import ask, fleet_of

E0, E1 = EngineId("e0"), EngineId("e1")
POOL = PoolId("")


def busy_fleet() -> Fleet:
    """Two engines with long requests from the start."""
    return fleet_of(2, [ask(id_, 0.0, prompt=2000, output=900) for id_ in range(8)])


def test_settings_go_through_an_engines_surface() -> None:
    """What the agents' surface applies is what the engine holds and reads back."""
    fleet = busy_fleet()
    door: EngineControls = EngineDoor(fleet, E0)
    surface = SettingsSurface(door)
    surface.apply({BATCH_CAP: 3, TOKEN_BUDGET: 512})

    assert surface.read() == {BATCH_CAP: 3, TOKEN_BUDGET: 512, VARIANT: "graphs"}
    assert fleet.engines[E0].max_active_requests == 3


def test_a_setting_that_fails_is_put_back() -> None:
    """A value out of bounds raises, and the knobs set before it read as they did."""
    surface = SettingsSurface(EngineDoor(busy_fleet(), E0))
    before = dict(surface.read())
    with pytest.raises(Rejected):
        surface.apply({BATCH_CAP: 3, TOKEN_BUDGET: 10_000})

    assert before == surface.read()


def test_a_table_goes_through_a_gateways_surface() -> None:
    """Weights, caps and lanes are set, read back with their types, and used."""
    fleet = busy_fleet()
    controls: GatewayControls = GatewayDoor(fleet, POOL)
    surface = TableSurface(controls, TableDefaults(lane=LanePlace(0, 30.0), most_wait_s=MAX_WAIT_S))
    table = {"weight:e0": 40, "cap:e1": 12, "priority:bulk": 5, "max_wait_s:bulk": 45.0}
    surface.apply(table)
    effective = surface.read()

    assert table == {name: effective[name] for name in table}
    assert type(effective["max_wait_s:bulk"]) is float
    assert fleet.gateway.weight(E0) == 40
    assert [spec.refuse(spec.safe) for spec in surface.specs()] == [None] * 8


def test_room_made_through_the_door_is_used_at_once() -> None:
    """Raising a cap sends on what waited."""
    fleet = busy_fleet()
    door = GatewayDoor(fleet, POOL)
    door.set_cap(E0, 1)
    door.set_cap(E1, 1)
    fleet.run_until(0.5)

    assert fleet.gateway.queued == 6
    door.set_cap(E0, 4)

    assert (fleet.gateway.queued, fleet.gateway.in_flight(E0)) == (3, 4)


def test_a_restart_through_the_door_shows_in_readiness_and_incarnation() -> None:
    """Down until the cold start is over, then another incarnation with the variant asked for."""
    fleet = busy_fleet()
    door = EngineDoor(fleet, E0)
    fleet.run_until(1.0)
    before = door.incarnation
    door.restart({VARIANT: "splitkv"})

    assert (door.ready, door.incarnation) == (False, before)
    fleet.run_until(1.0 + ENGINE_MODEL.cold_start_s)

    assert door.ready
    assert door.incarnation != before
    assert door.read()[VARIANT] == "splitkv"
    assert [spec.safe for spec in door.knobs() if spec.name == VARIANT] == ["graphs"]


def test_samples_carry_raw_counters_and_no_more_than_there_is() -> None:
    """Counters are the engine's own; what it has not (drafts, prefix cache, power, clocks) is None."""
    fleet = busy_fleet()
    probe = Probe(fleet.engines[E0], (0,))
    fleet.run_until(2.0)
    (gpu,), engine = probe.sample(2.0)

    assert engine is not None
    assert (engine.requests_running, engine.requests_waiting) == (4, 0)
    assert engine.generation_tokens_total == fleet.engines[E0].counters.generation_tokens
    assert engine.kv_capacity_tokens == ENGINE_MODEL.kv_blocks * 16
    assert engine.gpus == (gpu.gpu_index,) == (0,)
    assert engine.accepted_tokens_total is None
    assert engine.prefix_hit_tokens_total is None
    assert (gpu.power_w, gpu.temperature_c, gpu.sm_clock_hz) == (None, None, None)


def test_bandwidth_is_measured_between_two_samples() -> None:
    """None at the first; then bytes read over time and peak, at most what a degraded GPU has left."""
    fleet = busy_fleet()
    probe = Probe(fleet.engines[E0], (0,))
    (first,), _ = probe.sample(0.0)
    fleet.run_until(3.0)
    (healthy,), _ = probe.sample(3.0)
    fleet.engines[E0].set_bandwidth_factor(0.4)
    fleet.run_until(3.5)
    probe.sample(3.5)
    fleet.run_until(6.0)
    (degraded,), _ = probe.sample(6.0)

    assert (first.hbm_bandwidth_ratio, first.hbm_bandwidth_source) == (None, BandwidthSource.NONE)
    assert healthy.hbm_bandwidth_source is BandwidthSource.GPM
    assert 0.4 < (healthy.hbm_bandwidth_ratio or 0.0) < 0.8
    assert 0.2 < (degraded.hbm_bandwidth_ratio or 0.0) < 0.32
    assert 0.5 < (healthy.sm_busy_ratio or 0.0) <= 1.0
    assert healthy.hbm_peak_bytes_per_s == degraded.hbm_peak_bytes_per_s


def test_an_idle_gpu_moves_nothing() -> None:
    """Zero is a measurement here, not a missing one."""
    fleet = fleet_of(1, [])
    probe = Probe(fleet.engines[E0], (0,))
    probe.sample(0.0)
    fleet.run_until(1.0)
    (gpu,), engine = probe.sample(1.0)

    assert (gpu.hbm_bandwidth_ratio, gpu.sm_busy_ratio) == (0.0, 0.0)
    assert engine is not None
    assert (engine.requests_running, engine.kv_used_ratio, engine.ttft_count) == (0, 0.0, 0)


def test_a_restart_resets_counters_and_hides_the_engine_meanwhile() -> None:
    """While it relaunches there is a GPU sample only; then counters start again under a new incarnation."""
    fleet = busy_fleet()
    probe = Probe(fleet.engines[E0], (0,))
    fleet.run_until(5.0)
    _, before = probe.sample(5.0)
    fleet.restart(E0, {})
    fleet.run_until(10.0)
    (gpu,), during = probe.sample(10.0)
    fleet.run_until(60.0)
    _, after = probe.sample(60.0)

    assert during is None
    assert (gpu.hbm_bandwidth_ratio, gpu.hbm_used_bytes) == (0.0, None)
    assert before is not None
    assert after is not None
    assert before.incarnation != after.incarnation
    assert (before.steps_total or 0) > (after.steps_total or 0) == 0
