"""`flyball policy`: look at, compare, check and apply policy documents; allow a quarantined policy again."""

import json
from pathlib import Path
from typing import Any

import click

from flyball_cli.operating.connection import Connection, connected
from flyball_cli.operating.fleet import Fleet, with_fleet
from flyball_cli.operating.ordering import (
    NOT_TAKEN,
    author_of,
    author_option,
    json_option,
    order_document,
    order_line,
    show_order,
    taken,
)
from flyball_cli.operating.policy_difference import changed_meaning, meaning, meaning_lines, text_difference
from flyball_cli.operating.status_document import mode_of
from flyball_cli.policy_file import read_policy, read_text
from flyball_cli.wording import nearest
from flyball_core.errors import InvalidDocument, Rejected
from flyball_policies.reading import read_document
from flyball_proto.v1.inputs_pb2 import Order, PolicyText
from flyball_proto.v1.services_pb2 import GetPolicyResponse, WriteResponse

SCHEMA = "flyball.policy/1"
DIFFERS = 1
FAULTY = 1

_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def policy() -> None:
    """Show, check, compare and apply policy documents."""


@policy.command(epilog="\b\nExample:\n  flyball policy check chat.yaml")
@_FILE
@json_option
def check(*, file: Path, as_json: bool) -> int:
    """Say whether FILE is a policy document, without any controller.

    Exit code: 0 it is, 1 it is not (with line, column and the nearest right key), 2 no such file.
    """
    text = read_text(file)
    problem: InvalidDocument | None = None
    try:
        document = read_document(text, str(file))
    except InvalidDocument as error:
        problem = error
    if as_json:
        found = {
            "schema": SCHEMA,
            "file": str(file),
            "ok": problem is None,
            "problem": None if problem is None else _problem(problem),
            "meaning": None if problem is not None else meaning(document),
        }
        click.echo(json.dumps(found, indent=2))
    elif problem is not None:
        click.echo(str(problem))
    else:
        lanes, pools = ", ".join(lane.name for lane in document.lanes) or "none", ", ".join(document.pools) or "any"
        click.echo(f"{file}: sound; mode {document.mode.value}, lanes {lanes}, for pools {pools}")
    return 0 if problem is None else FAULTY


def _problem(error: InvalidDocument) -> dict[str, Any]:
    return {"what": error.problem, "line": error.line, "column": error.column, "hint": error.hint or None}


async def _in_force(fleet: Fleet, pool: str) -> GetPolicyResponse:
    owned = (await fleet.status(pool)).pool(pool)
    return await fleet.policy(owned.address, pool)


@policy.command(epilog="\b\nExample:\n  flyball policy show chat > chat.yaml")
@click.argument("pool")
@json_option
@connected
def show(*, connection: Connection, pool: str, as_json: bool) -> int:
    """Print the document in force for POOL, as its author wrote it, and nothing else."""
    found = with_fleet(connection, lambda fleet: _in_force(fleet, pool))
    if as_json:
        document = {"schema": SCHEMA, "pool": pool, "author": found.author or None, "text": found.text or None}
        click.echo(json.dumps(document, indent=2))
    elif found.text:
        click.echo(found.text, nl=not found.text.endswith("\n"))
    else:
        click.echo(f"flyball: no policy was ever applied to {pool}; all defaults hold", err=True)
    return 0


@policy.command(epilog="\b\nExample:\n  flyball policy diff chat chat.yaml")
@click.argument("pool")
@_FILE
@json_option
@connected
def diff(*, connection: Connection, pool: str, file: Path, as_json: bool) -> int:
    """Compare FILE with the document in force for POOL: in text, and in what it means, defaults included.

    Exit code: 0 the same text, 1 they differ, 2 bad input or no controller answered.
    """
    text = read_policy(file)
    old = with_fleet(connection, lambda fleet: _in_force(fleet, pool))
    lines = text_difference(old.text, text, f"{pool} (in force)", str(file))
    changes = changed_meaning(old.text, text)
    if as_json:
        found = {
            "schema": SCHEMA,
            "pool": pool,
            "file": str(file),
            "same": not lines,
            "text": lines,
            "changes": changes,
        }
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join([*lines, "", *meaning_lines(changes)] if lines else ["the same"]))
    return DIFFERS if lines else 0


@policy.command(epilog="\b\nExample:\n  flyball policy apply chat chat.yaml")
@click.argument("pool")
@_FILE
@author_option
@json_option
@connected
def apply(*, connection: Connection, pool: str, file: Path, author: str | None, as_json: bool) -> int:
    """Put FILE in force for POOL, saying what changes. It is checked here first, then by the pool's owner.

    Exit code: 0 in force, 1 refused or not answered yet, 2 bad input or no controller answered.
    """
    text = read_policy(file)
    pools = read_document(text).pools
    if pools and pool not in pools:
        raise Rejected(f"{file} is for pools {', '.join(pools)}, not for {pool}")
    order = PolicyText(pool=pool, text=text, author=author_of(connection, author))
    lines, changes, response = with_fleet(connection, lambda fleet: _apply(fleet, order))
    if as_json:
        click.echo(json.dumps({**order_document("policy apply", pool, response), "changes": changes}, indent=2))
    else:
        click.echo("\n".join([*lines, order_line(pool, response)]))
    return 0 if taken(response) else NOT_TAKEN


async def _apply(fleet: Fleet, order: PolicyText) -> tuple[list[str], list[dict[str, Any]] | None, WriteResponse]:
    owned = (await fleet.status(order.pool)).pool(order.pool)
    changes = changed_meaning((await fleet.policy(owned.address, order.pool)).text, order.text)
    lines = meaning_lines(changes)
    before, after = mode_of(owned.status), read_document(order.text).mode.value
    if before != after:
        lines.append(f"The pool goes from {before} to {after}, as the document says.")
    response = await fleet.write(owned.address, lambda stub, timeout_s: stub.ApplyPolicy(order, timeout=timeout_s))
    return lines, changes, response


@policy.command(epilog='\b\nExample:\n  flyball policy reset chat caps-aimd --reason "fixed in 1.4.2"')
@click.argument("pool")
@click.argument("name")
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes on record.")
@author_option
@json_option
@connected
def reset(*, connection: Connection, pool: str, name: str, reason: str, author: str | None, as_json: bool) -> int:
    """Let the policy NAME, which failed too often and was quarantined, be asked again.

    Exit code: 0 taken, 1 refused or not answered yet, 2 it is not quarantined, or no controller answered.
    """
    order = Order(pool=pool, author=author_of(connection, author), reason=reason, reset_policy=name)

    async def give(fleet: Fleet) -> WriteResponse:
        owned = (await fleet.status(pool)).pool(pool)
        if name not in owned.status.quarantined:
            raise Rejected(f"no policy {name!r} is quarantined in {pool}: {nearest(name, owned.status.quarantined)}")
        return await fleet.write(owned.address, lambda stub, timeout_s: stub.GiveOrder(order, timeout=timeout_s))

    return show_order("policy reset", pool, with_fleet(connection, give), as_json=as_json)
