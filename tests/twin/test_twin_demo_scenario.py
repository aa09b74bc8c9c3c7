"""The demo's scenario: the same for every fleet, hurt where it should be, and with room to do better."""

from collections.abc import Callable

import pytest

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.knobs import TOKEN_BUDGET
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.scoring import Score
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.physics import VARIANTS
from flyball_twin.scenario.building import build_fleet, build_traffic
from flyball_twin.scenario.model import Scenario
from flyball_twin.scenario.reading import load_scenario
from flyball_twin.scenario.shortening import shortened
from flyball_twin.workload import Request

DEMO = load_scenario("demo")
REALTIME, BULK = "realtime", "bulk"
SLOW = EngineId("engine-1")


def requests(scenario: Scenario = DEMO) -> list[Request]:
    """All that is asked."""
    traffic, found = build_traffic(scenario, 1), []
    while traffic.next_s() < scenario.end_s:
        found.append(traffic.take())
    return found


def play(act: Callable[[Fleet, float], None] | None = None) -> tuple[Fleet, Scorecard]:
    """Run the demo's scenario bare, looking in every virtual second."""
    card = Scorecard(DEMO)
    fleet = build_fleet(DEMO, 1, card.record)
    for second in range(1, int(DEMO.end_s) + 1):
        fleet.run_until(float(second))
        if act is not None:
            act(fleet, float(second))
    fleet.close()
    return fleet, card


def phases(card: Scorecard) -> dict[str, Score]:
    """The score of each phase."""
    return {phase.name: card.tally.score(phase=phase.name) for phase in DEMO.phases}


@pytest.fixture(scope="module")
def static() -> tuple[Fleet, Scorecard]:
    """The scenario with nobody governing."""
    return play()


def test_phases_tile_the_scenario() -> None:
    """Each begins where the last one ends, from the start to the end of arrivals; the fault begins with its phase."""
    edges = [phase.from_s for phase in DEMO.phases] + [DEMO.phases[-1].to_s]

    assert edges == [0.0] + [phase.to_s for phase in DEMO.phases]
    assert edges[-1] == DEMO.duration_s == 1056.0
    assert DEMO.faults[0].from_s == DEMO.phases[1].from_s
    assert all(request.arrival_s < DEMO.duration_s for request in requests())


def test_engines_start_as_vllm_would() -> None:
    """Nothing is tuned to look bad: caps and budgets are vLLM's defaults, and what is assumed of a variant says so."""
    [pool] = DEMO.pools

    assert {(256, 8192)} == {(engine.max_active_requests, engine.max_batched_tokens) for engine in pool.engines}
    assert {"vllm"} == {engine.backend for engine in pool.engines}
    assert all(VARIANTS[engine.variant].assumed for engine in pool.engines)


def test_the_scenario_repeats_itself_exactly(static: tuple[Fleet, Scorecard]) -> None:
    """Two runs have the same scores and counters, bit for bit."""
    fleet, card = play()

    assert static[1].tally.score() == card.tally.score()
    assert [e.counters for e in static[0].engines.values()] == [e.counters for e in fleet.engines.values()]


def test_the_static_fleet_is_hurt_where_it_should_be(static: tuple[Fleet, Scorecard]) -> None:
    """Chat is fine on healthy GPUs; a slow GPU and long context both cost realtime attainment; nothing is hopeless."""
    attained = {name: result.lanes[REALTIME] for name, result in phases(static[1]).items()}

    assert attained["chat"] > 0.98
    assert 0.7 < attained["chat, one GPU slow"] < 0.95
    assert 0.3 < attained["long context"] < 0.85
    assert 0.6 < attained["chat again"] < 0.95
    assert all(result.lanes[BULK] > 0.95 for result in phases(static[1]).values())
    assert static[1].tally.score().finished == static[1].tally.score().arrivals == len(requests())


def test_governing_can_help(static: tuple[Fleet, Scorecard]) -> None:
    """A smaller token budget and less weight for the slow engine beat the defaults wherever a GPU is slow."""

    def tuned(fleet: Fleet, second: float) -> None:
        for engine in fleet.engines.values():
            engine.set_live(TOKEN_BUDGET, 512)
        fleet.gateway.set_weight(SLOW, 40 if second > 285.0 else 100)

    before, better = phases(static[1]), phases(play(tuned)[1])
    gains = {name: better[name].lanes[REALTIME] - result.lanes[REALTIME] for name, result in before.items()}

    assert gains["chat, one GPU slow"] > 0.05
    assert gains["chat again"] > 0.05
    assert gains["chat"] > -0.01


def test_a_cap_far_too_low_hurts() -> None:
    """Governing can also harm: the scenario does not forgive a cap below what the traffic needs."""

    def choked(fleet: Fleet, second: float) -> None:
        del second
        for engine in fleet.engines:
            fleet.gateway.set_cap(engine, 10)

    assert phases(play(choked)[1])["chat again"].lanes[REALTIME] < 0.2


def test_a_shortened_scenario_is_its_beginning() -> None:
    """The same first requests, and only the phases and faults that begin before the end."""
    short = shortened(DEMO, 500.0)
    asked = requests(short)

    assert short.duration_s == 500.0
    assert [phase.name for phase in short.phases] == ["chat", "chat, one GPU slow", "long context"]
    assert asked == [request for request in requests() if request.arrival_s < 500.0]
    assert not shortened(DEMO, 100.0).faults
    assert shortened(DEMO, 5000.0) is DEMO
    with pytest.raises(Rejected, match="nothing can be played"):
        shortened(DEMO, 0.0)
