"""A fleet in virtual time: nothing is lost, nothing is random, and cutting a run changes nothing."""

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import VARIANT
from flyball_twin.engine import Engine
from flyball_twin.fleet import BandwidthFault, Fleet, Outcome
from flyball_twin.gateway import Gateway
from flyball_twin.physics import ENGINE_MODEL, GRAPHS, Roofline
from flyball_twin.workload import Request
from twin_parts import LANES, ask, fleet_of, with_blocks

E0, E1 = EngineId("e0"), EngineId("e1")

REQUESTS = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.integers(1, 3000), st.integers(1, 80), st.sampled_from(["realtime", "bulk"])),
    min_size=1,
    max_size=30,
)


def asked(rows: list[tuple[float, int, int, str]]) -> tuple[Request, ...]:
    """Requests of the rows."""
    return tuple(ask(id_, *row[:3], lane=row[3]) for id_, row in enumerate(rows))


def play(fleet: Fleet, until_s: float, *cuts: float) -> dict[int, Outcome]:
    """Run with stops at the cuts."""
    for cut in (*sorted(cuts), until_s):
        fleet.run_until(cut)

    return dict(sorted(fleet.outcomes.items()))


@settings(max_examples=60, deadline=None)
@given(rows=REQUESTS, cap=st.integers(0, 4), blocks=st.integers(200, 600))
def test_every_request_finishes_exactly_once(rows: list[tuple[float, int, int, str]], cap: int, blocks: int) -> None:
    """Whatever arrives, each request has one outcome, after its arrival and in the right order of times."""
    fleet = fleet_of(2, asked(rows), model=with_blocks(blocks))
    for engine in fleet.engines:
        fleet.gateway.set_cap(engine, cap)
    outcomes = play(fleet, 4000.0)

    assert list(range(len(rows))) == list(outcomes)
    assert all(rows[id_][0] < item.first_token_s <= item.finished_s for id_, item in outcomes.items())
    assert sum(row[2] for row in rows) == sum(e.counters.generation_tokens for e in fleet.engines.values())
    assert [fleet.gateway.in_flight(engine) for engine in fleet.engines] == [0, 0]
    assert [engine.batch.kv.used for engine in fleet.engines.values()] == [0, 0]


@settings(max_examples=40, deadline=None)
@given(rows=REQUESTS, cuts=st.lists(st.floats(0.0, 60.0), max_size=12), cap=st.integers(0, 3))
def test_virtual_time_is_exact_however_a_run_is_cut(
    rows: list[tuple[float, int, int, str]], cuts: list[float], cap: int
) -> None:
    """Stopping at any times gives bit for bit the outcomes and counters of one uncut run."""
    fault = BandwidthFault(at_s=5.0, engine=E1, factor=0.4)
    runs = []
    for stops in ([], cuts):
        fleet = fleet_of(2, asked(rows), faults=[fault])
        fleet.gateway.set_cap(E0, cap)
        fleet.gateway.set_cap(E1, cap)
        outcomes = play(fleet, 300.0, *stops)
        runs.append((outcomes, [engine.counters for engine in fleet.engines.values()]))

    assert runs[0] == runs[1]


def test_a_step_that_ends_after_the_stop_has_not_happened_yet() -> None:
    """Nothing later than the time asked for shows in outcomes or counters."""
    fleet = fleet_of(1, [ask(0, 1.0, prompt=100, output=2)])
    roofline = Roofline(ENGINE_MODEL, GRAPHS, 1.0)
    first_s = 1.0 + roofline.step_s(1, 100, 100, 5050.0)
    last_s = first_s + roofline.step_s(1, 100, 1, 0.0)
    fleet.run_until(first_s - 1e-9)

    assert fleet.engines[E0].counters.steps == 0
    fleet.run_until(first_s)

    assert (fleet.engines[E0].counters.steps, fleet.outcomes) == (1, {})
    fleet.run_until(last_s)

    assert fleet.outcomes[0].finished_s == last_s
    assert fleet.outcomes[0].tpot_s == last_s - first_s
    assert fleet.now_s == last_s


def test_time_does_not_run_backwards() -> None:
    """Asking for the past, or for no time at all, is refused."""
    fleet = fleet_of(1, [])
    fleet.run_until(10.0)
    for past in (9.9, float("nan")):
        with pytest.raises(Rejected, match="past"):
            fleet.run_until(past)


def test_a_slow_gpu_slows_its_engine_and_no_other() -> None:
    """From the fault on, decodes on the struck engine take the roofline's time; afterwards all is as before."""
    faults = [BandwidthFault(at_s=50.0, engine=E1, factor=0.4), BandwidthFault(at_s=100.0, engine=E1, factor=1.0)]
    requests = [ask(id_, 10.0 + 50.0 * (id_ // 2), prompt=16, output=200) for id_ in range(6)]
    outcomes = play(fleet_of(2, requests, faults=faults), 300.0)
    tpots = {(item.engine, item.request.arrival_s): item.tpot_s for item in outcomes.values()}
    slow = Roofline(ENGINE_MODEL, GRAPHS, 0.4).step_s(1, 115, 1, 0.0)

    assert tpots[E0, 10.0] == pytest.approx(tpots[E0, 60.0])
    assert tpots[E1, 10.0] == pytest.approx(tpots[E1, 110.0])
    assert tpots[E1, 60.0] == pytest.approx(slow, rel=1e-3)


def test_a_restart_retries_elsewhere_what_still_ran() -> None:
    """Aborted requests finish on the other engine, as second attempts; the first comes back after its cold start."""
    fleet = fleet_of(2, [ask(id_, 0.0, prompt=200, output=300) for id_ in range(4)])
    fleet.run_until(1.0)
    fleet.restart(E0, {VARIANT: "splitkv"})
    fleet.run_until(39.0)

    assert not fleet.engines[E0].ready
    assert fleet.gateway.in_flight(E0) == 0
    assert sorted(item.attempts for item in fleet.outcomes.values()) == [1, 1, 2, 2]
    assert {item.engine for item in fleet.outcomes.values()} == {E1}
    fleet.run_until(41.0)

    assert fleet.engines[E0].ready
    assert fleet.engines[E0].incarnation == "e0-2"


def test_requests_wait_while_no_engine_is_up() -> None:
    """With the only engine down they queue, and go to its next incarnation when it is there."""
    fleet = fleet_of(1, [ask(0, 0.0, output=50), ask(1, 10.0)])
    fleet.run_until(0.1)
    fleet.restart(E0, {})
    fleet.run_until(40.05)

    assert (fleet.gateway.queued, fleet.outcomes) == (2, {})
    fleet.run_until(45.0)

    assert sorted(fleet.outcomes) == [0, 1]
    assert fleet.outcomes[1].ttft_s > 30.0
    assert fleet.outcomes[0].attempts == 2


def test_room_made_by_a_finish_is_used_at_that_moment() -> None:
    """With a cap of 1, the queued request starts exactly when the one before it ends."""
    fleet = fleet_of(1, [ask(0, 0.0), ask(1, 0.0)])
    fleet.gateway.set_cap(E0, 1)
    outcomes = play(fleet, 10.0)
    prefill_s = Roofline(ENGINE_MODEL, GRAPHS, 1.0).step_s(1, 100, 100, 5050.0)

    assert outcomes[1].first_token_s == outcomes[0].finished_s + prefill_s


def test_room_made_by_a_setting_is_used_when_forwarded() -> None:
    """A raised cap lets the queue go once `forward` is called."""
    fleet = fleet_of(1, [ask(id_, 0.0, output=500) for id_ in range(3)])
    fleet.gateway.set_cap(E0, 1)
    fleet.run_until(1.0)
    fleet.gateway.set_cap(E0, 0)
    fleet.forward()

    assert (fleet.gateway.queued, fleet.gateway.in_flight(E0)) == (0, 3)


def test_what_does_not_fit_a_fleet_is_refused_before_it_runs() -> None:
    """Wrong engines, unknown lanes, faults elsewhere, doubled ids and oversized requests."""
    with pytest.raises(Rejected, match="lane 'agent'"):
        fleet_of(1, [ask(0, lane="agent")])
    with pytest.raises(Rejected, match="does not fit"):
        fleet_of(1, [ask(0, prompt=140_000)])
    with pytest.raises(Rejected, match="no engine"):
        fleet_of(1, [], faults=[BandwidthFault(at_s=1.0, engine=EngineId("e7"), factor=0.5)])
    with pytest.raises(Rejected, match="same id"):
        fleet_of(1, [ask(0), ask(0)])
    with pytest.raises(Rejected, match="not the fleet's"):
        Fleet([Engine(E0, ENGINE_MODEL, "graphs")], Gateway([E0, E1], LANES), [])
