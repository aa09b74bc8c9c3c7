"""Measure the scenarios of the library without control, and write what was found into them and onto their page.

Run as `.venv/bin/python scripts/measure_scenarios.py [NAME...]`; without names it takes all, some minutes. Each is
played ungoverned with its first seed, faults and all: that gives the share of arrivals whose objectives were met. Then
its traffic is asked eight times as fast, faults left out, for 15 minutes at most: what the pool puts out from the third
minute on is what it can do, and its load is what it is asked over that, in output tokens. Sessions that wait for their
answers cannot be asked faster than that, so theirs is a lower bound of what can be done.
"""

import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from flyball_core.errors import Fatal
from flyball_twin.outcomes import Outcome
from flyball_twin.scenario import library
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.estimate import estimate
from flyball_twin.scenario.model import DiurnalSource, MmppSource, Scenario, Source, TraceSource
from flyball_twin.scenario.reading import load_scenario

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "scenarios.md"
FASTER = 8.0
LONGEST_S = 900.0
SETTLED_S = 180.0
SAID = "# Measured without control"
BEGIN, END = "<!-- library: begin -->\n\n", "\n<!-- library: end -->"


def faster(source: Source) -> Source:
    """The same, asked more often."""
    if isinstance(source, TraceSource):
        return replace(source, speed=source.speed * FASTER, repeat=True)
    if isinstance(source, MmppSource):
        return replace(source, rates_rps=tuple(rate * FASTER for rate in source.rates_rps))
    if isinstance(source, DiurnalSource):
        return replace(source, mean_rps=source.mean_rps * FASTER)
    return replace(source, sessions_per_s=source.sessions_per_s * FASTER)


def met(scenario: Scenario) -> float:
    """Share of all arrivals whose lane's objectives were met."""
    slos = {slo.lane: slo for slo in scenario.slos}
    counts: Counter[bool] = Counter()

    def record(outcome: Outcome) -> None:
        counts[slos[outcome.lane].met(outcome if outcome.finished else None)] += 1

    fleet = build_fleet(scenario, scenario.seeds[0], record)
    fleet.run_until(scenario.end_s)
    fleet.close()
    return counts[True] / counts.total()


def loads(scenario: Scenario) -> dict[str, float]:
    """What each pool is asked over what it can do."""
    until_s = min(scenario.duration_s, LONGEST_S)
    put_out: Counter[str] = Counter()

    def record(outcome: Outcome) -> None:
        if outcome.finished and outcome.ended_s >= SETTLED_S:
            put_out[outcome.pool] += outcome.request.output_tokens

    streams = tuple(replace(stream, source=faster(stream.source)) for stream in scenario.streams)
    fleet = build_fleet(replace(scenario, streams=streams, faults=()), scenario.seeds[0], record)
    fleet.run_until(until_s)
    return {
        str(one.pool): one.output_tokens_per_s / (put_out[one.pool] / (until_s - SETTLED_S))
        for one in estimate(scenario)
    }


def measure(name: str) -> None:
    """Measure one, and say it in its comment."""
    scenario = load_scenario(name)
    found = [f"{pool} " * (len(scenario.pools) > 1) + f"{load:.0%}" for pool, load in loads(scenario).items()]
    line = f"{SAID}: load {', '.join(found)}; objectives met {met(scenario):.0%}.\n"
    path = library.find_scenario(name)
    text = re.sub(rf"{SAID}.*\n", "", path.read_text())
    path.write_text(text.replace("version: 1\n", f"{line}version: 1\n", 1))
    print(f"{name}: {line}", end="")


def rows() -> str:
    """The page's table, from what stands in the files."""
    lines = ["| name | what it is | load | objectives met |", "|---|---|---|---|"]
    for name in library.names():
        found = re.search(rf"{SAID}: load (.*); objectives met (.*)\.\n", library.find_scenario(name).read_text())
        if found is None:
            raise Fatal(f"{name} has not been measured")
        lines.append(f"| `{name}` | {load_scenario(name).title} | {found[1]} | {found[2]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for each in sys.argv[1:] or library.names():
        measure(each)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + rows() + END + after, encoding="utf-8")
