"""`flyball explain`: why an engine or a gateway holds what it holds, or what one decision was made of.

Everything comes from the log's own records, read there or served by a running controller;
nothing is computed again, so this is what was recorded even where the code has changed since.
(Whether the code still agrees is what `flyball replay` answers.)
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flyball_cli.audit import Audit, Target, read_attaches, read_audit
from flyball_cli.explained import document_lines
from flyball_cli.explanation import decision_document, target_document
from flyball_cli.operating.connection import connection_options, taken_from
from flyball_cli.operating.fleet import Fleet, with_fleet
from flyball_cli.operating.remote_audit import read_remote_audit
from flyball_cli.services_file import NamedLog, named_log
from flyball_cli.wording import nearest, nearest_decisions
from flyball_core.errors import Rejected
from flyball_core.inputs import TargetKind


@click.command(
    epilog="""\b
Examples:
  flyball explain engine-0
  flyball explain chat@1234 --controller flyball-controller:7460 --tls /etc/flyball/viewer
  flyball explain engine-0 --log demo/log
  flyball explain engine-0 --config flyball.yaml --log
  flyball explain --pool chat
"""
)
@click.argument("name", metavar="[ENGINE|GATEWAY|DECISION|POOL]", required=False)
@click.option(
    "--log",
    "where",
    is_flag=False,
    flag_value="",
    metavar="[LOG]",
    help="Read a log: a folder, or kafka://HOST:PORT/PREFIX; without LOG the one that --config names.",
)
@click.option("--pool", help="The pool, where several have an engine of that name.")
@click.option("--last", type=click.IntRange(min=0), default=5, show_default=True, help="How many changes to tell of.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@connection_options
def explain(
    *,
    name: str | None,
    where: str | None,
    pool: str | None,
    last: int,
    as_json: bool,
    config_file: Path | None,
    **connection: object,
) -> int:
    """Say in words and numbers why an engine or gateway is set as it is, or what a decision (chat@1234) was made of.

    Of a pool, and without a name, its latest decision. Asks the controllers of a running fleet, or with --log reads a
    log: then --config says how to connect to Kafka.
    """
    if where is None:
        running = taken_from({**connection, "config_file": config_file})
        document = with_fleet(running, lambda fleet: _explain_running(fleet, name, pool, last))
    else:
        given = click.get_current_context().get_parameter_source("controllers")
        if given is ParameterSource.COMMANDLINE:
            raise Rejected("a log is read without a controller: give --log or --controller, not both")
        document = asyncio.run(_explain(named_log(where, config_file), name, pool, last))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(document_lines(document)))
    return 0


async def _explain_running(fleet: Fleet, name: str | None, pool: str | None, last: int) -> dict[str, Any]:
    audit = await read_remote_audit(fleet, name, pool)
    return _of_decision(audit, name, pool) or target_document(audit, _the_one(audit, name or "", pool), last=last)


async def _explain(named: NamedLog, name: str | None, pool: str | None, last: int) -> dict[str, Any]:
    log = await named.open()
    try:
        audit = await read_audit(log)
        found = _of_decision(audit, name, pool)
        if found is not None:
            return found
        if name is not None and not _is_decision(name):
            await read_attaches(log, audit)
        return target_document(audit, _the_one(audit, name or "", pool), last=last)
    finally:
        await log.close()


def _of_decision(audit: Audit, name: str | None, pool: str | None) -> dict[str, Any] | None:
    """The document of a decision, where one is meant: by its id, or as the latest of a pool; else None."""
    if name in audit.stories:
        return decision_document(audit, audit.stories[name])
    of_pool = name if name in audit.ticks else None
    if name is not None and (of_pool is None or _named(audit, name, pool)):
        return None
    story = audit.latest(of_pool or pool)
    if story is None:
        within = of_pool or pool
        raise Rejected(f"{f'pool {within}' if within else audit.where} has no decision yet")
    return decision_document(audit, story)


def _named(audit: Audit, name: str, pool: str | None) -> list[Target]:
    found = [target for target in audit.targets() if target[2] == name and pool in (None, target[1])]
    return sorted(found, key=lambda target: (target[1], target[0].value))


def _is_decision(name: str) -> bool:
    return name.rpartition("@")[2].isdecimal()


def _the_one(audit: Audit, name: str, pool: str | None) -> Target:
    """The receiver that is meant; `Rejected` if there is none, or if it could be either of two."""
    named = _named(audit, name, pool)
    if not named:
        raise _unknown(audit, name, pool)
    # Of pools that share a name, one that is only observed has nothing to explain.
    governed = [target for target in named if target in audit.told] or named
    pools = sorted({target[1] for target in governed})
    if len(pools) > 1:
        raise Rejected(f"{name} is in pools {', '.join(pools)}; say which with --pool")
    # An engine and a gateway of one name: the engine is what one asks for.
    return min(governed, key=lambda target: target[0] is not TargetKind.ENGINE)


def _unknown(audit: Audit, name: str, pool: str | None) -> Rejected:
    if _is_decision(name):
        return Rejected(f"no decision {name!r} in {audit.where}: {nearest_decisions(name, audit.stories)}")
    within = "" if pool is None else f" in pool {pool}"
    near = nearest(name, [target[2] for target in audit.targets() if pool in (None, target[1])])
    return Rejected(f"no engine, gateway or decision {name!r}{within} in {audit.where}: {near}")
