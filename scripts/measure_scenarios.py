"""Measure the scenarios of the library without control, and write what was found into them and onto their page.

Run as `.venv/bin/python scripts/measure_scenarios.py [NAME...]`; without names it takes all, some minutes. Each is
played ungoverned with its first seed, faults and all: that gives the share of arrivals whose objectives were met. Then
its traffic is asked eight times as fast, faults left out, for 15 minutes at most: what a pool puts out after the first
fifth of that is what it can do, and its load is what it is asked over that, in output tokens. Where streams follow each
other, each stretch between their beginnings and ends is measured by itself. Sessions wait for their answers, so that
what a pool of sessions can do is at least what was found.
"""

import re
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from flyball_core.errors import Fatal
from flyball_twin.fleet.outcomes import Outcome
from flyball_twin.scenario import library
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.estimate import estimate
from flyball_twin.scenario.model import DiurnalSource, MmppSource, Scenario, Source, TraceSource
from flyball_twin.scenario.reading import load_scenario

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "scenarios.md"
FASTER = 8.0
LONGEST_S = 900.0
SETTLED = 0.2
SAID = "# Measured without control"
MARKED = re.compile(r"(<!-- library: begin -->\n\n).*?(<!-- library: end -->\n)", re.DOTALL)


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


def windows(scenario: Scenario) -> list[Scenario]:
    """The scenario between any two times at which a stream begins or ends, each from its own zero, without faults."""
    times = sorted({at_s for stream in scenario.streams for at_s in (stream.from_s, stream.to_s)})
    found: list[Scenario] = []
    for from_s, to_s in pairwise(times):
        playing = [stream for stream in scenario.streams if stream.from_s <= from_s and to_s <= stream.to_s]
        duration_s = min(to_s - from_s, LONGEST_S)
        streams = tuple(replace(stream, from_s=0.0, to_s=duration_s) for stream in playing)
        if streams:
            found.append(replace(scenario, streams=streams, duration_s=duration_s, faults=(), phases=()))
    return found


def loads(scenario: Scenario) -> dict[str, float]:
    """What each pool is asked over what it can do."""
    put_out: Counter[str] = Counter()
    settled_s = scenario.duration_s * SETTLED

    def record(outcome: Outcome) -> None:
        if outcome.finished and outcome.ended_s >= settled_s:
            put_out[outcome.pool] += outcome.request.output_tokens

    streams = tuple(replace(stream, source=faster(stream.source)) for stream in scenario.streams)
    fleet = build_fleet(replace(scenario, streams=streams), scenario.seeds[0], record)
    fleet.run_until(scenario.duration_s)
    return {
        str(one.pool): one.output_tokens_per_s / (put_out[one.pool] / (scenario.duration_s - settled_s))
        for one in estimate(scenario)
        if put_out[one.pool]
    }


def load_words(scenario: Scenario) -> str:
    """The loads of its pools, from the least to the greatest of its windows."""
    found: dict[str, list[float]] = {}
    for window in windows(scenario):
        for pool, load in loads(window).items():
            found.setdefault(pool, []).append(load)
    words: list[str] = []
    for pool, of_pool in found.items():
        least, most = f"{min(of_pool):.0%}", f"{max(of_pool):.0%}"
        words.append(f"{pool} " * (len(found) > 1) + (least if least == most else f"{least} to {most}"))
    return ", ".join(words)


def measure(name: str) -> None:
    """Measure one, and say it in its comment."""
    scenario = load_scenario(name)
    line = f"{SAID}: load {load_words(scenario)}; objectives met {met(scenario):.0%}.\n"
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
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARKED.sub(lambda found: f"{found[1]}{rows()}\n{found[2]}", page), encoding="utf-8")
