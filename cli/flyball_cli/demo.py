"""`flyball demo`: two identical fleets serve the same requests, one of them governed."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

import click
from click.core import ParameterSource
from rich.console import Console

from flyball_cli.demo_report import document, print_tables
from flyball_cli.twin_playing import Played, keep_result, new_folder, new_log, play, say, view_of
from flyball_core.errors import Rejected
from flyball_policies.reading import read_document
from flyball_twin.scenario.model import Scenario
from flyball_twin.scenario.reading import load_scenario
from flyball_twin.scenario.shortening import shortened

SCENARIO = "demo"
"""The scenario of the library that the demo plays."""


class VirtualOptions(TypedDict):
    """The options of the demo in virtual time; the first goes with both."""

    as_json: bool
    log_where: str
    out: Path | None
    policy: Path | None
    until: float | None


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option(
    "--log",
    "log_where",
    default="embedded",
    metavar="embedded|kafka://HOST:PORT[/PREFIX]",
    help="Where the log goes: the embedded log in the output folder, or a Kafka broker on loopback.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; default: .flyball/demo-DATE-TIME.")
@click.option("--policy", type=click.Path(path_type=Path), help="A policy document instead of the demo's own.")
@click.option("--until", type=float, metavar="SECONDS", help="Play only so much of the scenario (1056 s).")
@click.option("--live", is_flag=True, help="Instead: real processes, real time, real sockets, for --seconds.")
@click.option("--seconds", type=float, default=60.0, show_default=True, help="With --live: how long clients send.")
@click.option("--keep", type=click.Path(path_type=Path), help="With --live: keep configuration, log and lines here.")
@click.pass_context
def demo(
    context: click.Context, /, *, live: bool, seconds: float, keep: Path | None, **virtual: Unpack[VirtualOptions]
) -> int:
    """Two identical fleets of simulated engines serve the same real traffic; one is governed."""
    if not live:
        _refuse(context, ("seconds", "keep"), "goes with --live only")
        return _play_virtual(virtual)
    from flyball_cli.live_demo import run_live

    _refuse(context, ("log_where", "out", "policy", "until"), "does not go with --live")
    return run_live(seconds, keep, as_json=virtual["as_json"])


def _refuse(context: click.Context, names: tuple[str, ...], why: str) -> None:
    """Raise `Rejected` for an option of the other kind of demo that was given."""
    for option in context.command.params:
        if option.name in names and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE:
            raise Rejected(f"{option.opts[0]} {why}")


def _play_virtual(options: VirtualOptions) -> int:
    """Play the scenario in virtual time and print what came of it."""
    as_json, until = options["as_json"], options["until"]
    scenario = _with_policy(load_scenario(SCENARIO), options["policy"])
    if until is not None:
        scenario = shortened(scenario, until)
    folder = new_folder(options["out"], SCENARIO)
    console = Console(stderr=as_json)
    played = asyncio.run(_run(scenario, folder, options["log_where"], console, as_json=as_json))
    keep_result(document(played), played, folder)
    if as_json:
        click.echo(json.dumps(document(played), indent=2))
    else:
        print_tables(console, played)
        say(console, f"Picture: {played.picture}\nLog: {played.log}")
        say(console, f"Try: {sys.argv[0]} replay {played.log}\n     {sys.argv[0]} explain engine-1 --log {played.log}")
    return 0


def _with_policy(scenario: Scenario, policy: Path | None) -> Scenario:
    """The scenario with this policy document in place of its own, in every pool."""
    if policy is None:
        return scenario
    try:
        text = policy.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot read the policy document {policy}: {error}") from error
    read_document(text, str(policy))
    return replace(
        scenario, pools=tuple(replace(pool, policy=text, policy_source=str(policy)) for pool in scenario.pools)
    )


async def _run(scenario: Scenario, folder: Path, log_where: str, console: Console, *, as_json: bool) -> Played:
    log = await new_log(log_where, folder, SCENARIO)
    if not as_json:
        say(console, f"Playing {scenario.end_s:.0f} s of traffic on two fleets; the log: {log.where}")
    try:
        [seed] = scenario.seeds
        return await play(scenario, seed, folder, log, view_of(console, as_json=as_json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(console, f"\nStopped. The log up to here: {log.where}")
        raise
