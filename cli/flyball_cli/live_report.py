"""What `flyball demo --live` comes to: one documented JSON document, and the same for a reader.

The document's shape is described in docs/commands.md; keys are only ever added.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from flyball_cli.live_traffic import SLOS, Figures, Measured, TrafficPhase, figures
from flyball_cli.live_view import LiveEngine, milliseconds
from flyball_twin.governed.observing import Change, Observed

SCHEMA = "flyball.demo-live/1"
MOST_CHANGES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveResult:
    """A finished show."""

    seconds: float
    phases: tuple[TrafficPhase, ...]
    measured: Sequence[Measured]
    observed: Observed
    began_s: float
    """The machine's time when the first request could be due; other times of the machine count from its first tick."""
    engines: tuple[LiveEngine, ...]
    """As they were at the end."""
    policy: str
    """What the owner said to the policy document."""
    kept: str | None
    """The folder with configuration, log and lines of the services; None if it was not kept."""
    wall_s: float

    def lanes_of(self, phase: TrafficPhase) -> dict[str, Figures]:
        """What clients measured of a phase, by lane."""
        of = [one for one in self.measured if one.planned.phase == phase.name]
        return {slo.lane: figures((one for one in of if one.planned.lane == slo.lane), slo) for slo in SLOS}


def live_document(result: LiveResult) -> dict[str, Any]:
    """The JSON document."""
    return {
        "schema": SCHEMA,
        "seconds": result.seconds,
        "objectives": [asdict(slo) for slo in SLOS],
        "phases": [
            {
                "name": phase.name,
                "from_s": phase.from_s,
                "to_s": phase.to_s,
                "lanes": {lane: asdict(found) for lane, found in result.lanes_of(phase).items()},
            }
            for phase in result.phases
        ],
        "began_s": result.began_s,
        "policy": result.policy,
        "regime_shifts": [
            {"pool": s.pool, "at_s": s.at_s, "from": s.before, "to": s.after, "confidence": s.confidence}
            for s in result.observed.shifts
        ],
        "changes": [asdict(change) for change in result.observed.changes],
        "stopped": result.observed.stopped,
        "engines": [
            {"engine": one.name, "settings": dict(one.effective), "weight": one.weight} for one in result.engines
        ],
        "failures": [{"why": why, "requests": number} for why, number in failures(result.measured).items()],
        "kept": result.kept,
        "wall_s": round(result.wall_s, 3),
    }


def failures(measured: Sequence[Measured]) -> dict[str, int]:
    """Failed requests by reason."""
    counts: dict[str, int] = {}
    for one in measured:
        if one.failure:
            counts[one.failure] = counts.get(one.failure, 0) + 1
    return counts


def print_live(console: Console, result: LiveResult) -> None:
    """The result for a reader."""
    console.print(_clients(result))
    shifts = ", ".join(f"{s.after} at {s.at_s - result.began_s:.0f} s" for s in result.observed.shifts)
    _say(console, f"Regimes: {shifts or 'no shift'}.")
    changes = result.observed.changes
    acked = sum(change.acked_at_s is not None for change in changes)
    _say(
        console,
        f"Changes: {len(changes)} decided, {acked} seen to hold; {result.observed.stopped} stopped by the guard.",
    )
    for change in changes[:MOST_CHANGES]:
        _say(console, f"  {_change_words(change, result.began_s)}")
    if len(changes) > MOST_CHANGES:
        _say(console, f"  and {len(changes) - MOST_CHANGES} more")
    for why, number in failures(result.measured).items():
        _say(console, f"Failed: {number} ({why})")


def _clients(result: LiveResult) -> Table:
    table = Table(title="What the HTTP clients measured", title_justify="left", title_style="bold")
    for column in ("phase", "lane", "requests", "kept", "TTFT p50, p99", "TPOT p50, p99"):
        table.add_column(column, justify="left" if column in ("phase", "lane") else "right", no_wrap=True)
    for phase in result.phases:
        for lane, found in result.lanes_of(phase).items():
            kept = f"{found.attained / found.requests:.0%}" if found.requests else "-"
            ttft = f"{milliseconds(found.ttft_p50_s)}, {milliseconds(found.ttft_p99_s)}"
            tpot = f"{milliseconds(found.tpot_p50_s)}, {milliseconds(found.tpot_p99_s)}"
            table.add_row(phase.name, lane, str(found.requests), kept, ttft, tpot)
    table.caption = "kept: requests that finished within their lane's objective"
    return table


def _change_words(change: Change, began_s: float) -> str:
    held = (
        "not seen to hold"
        if change.acked_at_s is None
        else f"held after {change.acked_at_s - change.decided_at_s:.1f} s"
    )
    what = f"{change.target} {change.knob} {change.old} -> {change.new}"
    return f"{change.decided_at_s - began_s:5.1f} s  {what}: {change.reason} [{change.decision}, {held}]"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
