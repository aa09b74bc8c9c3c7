"""The demo's scenario: the same for every fleet, hurt where it should be, and with room to do better."""

from collections.abc import Callable

import pytest

from flyball_core.errors import Rejected
from flyball_core.knobs import TOKEN_BUDGET
from flyball_twin.demo_scenario import BULK, DEMO, ENGINES, REALTIME
from flyball_twin.fleet import Fleet
from flyball_twin.scoring import Score, score


def play(act: Callable[[Fleet, float], None] | None = None) -> Fleet:
    """Run the demo's scenario, looking in every virtual second."""
    fleet = DEMO.build_fleet(DEMO.requests())
    for second in range(1, int(DEMO.end_s) + 1):
        fleet.run_until(float(second))
        if act is not None:
            act(fleet, float(second))

    return fleet


def scores(fleet: Fleet) -> dict[str, Score]:
    """The score of each phase."""
    return {
        phase.name: score(fleet.requests, fleet.outcomes, DEMO.slos, from_s=phase.from_s, to_s=phase.to_s)
        for phase in DEMO.phases
    }


@pytest.fixture(scope="module")
def static() -> Fleet:
    """The scenario with nobody governing."""
    return play()


def test_phases_tile_the_scenario() -> None:
    """Each begins where the last one ends, from the start to the end of arrivals."""
    edges = [phase.from_s for phase in DEMO.phases] + [DEMO.phases[-1].to_s]

    assert edges == [0.0] + [phase.to_s for phase in DEMO.phases]
    assert edges[-1] == DEMO.duration_s == 1056.0
    assert DEMO.faults[0].at_s == DEMO.phases[1].from_s
    assert all(request.arrival_s < DEMO.duration_s for request in DEMO.requests())


def test_the_scenario_repeats_itself_exactly(static: Fleet) -> None:
    """Two runs have the same outcomes and counters, bit for bit."""
    again = play()

    assert static.outcomes == again.outcomes
    assert [e.counters for e in static.engines.values()] == [e.counters for e in again.engines.values()]


def test_the_static_fleet_is_hurt_where_it_should_be(static: Fleet) -> None:
    """Chat is fine on healthy GPUs; a slow GPU and long context both cost realtime attainment; nothing is hopeless."""
    attained = {name: result.lanes[REALTIME] for name, result in scores(static).items()}

    assert attained["chat"] > 0.98
    assert 0.7 < attained["chat, one GPU slow"] < 0.92
    assert 0.3 < attained["long context"] < 0.75
    assert 0.6 < attained["chat again"] < 0.92
    assert all(result.lanes[BULK] > 0.95 for result in scores(static).values())
    assert len(static.outcomes) == len(static.requests)


def test_governing_can_help(static: Fleet) -> None:
    """A smaller token budget and less weight for the slow engine beat the defaults in every phase that is hurt."""

    def tuned(fleet: Fleet, second: float) -> None:
        for engine in fleet.engines.values():
            engine.set_live(TOKEN_BUDGET, 512)
        fleet.gateway.set_weight(ENGINES[1], 40 if second > 285.0 else 100)

    better = scores(play(tuned))
    gains = {name: better[name].lanes[REALTIME] - result.lanes[REALTIME] for name, result in scores(static).items()}

    assert all(gains[phase.name] > 0.08 for phase in DEMO.phases[1:])
    assert gains["chat"] > -0.01


def test_a_cap_far_too_low_hurts() -> None:
    """Governing can also harm: the scenario does not forgive a cap below what the traffic needs."""

    def choked(fleet: Fleet, second: float) -> None:
        del second
        for engine in fleet.engines:
            fleet.gateway.set_cap(engine, 10)

    assert scores(play(choked))["chat again"].lanes[REALTIME] < 0.2


def test_a_shortened_scenario_is_its_beginning() -> None:
    """The same first requests, and only the phases that begin before the end."""
    short = DEMO.shortened(500.0)
    requests = short.requests()

    assert short.duration_s == 500.0
    assert [phase.name for phase in short.phases] == ["chat", "chat, one GPU slow", "long context"]
    assert requests[:5985] == DEMO.requests()[:5985]
    assert all(request.arrival_s < 500.0 for request in requests)
    with pytest.raises(Rejected):
        DEMO.shortened(0.0)
