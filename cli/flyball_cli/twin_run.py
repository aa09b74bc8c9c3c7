"""`flyball twin run`: plays a scenario in virtual time, through the control plane or bare, and draws it."""

from pathlib import Path
from typing import TypedDict, Unpack

import click
from click.core import ParameterSource

from flyball_core.errors import Rejected

ALL = "all"


class RunOptions(TypedDict):
    """What a run may be told."""

    seed: int | None
    seeds: str | None
    bare: bool
    until: float | None
    out: Path | None
    log_where: str
    as_json: bool


@click.command()
@click.argument("scenario", metavar="SCENARIO")
@click.option("--seed", type=click.IntRange(0), help="Instead of the scenario's first seed.")
@click.option("--seeds", type=click.Choice([ALL]), help="Play all seeds of the scenario, one after another.")
@click.option("--bare", is_flag=True, help="Without control: engines at their defaults, no agents, no log.")
@click.option("--until", type=float, metavar="SECONDS", help="Play only so much of the scenario.")
@click.option("--out", type=click.Path(path_type=Path), help="Output folder; default: .flyball/NAME-DATE-TIME.")
@click.option(
    "--log",
    "log_where",
    default="embedded",
    metavar="embedded|kafka://HOST:PORT[/PREFIX]",
    help="Where the log goes: the embedded log in the output folder, or a Kafka broker on loopback.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.pass_context
def run(context: click.Context, /, *, scenario: str, **options: Unpack[RunOptions]) -> int:
    """Play SCENARIO, a file or a name of the library, and draw what came of it."""
    if options["seed"] is not None and options["seeds"] is not None:
        raise Rejected("say --seed or --seeds, not both")
    if options["bare"] and context.get_parameter_source("log_where") is ParameterSource.COMMANDLINE:
        raise Rejected("--log is for a run with control; a bare one has no log")
    from flyball_cli.twin_seeds import run_scenario

    return run_scenario(scenario, options)
