"""Faults on a schedule: what breaks, what of it HAProxy makes good, and what is lost."""

import pytest

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import VARIANT
from flyball_twin.engine.engine import Engine
from flyball_twin.fleet.faults import Checks, Fault, FaultKind, FaultSchedule
from flyball_twin.fleet.fleet import RETRIES, Fleet
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.physics import ENGINE_MODEL, GpuCondition
from flyball_twin.traffic.seam import NEVER
from twin_parts import LANES, ask, fleet_of

E0, E1 = EngineId("e0"), EngineId("e1")
COLD_S = ENGINE_MODEL.cold_start_s


def fault(kind: FaultKind, engine: EngineId, from_s: float, to_s: float = NEVER, factor: float = 1.0) -> Fault:
    """A fault of an engine."""
    return Fault(kind=kind, target=engine, from_s=from_s, to_s=to_s, factor=factor)


def play(fleet: Fleet, until_s: float) -> dict[int, Outcome]:
    """Run to the end."""
    fleet.run_until(until_s)

    return dict(sorted(fleet.outcomes.items()))


def decode_s(condition: GpuCondition) -> float:
    """A lone decode step at 115 tokens of context."""
    return ENGINE_MODEL.cost("graphs", condition).step_s(1, 115)


@pytest.mark.parametrize(
    ("kind", "condition"),
    [(FaultKind.BANDWIDTH, GpuCondition(bandwidth=0.4)), (FaultKind.THROTTLE, GpuCondition(clock=0.4))],
)
def test_a_weak_gpu_slows_its_engine_and_no_other(kind: FaultKind, condition: GpuCondition) -> None:
    """Within the fault decodes on the struck engine take what such a GPU takes; before and after all is as ever."""
    requests = [ask(id_, 10.0 + 50.0 * (id_ // 2), prompt=16, output=200) for id_ in range(6)]
    outcomes = play(fleet_of(2, requests, faults=[fault(kind, E1, 50.0, 100.0, 0.4)]), 300.0)
    tpots = {(item.engine, item.request.arrival_s): item.tpot_s for item in outcomes.values()}

    assert tpots[E0, 10.0] == pytest.approx(tpots[E0, 60.0])
    assert tpots[E1, 10.0] == pytest.approx(tpots[E1, 110.0])
    assert tpots[E1, 60.0] == pytest.approx(decode_s(condition), rel=3e-3)


@pytest.mark.parametrize("kind", [FaultKind.BANDWIDTH, FaultKind.THROTTLE])
def test_a_gpu_that_weakens_within_a_long_answer_slows_the_rest_of_it(kind: FaultKind) -> None:
    """From the step after, whether anybody looked at the fleet before or not; what came until then is as it was."""
    weak = fault(kind, E0, 4.0, factor=0.5)
    healthy = play(fleet_of(1, [ask(0, 0.0, output=900)]), 100.0)[0]
    uncut = play(fleet_of(1, [ask(0, 0.0, output=900)], faults=[weak]), 100.0)[0]
    looked_at = fleet_of(1, [ask(0, 0.0, output=900)], faults=[weak])
    for at_s in (1.0, 3.9, 4.0, 4.1):
        looked_at.run_until(at_s)
    as_weak = decode_s(GpuCondition(bandwidth=0.5) if kind is FaultKind.BANDWIDTH else GpuCondition(clock=0.5))
    slower = as_weak / decode_s(GpuCondition())

    assert play(looked_at, 100.0)[0] == uncut
    assert uncut.first_token_s == healthy.first_token_s
    assert uncut.finished_s - 4.0 == pytest.approx((healthy.finished_s - 4.0) * slower, rel=0.03)


def test_faults_that_overlap_add_up() -> None:
    """Shares multiply while both last; an engine is dead or stalled while either says so."""
    schedule = FaultSchedule(
        [
            fault(FaultKind.BANDWIDTH, E0, 0.0, 20.0, 0.5),
            fault(FaultKind.BANDWIDTH, E0, 10.0, 30.0, 0.4),
            fault(FaultKind.THROTTLE, E0, 10.0, 30.0, 0.9),
            fault(FaultKind.STALLED, E0, 10.0, 20.0),
            fault(FaultKind.STALLED, E0, 15.0, 40.0),
            fault(FaultKind.DEAD, E1, 5.0),
            fault(FaultKind.TELEMETRY_LOSS, EngineId("node-0"), 5.0),
        ],
        [E0, E1],
    )

    assert schedule.ailment(E0, 5.0).condition == GpuCondition(bandwidth=0.5)
    assert schedule.ailment(E0, 15.0).condition == GpuCondition(bandwidth=0.2, clock=0.9)
    assert schedule.ailment(E0, 30.0).condition == GpuCondition()
    assert [schedule.ailment(E0, at_s).stalled for at_s in (9.0, 10.0, 39.0, 40.0)] == [False, True, True, False]
    assert schedule.stalled_until_s(E0, 10.0) == 40.0
    assert schedule.ailment(E1, 1e9).dead
    assert [edge for edge in schedule.edges() if edge[1] == E1] == [(5.0, E1)]
    assert len(schedule.faults) == 7


def test_a_dead_engine_loses_the_answers_that_had_begun_and_no_others() -> None:
    """What had no token yet is served elsewhere as a second attempt; for what had, the stream is broken."""
    begun = [ask(id_, 0.0, output=900) for id_ in range(4)]
    fresh = [ask(4, 4.999, prompt=4000), ask(5, 4.999, prompt=4000)]
    fleet = fleet_of(2, [*begun, *fresh], faults=[fault(FaultKind.DEAD, E0, 5.0)])
    outcomes = play(fleet, 200.0)

    assert [outcomes[id_].status for id_ in range(4)].count(Status.LOST) == 2
    lost = [item for item in outcomes.values() if item.status is Status.LOST]
    assert {(item.engine, item.ended_s, item.reason) for item in lost} == {(E0, 5.0, "e0 went down within the answer")}
    assert all(item.first_token_s < 5.0 and item.e2e_s == NEVER for item in lost)
    assert {(outcomes[id_].status, outcomes[id_].engine) for id_ in (4, 5)} == {(Status.FINISHED, E1)}
    assert sorted(outcomes[id_].attempts for id_ in (4, 5)) == [1, 2]
    assert not fleet.engines[E0].ready


def test_a_dead_engine_gets_nothing_until_it_has_started_cold() -> None:
    """From the end of the fault on it takes its cold start, then it serves as a new incarnation."""
    requests = [ask(id_, float(id_)) for id_ in range(120)]
    fleet = fleet_of(2, requests, faults=[fault(FaultKind.DEAD, E0, 10.5, 20.0)])
    outcomes = play(fleet, 200.0)
    served = [item.request.arrival_s for item in outcomes.values() if item.engine == E0]

    assert not [at_s for at_s in served if 10.5 <= at_s < 20.0 + COLD_S]
    assert [at_s for at_s in served if at_s >= 20.0 + COLD_S]
    assert fleet.engines[E0].incarnation == "e0-2"


def test_an_engine_that_is_dead_from_the_start_joins_later() -> None:
    """That is how a fleet grows: it comes up cold at the end of the fault, and loses nothing before."""
    requests = [ask(id_, float(id_)) for id_ in range(100)]
    fleet = fleet_of(2, requests, faults=[fault(FaultKind.DEAD, E1, 0.0, 30.0)])

    assert not fleet.engines[E1].ready
    assert not fleet.gateway.is_up(E1)
    fleet.run_until(30.0 + COLD_S - 0.1)

    assert {item.engine for item in fleet.outcomes.values()} == {E0}
    outcomes = play(fleet, 200.0)

    assert {item.engine for item in outcomes.values()} == {E0, E1}
    assert {item.status for item in outcomes.values()} == {Status.FINISHED}


def test_at_equal_times_an_engine_is_struck_before_a_request_arrives() -> None:
    """So the request goes elsewhere at once, as a first attempt; and an engine that is up again takes it at once."""
    fleet = fleet_of(2, [ask(0, 5.0)], faults=[fault(FaultKind.DEAD, E0, 5.0)])
    outcomes = play(fleet, 60.0)

    assert (outcomes[0].engine, outcomes[0].attempts) == (E1, 1)
    back_s = 1.0 + COLD_S
    outcomes = play(fleet_of(1, [ask(0, back_s)], faults=[fault(FaultKind.DEAD, E0, 0.0, 1.0)]), 60.0)

    assert outcomes[0].first_token_s - back_s < 0.1


def test_a_request_is_sent_again_only_so_often() -> None:
    """One whose engines die under it again and again, before its first token, is lost after its last retry."""
    faults = [fault(FaultKind.DEAD, E0, 1.0 + at * (COLD_S + 1.0), 1.001 + at * (COLD_S + 1.0)) for at in range(9)]
    fleet = fleet_of(1, [ask(0, 0.9, prompt=100_000)], faults=faults)
    outcomes = play(fleet, 1000.0)

    assert (outcomes[0].status, outcomes[0].attempts) == (Status.LOST, 1 + RETRIES)
    assert outcomes[0].reason == "e0 went down once too often"
    assert outcomes[0].first_token_s == NEVER


def test_a_request_on_its_path_to_an_engine_that_dies_had_not_begun() -> None:
    """It goes elsewhere at once, on a path of its own, and nothing of it comes to the engine once that is up again."""
    path_s = ENGINE_MODEL.path_s(100)
    struck_s = 1.0 + 0.5 * path_s
    fleet = fleet_of(2, [ask(0, 1.0), ask(1, 1.0)], faults=[fault(FaultKind.DEAD, E0, struck_s, struck_s + 1.0)])
    outcomes = play(fleet, 100.0)

    assert [(item.engine, item.attempts, item.status) for item in outcomes.values()] == [
        (E1, 2, Status.FINISHED),
        (E1, 1, Status.FINISHED),
    ]
    assert outcomes[0].first_token_s > struck_s + path_s
    assert (fleet.gateway.in_flight(E0), fleet.gateway.in_flight(E1), fleet.engines[E0].counters.steps) == (0, 0, 0)
    assert fleet.engines[E0].ready


def test_a_request_whose_path_is_cut_again_and_again_is_lost() -> None:
    """Retries on the path count as any others."""
    apart_s = COLD_S + 0.5 * ENGINE_MODEL.path_s(100)
    faults = [fault(FaultKind.DEAD, E0, 1.0 + at * apart_s, 1.0001 + at * apart_s) for at in range(9)]
    outcomes = play(fleet_of(1, [ask(0, 0.999)], faults=faults), 1000.0)

    assert (outcomes[0].status, outcomes[0].attempts) == (Status.LOST, 1 + RETRIES)
    assert (outcomes[0].engine, outcomes[0].reason) == (E0, "e0 went down once too often")


def test_attempts_are_those_of_one_request_alone() -> None:
    """An id that comes again, once its first bearer has ended, starts anew."""
    requests = [ask(0, 0.0, prompt=60_000), ask(0, 90.0)]
    told: list[Outcome] = []
    engine = Engine(E0, ENGINE_MODEL, "graphs")
    faults = [fault(FaultKind.DEAD, E0, 0.5, 1.0)]
    Fleet.single([engine], Gateway([E0], LANES), requests, faults, record=told.append).run_until(100.0)

    assert [outcome.attempts for outcome in told] == [2, 1]


def test_a_stalled_engine_is_found_out_by_its_checks() -> None:
    """Until three checks have failed it takes requests and keeps them; then it gets none until two have passed."""
    requests = [ask(id_, 0.25 * id_) for id_ in range(120)]
    fleet = fleet_of(2, requests, faults=[fault(FaultKind.STALLED, E0, 5.0, 15.0)])
    fleet.run_until(5.0 + Checks().down_after_s)
    held = fleet.gateway.in_flight(E0)
    fleet.run_until(14.9)

    assert held > 0
    assert fleet.gateway.in_flight(E0) == held
    assert not [item for item in fleet.outcomes.values() if item.engine == E0 and item.finished_s > 5.0]
    fleet.run_until(18.99)

    assert fleet.gateway.in_flight(E0) == 0
    assert not fleet.gateway.is_up(E0)
    fleet.run_until(19.0)

    assert fleet.gateway.is_up(E0)
    outcomes = play(fleet, 100.0)
    served = [item.request.arrival_s for item in outcomes.values() if item.engine == E0]

    assert not [at_s for at_s in served if 5.0 + Checks().down_after_s < at_s < 15.0 + Checks().up_after_s]
    assert [at_s for at_s in served if at_s >= 15.0 + Checks().up_after_s]
    assert {item.status for item in outcomes.values()} == {Status.FINISHED}


def test_a_stall_holds_what_ran_by_just_its_length() -> None:
    """The request that it strikes ends ten seconds later than it would have, and gets no token between."""
    plain = play(fleet_of(1, [ask(0, 0.0, output=500)]), 100.0)[0]
    held = play(fleet_of(1, [ask(0, 0.0, output=500)], faults=[fault(FaultKind.STALLED, E0, 2.0, 12.0)]), 100.0)[0]

    assert held.first_token_s == plain.first_token_s
    assert held.finished_s == pytest.approx(plain.finished_s + 10.0)


def test_a_stall_shorter_than_the_checks_is_never_noticed() -> None:
    """Nor are two short ones, the second of which is under way when the first would have been found out."""
    faults = [fault(FaultKind.STALLED, E0, 5.0, 9.0), fault(FaultKind.STALLED, E0, 10.0, 14.0)]
    fleet = fleet_of(1, [ask(0, 20.0)], faults=faults)
    for at_s in range(20):
        fleet.run_until(float(at_s))

        assert fleet.gateway.is_up(E0)


def test_a_dead_engine_is_not_taken_for_up_when_its_stall_is_over() -> None:
    """Its checks cannot pass: it gets nothing, although the fault that stalled it has ended."""
    faults = [fault(FaultKind.STALLED, E0, 1.0, 10.0), fault(FaultKind.DEAD, E0, 8.0, 30.0)]
    fleet = fleet_of(2, [ask(id_, float(id_)) for id_ in range(60)], faults=faults)
    fleet.run_until(10.0 + Checks().up_after_s + 1.0)

    assert not fleet.gateway.is_up(E0)
    outcomes = play(fleet, 200.0)

    assert not [item for item in outcomes.values() if item.engine == E0 and 8.0 <= item.request.arrival_s < 60.0]


def test_an_engine_that_comes_up_stalled_stays_down() -> None:
    """A relaunch that is through within a stall changes nothing until the stall is over and its checks pass."""
    faults = [fault(FaultKind.DEAD, E0, 1.0, 2.0), fault(FaultKind.STALLED, E0, 10.0, 100.0)]
    fleet = fleet_of(1, [ask(0, 50.0)], faults=faults)
    fleet.run_until(2.0 + COLD_S + 1.0)

    assert fleet.engines[E0].ready
    assert not fleet.gateway.is_up(E0)
    outcomes = play(fleet, 200.0)

    assert outcomes[0].first_token_s > 100.0 + Checks().up_after_s


def test_a_restart_loses_what_had_begun_and_retries_the_rest() -> None:
    """As when an engine dies; it comes back after its cold start with what was asked for."""
    fleet = fleet_of(2, [ask(id_, 0.0, prompt=200, output=300) for id_ in range(4)])
    fleet.run_until(1.0)
    fleet.restart(E0, {VARIANT: "splitkv"})
    fleet.run_until(39.0)

    assert not fleet.engines[E0].ready
    assert fleet.gateway.in_flight(E0) == 0
    assert sorted((item.status, item.engine) for item in fleet.outcomes.values()) == [
        (Status.FINISHED, E1),
        (Status.FINISHED, E1),
        (Status.LOST, E0),
        (Status.LOST, E0),
    ]
    fleet.run_until(41.0)

    assert fleet.engines[E0].ready
    assert (fleet.engines[E0].incarnation, fleet.engines[E0].variant) == ("e0-2", "splitkv")


def test_requests_wait_while_no_engine_is_up() -> None:
    """With the only engine down they queue, and go to its next incarnation when it is there."""
    fleet = fleet_of(1, [ask(0, 0.0, prompt=30_000, output=50), ask(1, 10.0)])
    fleet.run_until(0.1)
    fleet.restart(E0, {})
    fleet.run_until(40.05)

    assert (fleet.gateway.queued, fleet.outcomes) == (2, {})
    outcomes = play(fleet, 60.0)

    assert [outcomes[id_].attempts for id_ in range(2)] == [2, 1]
    assert outcomes[1].ttft_s > 30.0


def test_a_restart_that_an_engine_refuses_changes_nothing() -> None:
    """A wrong value, or an engine that is down already, costs no request."""
    fleet = fleet_of(1, [ask(0, 0.0, output=300)])
    fleet.run_until(1.0)
    with pytest.raises(Rejected, match="variant"):
        fleet.restart(E0, {VARIANT: "magic"})

    assert fleet.gateway.is_up(E0)
    assert fleet.gateway.in_flight(E0) == 1
    fleet.restart(E0, {})
    with pytest.raises(Rejected, match="already"):
        fleet.restart(E0, {})


def test_a_death_within_a_relaunch_ends_it() -> None:
    """The engine is not up when the relaunch would have been through, but a cold start after the fault."""
    fleet = fleet_of(1, [], faults=[fault(FaultKind.DEAD, E0, 30.0, 60.0)])
    fleet.run_until(1.0)
    fleet.restart(E0, {})
    fleet.run_until(1.0 + COLD_S + 5.0)

    assert not fleet.engines[E0].ready
    fleet.run_until(60.0 + COLD_S)

    assert fleet.engines[E0].ready
    assert fleet.gateway.is_up(E0)


def test_a_fault_that_makes_no_sense_is_refused() -> None:
    """One that strikes nothing, runs backwards or leaves no share."""
    for wrong, says in (
        (fault(FaultKind.DEAD, EngineId("e7"), 1.0), "no engine"),
        (fault(FaultKind.DEAD, E0, 5.0, 5.0), "runs forward"),
        (fault(FaultKind.DEAD, E0, float("nan")), "runs forward"),
        (fault(FaultKind.BANDWIDTH, E0, 1.0, 2.0, 0.0), "share"),
    ):
        with pytest.raises(Rejected, match=says):
            fleet_of(1, [], faults=[wrong])
