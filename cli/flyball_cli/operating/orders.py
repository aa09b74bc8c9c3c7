"""`flyball pause`, `resume`, `mode` and `rebase`: standing orders to a pool."""

import json
import sys

import click

from flyball_cli.operating.attention import FOREIGN_LOG
from flyball_cli.operating.connection import Connection, connected
from flyball_cli.operating.fleet import Fleet, with_fleet
from flyball_cli.operating.merging import Owned
from flyball_cli.operating.ordering import (
    NOT_TAKEN,
    author_of,
    author_option,
    json_option,
    order_document,
    order_line,
    reason_option,
    show_order,
    taken,
)
from flyball_cli.wording import nearest
from flyball_core.errors import Rejected
from flyball_core.inputs import Mode
from flyball_proto.codec.words import MODES
from flyball_proto.v1.common_pb2 import Mode as WireMode
from flyball_proto.v1.inputs_pb2 import Order, Rebase
from flyball_proto.v1.services_pb2 import WriteResponse


async def give_order(fleet: Fleet, order: Order) -> WriteResponse:
    """Give a standing order at the pool's owner. Raises `FlyballError`; `Rejected` if nobody owns such a pool."""
    owned = (await fleet.status(order.pool)).pool(order.pool)
    return await fleet.write(owned.address, lambda stub, timeout_s: stub.GiveOrder(order, timeout=timeout_s))


def _give(connection: Connection, name: str, order: Order, *, as_json: bool) -> int:
    response = with_fleet(connection, lambda fleet: give_order(fleet, order))
    return show_order(name, order.pool, response, as_json=as_json)


@click.command(epilog='\b\nExample:\n  flyball pause chat --reason "incident 4711: hold everything still"')
@click.argument("pool")
@reason_option
@author_option
@json_option
@connected
def pause(*, connection: Connection, pool: str, reason: str, author: str | None, as_json: bool) -> int:
    """Hold every setting of POOL where it is, until `flyball resume`.

    Exit code: 0 taken, 1 refused or not answered yet, 2 no controller answered or no such pool.
    """
    order = Order(pool=pool, author=author_of(connection, author), reason=reason, paused=True)
    return _give(connection, "pause", order, as_json=as_json)


@click.command(epilog='\b\nExample:\n  flyball resume chat --reason "incident 4711 is over"')
@click.argument("pool")
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes on record.")
@author_option
@json_option
@connected
def resume(*, connection: Connection, pool: str, reason: str, author: str | None, as_json: bool) -> int:
    """Let POOL be governed again after a pause. Exit codes as `flyball pause`."""
    order = Order(pool=pool, author=author_of(connection, author), reason=reason, paused=False)
    return _give(connection, "resume", order, as_json=as_json)


@click.command(
    epilog="""\b
Examples:
  flyball mode chat advise --reason "look first"
  flyball mode chat control --reason "a week of good advice"
"""
)
@click.argument("pool")
@click.argument("mode", type=click.Choice([mode.value for mode in Mode]))
@reason_option
@author_option
@json_option
@connected
def mode(*, connection: Connection, pool: str, mode: str, reason: str, author: str | None, as_json: bool) -> int:
    """Say how far POOL is governed: observe (record only), advise (say what it would do), control (do it).

    Exit codes as `flyball pause`.
    """
    number = WireMode.ValueType(MODES.number(Mode(mode)))
    order = Order(pool=pool, author=author_of(connection, author), reason=reason, mode=number)
    return _give(connection, "mode", order, as_json=as_json)


@click.command(
    epilog="""\b
Examples:
  flyball rebase chat --reason "the log was recreated"
  flyball rebase chat --target engine-0 --reason "moved here" --yes
"""
)
@click.argument("pool")
@click.option("--target", default="", metavar="NAME", help="One engine or gateway; else all of POOL that need it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reason_option
@author_option
@json_option
@connected
def rebase(
    *, connection: Connection, pool: str, target: str, yes: bool, reason: str, author: str | None, as_json: bool
) -> int:
    """Let receivers of POOL that hold another log's version forget it and take this log's.

    They refuse until then, because a log that was wiped or exchanged by accident would undo what
    they hold. Says first whom it concerns. Exit code: 0 taken, 1 refused, not answered or not
    confirmed, 2 no controller answered or no such pool or receiver.
    """
    order = Rebase(pool=pool, target=target, author=author_of(connection, author), reason=reason)

    async def give(fleet: Fleet) -> tuple[list[str], WriteResponse | None]:
        owned = (await fleet.status(pool)).pool(pool)
        concerned = holding_another_log(owned, target)
        if not _confirmed(pool, concerned, yes=yes, quiet=as_json):
            return concerned, None
        write = fleet.write(owned.address, lambda stub, timeout_s: stub.GiveRebase(order, timeout=timeout_s))
        return concerned, await write

    concerned, response = with_fleet(connection, give)
    if response is None:
        click.echo("nothing was done", err=as_json)
        return NOT_TAKEN
    if as_json:
        click.echo(json.dumps({**order_document("rebase", pool, response), "holding_another_log": concerned}, indent=2))
    else:
        click.echo(order_line(pool, response))
    return 0 if taken(response) else NOT_TAKEN


def holding_another_log(owned: Owned, target: str) -> list[str]:
    """The receivers that a rebase concerns; `Rejected`, with the nearest, if `target` is none of the pool's."""
    known = {one.target: one for one in owned.status.targets}
    if target and target not in known:
        raise Rejected(f"no engine or gateway {target!r} in pool {owned.status.pool}: {nearest(target, known)}")
    return sorted(name for name, one in known.items() if target in ("", name) and one.trouble.startswith(FOREIGN_LOG))


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


def _confirmed(pool: str, concerned: list[str], *, yes: bool, quiet: bool) -> bool:
    if not quiet:
        click.echo(
            f"hold another log's version: {', '.join(concerned)}"
            if concerned
            else f"nobody of {pool} holds another log's version now; the rebase counts for who attaches soon"
        )
    if yes:
        return True
    if not is_terminal():
        raise Rejected("a rebase is asked for twice: say --yes where there is no terminal to ask at")
    return click.confirm(f"Let them take the log of {pool}?", default=False, err=True)
