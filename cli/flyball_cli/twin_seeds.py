"""Plays a scenario under each seed that is asked for, keeps what came of it, and tells it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from flyball_cli.twin_document import document, spreads
from flyball_cli.twin_playing import Played, keep_picture, new_folder, new_log, play, play_bare, say, view_of
from flyball_cli.twin_run import RunOptions
from flyball_cli.twin_words import print_doings, seconds
from flyball_cli.wording import counted
from flyball_twin.scenario.model import PoolPlan, Scenario
from flyball_twin.scenario.reading import load_scenario
from flyball_twin.scenario.shortening import shortened


def run_scenario(name: str, options: RunOptions) -> int:
    """Play, keep and tell. Raises `Rejected` or `InvalidDocument` for what cannot be played."""
    scenario = load_scenario(name)
    if options["until"] is not None:
        scenario = shortened(scenario, options["until"])
    seeds = _seeds(scenario, options)
    folder = new_folder(options["out"], scenario.name)
    console = Console(stderr=options["as_json"])
    runs: list[Played] = []
    for seed in seeds:
        place = folder / f"seed-{seed}" if len(seeds) > 1 else folder
        place.mkdir(exist_ok=True)
        runs.append(_play(scenario, seed, place, console, options))
        keep_picture(runs[-1])
    found = document(runs)
    (folder / "result.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options["as_json"]:
        click.echo(json.dumps(found, indent=2))
    else:
        print_runs(console, runs)
    return 0


def _seeds(scenario: Scenario, options: RunOptions) -> tuple[int, ...]:
    if options["seed"] is not None:
        return (options["seed"],)
    return scenario.seeds if options["seeds"] is not None else scenario.seeds[:1]


def _play(scenario: Scenario, seed: int, folder: Path, console: Console, options: RunOptions) -> Played:
    as_json = options["as_json"]
    if not as_json:
        how = "bare" if options["bare"] else "through the control plane"
        say(console, f"Playing {scenario.end_s:.0f} s of {scenario.name} {how}, seed {seed}")
    if options["bare"]:
        return play_bare(scenario, seed, folder)
    return asyncio.run(_governed(scenario, seed, folder, console, options))


async def _governed(scenario: Scenario, seed: int, folder: Path, console: Console, options: RunOptions) -> Played:
    log = await new_log(options["log_where"], folder, f"{scenario.name}-{seed}")
    try:
        return await play(scenario, seed, folder, log, view_of(console, as_json=options["as_json"]))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(console, f"\nStopped. The log up to here: {log.where}")
        raise


def print_runs(console: Console, runs: Sequence[Played]) -> None:
    """A table for each pool, over all seeds, and what was done in the last run."""
    last = runs[-1]
    say(console, f"\n{last.scenario.title}")
    for plan in last.scenario.pools:
        console.print(_table(runs, plan))
    if len(runs) > 1:
        say(console, f"Mean of seeds {', '.join(str(played.seed) for played in runs)} (least to greatest)")
        say(console, f"Of seed {last.seed}:")
    print_doings(console, last)
    for played in runs:
        say(console, f"Picture: {played.picture}" + ("" if played.log is None else f"\nLog: {played.log}"))
    say(console, f"{sum(played.wall_s for played in runs):.1f} s of this machine's time")


_LABELS = {
    "attainment": "within objective",
    "slo_goodput_per_gpu_h": "within objective, per GPU-hour",
    "ttft_p50_s": "TTFT p50",
    "ttft_p99_s": "TTFT p99",
    "tpot_p50_s": "TPOT p50",
    "tpot_p99_s": "TPOT p99",
    "output_tokens_per_s": "output tokens a second",
}


def _table(runs: Sequence[Played], plan: PoolPlan) -> Table:
    names = list(runs[0].cards)
    title = f"{plan.pool}: {counted(len(plan.engines), 'engine')}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for rule in plan.lanes:
        lane = rule.lane
        asked = [sum(p.cards[name].tally.score(pool=plan.pool, lane=lane).arrivals for p in runs) for name in names]
        table.add_row(f"{lane}: arrivals", *(f"{number / len(runs):,.0f}" for number in asked))
        found = [spreads(runs, name, plan, lane) for name in names]
        for figure, label in _LABELS.items():
            cells = [_cell(figure, one[figure], several=len(runs) > 1) for one in found]
            table.add_row(f"{lane}: {label}", *cells, end_section=figure == "output_tokens_per_s")
    return table


def _cell(figure: str, found: Mapping[str, float] | None, *, several: bool) -> str:
    """A figure over the seeds: the mean, and how far apart they are."""
    if found is None:
        return "-"
    mean, low, high = (_number(figure, found[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})" if several else mean


def _number(figure: str, value: float) -> str:
    if figure == "attainment":
        return f"{value:.1%}"
    return f"{value:,.0f}" if figure.endswith(("per_s", "per_gpu_h")) else seconds(value)
