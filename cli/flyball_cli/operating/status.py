"""`flyball status`: what a fleet is doing and whether anything needs an operator."""

import json

import click

from flyball_cli.operating.connection import Connection, connected
from flyball_cli.operating.fleet import with_fleet
from flyball_cli.operating.merging import FleetStatus
from flyball_cli.operating.status_document import status_document
from flyball_cli.operating.status_words import SHOWN, status_lines

NEEDS_ATTENTION = 1


@click.command(
    epilog="""\b
Examples:
  flyball status
  flyball status chat --all
  flyball status --controller flyball-controller:7460 --tls /etc/flyball/operator
  flyball status --json | jq '.attention[]'
"""
)
@click.argument("pool", required=False)
@click.option("--all", "every", is_flag=True, help=f"All engines; else {SHOWN} of those that are as wanted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@connected
def status(*, connection: Connection, pool: str | None, every: bool, as_json: bool) -> int:
    """Say what a fleet, or one POOL of it, is doing, and first whether anything needs attention.

    Exit code: 0 all is well, 1 something needs attention, 2 no controller answered or no such pool.
    """
    fleet = with_fleet(connection, lambda one: one.status(pool or ""))
    return show_status(fleet, pool, every=every, as_json=as_json)


def show_status(fleet: FleetStatus, pool: str | None, *, every: bool, as_json: bool) -> int:
    """Print what was answered; the exit code."""
    if pool is not None:
        fleet.pool(pool)
    found = status_document(fleet)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        first, *others = status_lines(found, shown=None if every else SHOWN)
        click.echo(click.style(first, fg="green" if found["healthy"] else "red", bold=True))
        click.echo("\n".join(others))
    return 0 if found["healthy"] else NEEDS_ATTENTION
