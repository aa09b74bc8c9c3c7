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
from flyball_cli.going_back import Question, is_decision
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
    asked = Question(name=name, pool=pool, last=last)
    if where is None:
        running = taken_from({**connection, "config_file": config_file})
        document = with_fleet(running, lambda fleet: _explain_running(fleet, asked))
    else:
        given = click.get_current_context().get_parameter_source("controllers")
        if given is ParameterSource.COMMANDLINE:
            raise Rejected("a log is read without a controller: give --log or --controller, not both")
        document = asyncio.run(_explain(named_log(where, config_file), asked))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(document_lines(document)))
    return 0


async def _explain_running(fleet: Fleet, asked: Question) -> dict[str, Any]:
    audit = await read_remote_audit(fleet, asked)
    return _of_decision(audit, asked) or _of_target(audit, asked)


async def _explain(named: NamedLog, asked: Question) -> dict[str, Any]:
    log = await named.open()
    try:
        audit = await read_audit(log, asked)
        found = _of_decision(audit, asked)
        if found is not None:
            return found
        if asked.name is not None and not is_decision(asked.name):
            await read_attaches(log, audit, asked.name)
        return _of_target(audit, asked)
    finally:
        await log.close()


def _of_decision(audit: Audit, asked: Question) -> dict[str, Any] | None:
    """The document of a decision, where one is meant: by its id, or as the latest of a pool; else None."""
    name, pool = asked.name, asked.pool
    if name in audit.stories:
        return decision_document(audit, audit.stories[name])
    if not asked.latest_of(audit.pools, {target[2] for target in _named(audit, name or "", pool)}):
        return None
    story = audit.latest(name or pool)
    if story is None:
        within = name or pool
        raise Rejected(f"{f'pool {within}' if within else audit.where} has no decision yet")
    return decision_document(audit, story)


def _of_target(audit: Audit, asked: Question) -> dict[str, Any]:
    return target_document(audit, _the_one(audit, asked.name or "", asked.pool), last=asked.last)


def _named(audit: Audit, name: str, pool: str | None) -> list[Target]:
    found = [target for target in audit.targets() if target[2] == name and pool in (None, target[1])]
    return sorted(found, key=lambda target: (target[1], target[0].value))


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
    if is_decision(name):
        return Rejected(f"no decision {name!r} in {audit.where}: {nearest_decisions(name, audit.stories)}")
    within = "" if pool is None else f" in pool {pool}"
    near = nearest(name, [target[2] for target in audit.targets() if pool in (None, target[1])])
    return Rejected(f"no engine, gateway or decision {name!r}{within} in {audit.where}: {near}")
