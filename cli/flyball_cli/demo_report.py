"""What a demo comes to: one documented JSON document, and the same as a table.

The document's shape is described in docs/commands.md; keys are only ever added.
"""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from flyball_cli.twin_playing import Played
from flyball_cli.twin_words import print_doings, seconds
from flyball_twin.fleet.scoring import Score
from flyball_twin.governed.life import UNGOVERNED
from flyball_twin.governed.observing import Observed
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.scenario.model import Scenario

SCHEMA = "flyball.demo/1"


def document(played: Played) -> dict[str, Any]:
    """The JSON document."""
    scenario, observed = played.scenario, played.observed
    return {
        "schema": SCHEMA,
        "scenario": {
            "seed": played.seed,
            "duration_s": scenario.duration_s,
            "engines": sum(len(pool.engines) for pool in scenario.pools),
            "objectives": [asdict(slo) for slo in scenario.slos],
        },
        "fleets": {name: _fleet(scenario, card) for name, card in played.cards.items()},
        "assumed": {kind: list(said) for kind, said in played.assumed.items()},
        "regime_shifts": shifts_document(observed),
        "changes": [asdict(change) for change in observed.changes],
        "stopped": observed.stopped,
        "frames": None if played.frames is None else asdict(played.frames),
        "log": played.log,
        "picture": played.picture,
        "wall_s": round(played.wall_s, 3),
    }


def shifts_document(observed: Observed) -> list[dict[str, Any]]:
    """The regime shifts, in their order."""
    return [
        {"pool": s.pool, "at_s": s.at_s, "from": s.before, "to": s.after, "confidence": s.confidence}
        for s in observed.shifts
    ]


def _fleet(scenario: Scenario, card: Scorecard) -> dict[str, Any]:
    score = card.tally.score()
    phases = {phase.name: card.tally.score(phase=phase.name) for phase in scenario.phases}
    return {
        "arrivals": score.arrivals,
        "finished": score.finished,
        "attained": score.attained,
        "slo_goodput_rps": score.slo_goodput_rps,
        "attainment": dict(score.lanes),
        "attainment_all": score.attainment,
        **_latency(score),
        "lanes": {
            name: {"arrivals": lane.arrivals, "attainment": lane.attainment, **_latency(lane)}
            for name, lane in _lanes(scenario, card).items()
        },
        "phases": {
            name: {"attainment": dict(phase.lanes), "slo_goodput_rps": phase.slo_goodput_rps}
            for name, phase in phases.items()
        },
    }


def _lanes(scenario: Scenario, card: Scorecard) -> dict[str, Score]:
    return {slo.lane: card.tally.score(lane=slo.lane) for slo in scenario.slos}


def _latency(score: Score) -> dict[str, float | None]:
    """Percentiles in seconds over finished requests."""
    return {
        "ttft_p50_s": score.ttft_p50_s,
        "ttft_p99_s": score.ttft_p99_s,
        "tpot_p50_s": score.tpot_p50_s,
        "tpot_p99_s": score.tpot_p99_s,
    }


def print_tables(console: Console, played: Played) -> None:
    """The result for a reader: one table of figures, one of phases, and a line on what was done."""
    scores = [card.tally.score() for card in played.cards.values()]
    table = Table(title="The same requests, two fleets", title_justify="left", title_style="bold")
    table.add_column("")
    for name in played.cards:
        table.add_column("static: vLLM's defaults" if name == UNGOVERNED else name, justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("requests/s within objective", [f"{score.slo_goodput_rps:.2f}" for score in scores])
    ]
    for slo in played.scenario.slos:
        lane = slo.lane
        lanes = [card.tally.score(lane=lane) for card in played.cards.values()]
        rows.append((f"{lane}: within objective", [f"{score.attainment:.1%}" for score in lanes]))
        rows.append((f"{lane}: TTFT p50", [seconds(score.ttft_p50_s) for score in lanes]))
        rows.append((f"{lane}: TTFT p99", [seconds(score.ttft_p99_s) for score in lanes]))
        rows.append((f"{lane}: TPOT p50", [seconds(score.tpot_p50_s) for score in lanes]))
        rows.append((f"{lane}: TPOT p99", [seconds(score.tpot_p99_s) for score in lanes]))
    rows.append(("requests, all counted", [f"{score.arrivals:,}" for score in scores]))
    for label, cells in rows:
        table.add_row(label, *cells)
    console.print(table)
    console.print(_phases(played))
    print_doings(console, played)


def _phases(played: Played) -> Table:
    table = Table(title="Attainment of all lanes, by phase", title_justify="left")
    table.add_column("phase")
    for name in played.cards:
        table.add_column(name, justify="right")
    for phase in played.scenario.phases:
        cells = [f"{card.tally.score(phase=phase.name).attainment:.1%}" for card in played.cards.values()]
        table.add_row(f"{phase.name} ({phase.from_s:.0f} to {phase.to_s:.0f} s)", *cells)
    return table
