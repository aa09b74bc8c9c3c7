"""Giving an order: under whose name, to which controller, and what the pool's owner made of it."""

import json
from typing import Any

import click

from flyball_cli.operating.connection import Connection, login
from flyball_core.errors import Rejected
from flyball_proto.v1.services_pb2 import (
    WRITE_OUTCOME_ON_RECORD,
    WRITE_OUTCOME_REFUSED,
    WRITE_OUTCOME_TAKEN,
    WriteResponse,
)

SCHEMA = "flyball.order/1"
NOT_TAKEN = 1
_OUTCOMES = {
    WRITE_OUTCOME_TAKEN: "taken",
    WRITE_OUTCOME_REFUSED: "refused",
    WRITE_OUTCOME_ON_RECORD: "on_record",
}

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else."
)
author_option = click.option(
    "--author", metavar="NAME", help="Who orders it, without certificates only. Default: the login name."
)
reason_option = click.option("--reason", required=True, metavar="TEXT", help="Why; it goes on record.")


def author_of(connection: Connection, given: str | None) -> str:
    """Under whose name to ask: certificates speak for themselves. `Rejected` if both would."""
    if connection.tls is not None:
        if given is not None:
            raise Rejected("with certificates the author is the certificate's name: leave --author out")
        return ""
    if given is not None and not given.strip():
        raise Rejected("--author is empty: an order has an author")
    name = given or login()
    if name is None:
        raise Rejected("this user has no login name: say who orders it with --author NAME")
    return name


def taken(response: WriteResponse) -> bool:
    """Whether the owner took the order."""
    return response.outcome == WRITE_OUTCOME_TAKEN


def order_document(order: str, pool: str, response: WriteResponse) -> dict[str, Any]:
    """The JSON document of an order and its answer."""
    return {
        "schema": SCHEMA,
        "order": order,
        "pool": pool,
        "outcome": _OUTCOMES.get(response.outcome, "unknown"),
        "summary": response.summary,
        "author": response.author,
        "input": response.offset,
    }


def order_line(pool: str, response: WriteResponse) -> str:
    """The answer to an order in words."""
    if response.outcome == WRITE_OUTCOME_TAKEN:
        return f"taken: {response.summary}"
    if response.outcome == WRITE_OUTCOME_REFUSED:
        return f"refused: {response.summary}"
    return (
        f"on record as input {response.offset} of {pool}, but its owner has not answered yet: it will be followed when"
        " there is one; look with `flyball status`"
    )


def show_order(order: str, pool: str, response: WriteResponse, *, as_json: bool) -> int:
    """Print what became of an order; the exit code."""
    if as_json:
        click.echo(json.dumps(order_document(order, pool, response), indent=2))
    else:
        click.echo(order_line(pool, response))
    return 0 if taken(response) else NOT_TAKEN
