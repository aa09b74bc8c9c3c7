"""A played scenario in words: what was done, what was named, where frames went, what is assumed."""

from rich.console import Console

from flyball_cli.twin_playing import Played, say
from flyball_twin.governed.life import Frames
from flyball_twin.governed.observing import Observed
from flyball_twin.scenario.model import Scenario

SHIFTS_TOLD = 12
"""So many regime shifts are told one by one; of more, how long each regime lasted."""


def print_doings(console: Console, played: Played) -> None:
    """What was changed and named, where frames went, and what is assumed."""
    if played.frames is not None:
        _print_changes(console, played.scenario, played.observed)
        _print_frames(console, played.frames)
    for kind, said in played.assumed.items():
        say(console, f"Assumed, not measured ({kind}): {'; '.join(said)}")


def _print_changes(console: Console, scenario: Scenario, observed: Observed) -> None:
    for plan in scenario.pools:
        made = {knob: number for (pool, knob), number in sorted(observed.changed.items()) if pool == plan.pool}
        done = ", ".join(f"{number} of {knob}" for knob, number in made.items()) or "none"
        say(console, f"Changes in {plan.pool}: {done}")
        say(console, f"Regimes of {plan.pool}: {regimes(observed, str(plan.pool))}")
    say(console, f"Proposals that the guard stopped: {observed.stopped}")


def _print_frames(console: Console, frames: Frames) -> None:
    late = f" ({frames.late} late)" if frames.late else ""
    spooled = f"; {frames.spooled} never sent" if frames.spooled else ""
    say(
        console,
        f"Frames: {frames.sent} sent = {frames.delivered} delivered{late} + {frames.duplicate} duplicate"
        f" + {frames.rejected} rejected + {frames.dropped} dropped{spooled}",
    )


def regimes(observed: Observed, pool: str) -> str:
    """When each regime was named; of many shifts, the share of time of each regime."""
    shifts = [shift for shift in observed.shifts if shift.pool == pool]
    if len(shifts) <= SHIFTS_TOLD:
        return ", ".join(f"{shift.after} at {shift.at_s:.0f} s" for shift in shifts) or "none named"
    spent = observed.regime_s.get(pool, {})
    total_s = sum(spent.values())
    shares = sorted(spent.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {length_s / total_s:.0%} of the time" for name, length_s in shares)


def seconds(value: float | None) -> str:
    """A latency for people; `-` if there is none."""
    if value is None:
        return "-"
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"
