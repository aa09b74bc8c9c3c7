"""The library: each scenario is sound, says what it is for, plays from the bundled data, and is found where it lies."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_core.errors import Rejected
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.scenario import library
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.estimate import estimate, notes
from flyball_twin.scenario.model import TraceSource
from flyball_twin.scenario.reading import load_scenario
from flyball_twin.traffic.files import SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
NAMES = library.names()


def test_there_is_one_for_every_kind_of_day() -> None:
    """Stationary and shifting, light, rated and overloaded, and every kind of traffic and trouble."""
    wanted = {
        "agentic",
        "chat-light",
        "chat-overload",
        "chat-rated",
        "code-bursts",
        "degrading",
        "demo",
        "heterogeneous",
        "long-context",
        "mixed-lanes",
        "no-change-day",
        "shifting-day",
    }

    assert wanted <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_sound_and_says_what_it_is_for(name: str) -> None:
    """It opens with a comment, has a title, plays bundled traces alone, and asks of its engines what they can hold."""
    path = library.find_scenario(name)
    scenario = load_scenario(name)
    comment = [line for line in path.read_text().splitlines()[:8] if line.startswith("# ")]
    traces = [stream.source.trace for stream in scenario.streams if isinstance(stream.source, TraceSource)]

    assert len(comment) >= 2
    assert scenario.title not in ("", name)
    assert [] == [trace for trace in traces if trace.endswith(SUFFIXES)]
    assert () == notes(scenario)
    assert all(pool.requests > 0 and pool.too_long == 0 for pool in estimate(scenario))


@pytest.mark.parametrize("name", NAMES)
def test_each_plays(name: str) -> None:
    """Its first minute after the first request goes through its fleet, and every request of it has one outcome."""
    scenario = load_scenario(name)
    outcomes: list[Outcome] = []
    fleet = build_fleet(replace(scenario, faults=()), scenario.seeds[0], outcomes.append)
    fleet.run_until(60.0)
    while not fleet.arrived:
        fleet.run_until(fleet.now_s + 60.0)
    fleet.close()

    assert sorted(outcome.request.id for outcome in outcomes) == list(range(fleet.arrived))
    assert {outcome.status for outcome in outcomes} <= {Status.FINISHED, Status.OPEN}
    assert {str(pool.pool) for pool in scenario.pools} >= {str(outcome.pool) for outcome in outcomes}


def test_the_page_lists_the_library() -> None:
    """Each with its title and what stands in its own comment; otherwise run `scripts/measure_scenarios.py`."""
    page = (ROOT / "docs" / "scenarios.md").read_text()
    for name in NAMES:
        text = library.find_scenario(name).read_text()
        found = re.search(r"# Measured without control: load (.*); objectives met (.*)\.\n", text)
        assert found is not None, name
        assert f"| `{name}` | {load_scenario(name).title} | {found[1]} | {found[2]} |" in page


def test_an_installed_package_has_the_library_too() -> None:
    """The wheel takes the folder where the package looks for it first."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert {"twin/scenarios": "flyball_twin/scenarios"} == wheel["force-include"]
    assert library.folder() in ((ROOT / "twin" / "scenarios"), (ROOT / "twin" / "flyball_twin" / "scenarios"))


def test_a_name_that_is_none_gets_the_nearest(tmp_path: Path) -> None:
    """And a file that is not there is named."""
    with pytest.raises(Rejected, match="did you mean 'chat-rated'"):
        library.find_scenario("chat-rate")
    with pytest.raises(Rejected, match=r"there is no file .*mine\.yaml"):
        library.find_scenario(tmp_path / "mine.yaml")
