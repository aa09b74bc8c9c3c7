"""What a demo comes to: one documented JSON document, and the same as a table.

The document's shape is described in docs/commands.md; keys are only ever added.
"""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from flyball_twin.demo_scenario import Scenario
from flyball_twin.life import Frames
from flyball_twin.observing import Observed
from flyball_twin.scoring import Minute, Score

SCHEMA = "flyball.demo/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """One fleet's score over all arrivals, by lane, by phase, and by minute."""

    score: Score
    lanes: dict[str, Score]
    phases: dict[str, Score]
    timeline: tuple[Minute, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """A finished demo."""

    scenario: Scenario
    fleets: dict[str, FleetResult]
    observed: Observed
    governed: str
    """The pool that was governed."""
    frames: Frames
    log: str
    picture: str | None
    wall_s: float


def document(result: DemoResult) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": SCHEMA,
        "scenario": {
            "seed": result.scenario.seed,
            "duration_s": result.scenario.duration_s,
            "engines": len(result.scenario.variants),
            "objectives": [asdict(slo) for slo in result.scenario.slos],
        },
        "fleets": {name: _fleet(fleet) for name, fleet in result.fleets.items()},
        "regime_shifts": [
            {"pool": s.pool, "at_s": s.at_s, "from": s.before, "to": s.after, "confidence": s.confidence}
            for s in result.observed.shifts
        ],
        "changes": [asdict(change) for change in result.observed.changes],
        "stopped": result.observed.stopped,
        "frames": asdict(result.frames),
        "log": result.log,
        "picture": result.picture,
        "wall_s": round(result.wall_s, 3),
    }


def _fleet(fleet: FleetResult) -> dict[str, Any]:
    score = fleet.score
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
            for name, lane in fleet.lanes.items()
        },
        "phases": {
            name: {"attainment": dict(phase.lanes), "slo_goodput_rps": phase.slo_goodput_rps}
            for name, phase in fleet.phases.items()
        },
    }


def _latency(score: Score) -> dict[str, float | None]:
    """Percentiles in seconds over finished requests."""
    return {
        "ttft_p50_s": score.ttft_p50_s,
        "ttft_p99_s": score.ttft_p99_s,
        "tpot_p50_s": score.tpot_p50_s,
        "tpot_p99_s": score.tpot_p99_s,
    }


def print_tables(console: Console, result: DemoResult) -> None:
    """The result for a reader: one table of figures, one of phases, and a line on what was done."""
    names = list(result.fleets)
    table = Table(title="The same requests, two fleets", title_justify="left", title_style="bold")
    table.add_column("")
    for name in names:
        table.add_column("static: vLLM's defaults" if name == "static" else name, justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("requests/s within objective", [f"{f.score.slo_goodput_rps:.2f}" for f in result.fleets.values()])
    ]
    for lane in [slo.lane for slo in result.scenario.slos]:
        lanes = [fleet.lanes[lane] for fleet in result.fleets.values()]
        rows.append((f"{lane}: within objective", [f"{score.attainment:.1%}" for score in lanes]))
        for label, field in (
            ("TTFT p50", "ttft_p50_s"),
            ("TTFT p99", "ttft_p99_s"),
            ("TPOT p50", "tpot_p50_s"),
            ("TPOT p99", "tpot_p99_s"),
        ):
            rows.append((f"{lane}: {label}", [_seconds(getattr(score, field)) for score in lanes]))
    rows.append(("requests, all counted", [f"{f.score.arrivals:,}" for f in result.fleets.values()]))
    for label, cells in rows:
        table.add_row(label, *cells)
    console.print(table)
    console.print(_phases(result))
    _print_doings(console, result)


def _phases(result: DemoResult) -> Table:
    table = Table(title="Attainment of all lanes, by phase", title_justify="left")
    table.add_column("phase")
    for name in result.fleets:
        table.add_column(name, justify="right")
    for phase in result.scenario.phases:
        cells = [f"{fleet.phases[phase.name].attainment:.1%}" for fleet in result.fleets.values()]
        table.add_row(f"{phase.name} ({phase.from_s:.0f} to {phase.to_s:.0f} s)", *cells)
    return table


def _print_doings(console: Console, result: DemoResult) -> None:
    observed, frames = result.observed, result.frames
    counts: dict[str, int] = {}
    for change in observed.changes:
        counts[change.knob] = counts.get(change.knob, 0) + 1
    done = ", ".join(f"{number} of {knob}" for knob, number in sorted(counts.items())) or "none"
    shifts = [s for s in observed.shifts if s.pool == result.governed]
    console.print(f"Changes: {done}; {observed.stopped} proposals stopped by the guard.")
    console.print("Regimes: " + ", ".join(f"{s.after} at {s.at_s:.0f} s" for s in shifts))
    console.print(
        f"Frames: {frames.sent} sent = {frames.delivered} delivered + {frames.duplicate} duplicate"
        f" + {frames.rejected} rejected + {frames.dropped} dropped"
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"
