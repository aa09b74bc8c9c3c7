"""`flyball explain`: why an engine or a gateway holds what it holds, or what one decision was made of.

Everything comes from the log's own records; nothing is computed again, so this is what was
recorded even where the code has changed since. (Whether the code still agrees is what
`flyball replay` answers.)
"""

import asyncio
import json
from typing import Any

import click

from flyball_cli.audit import Audit, Target, read_attaches, read_audit
from flyball_cli.explained import document_lines
from flyball_cli.explanation import decision_document, target_document
from flyball_cli.wording import nearest, nearest_decisions
from flyball_core.errors import Rejected
from flyball_core.inputs import TargetKind
from flyball_log import open_log


@click.command()
@click.argument("name", metavar="ENGINE|GATEWAY|DECISION")
@click.option("--log", "where", required=True, metavar="LOG", help="A folder, or kafka://HOST:PORT/PREFIX.")
@click.option("--pool", help="The pool, where several have an engine of that name.")
@click.option("--last", type=click.IntRange(min=0), default=5, show_default=True, help="How many changes to tell of.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def explain(*, name: str, where: str, pool: str | None, last: int, as_json: bool) -> int:
    """Say in words and numbers why an engine or gateway is set as it is, or what a decision (chat@1234) was made of."""
    document = asyncio.run(_explain(name, where, pool, last))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(document_lines(document)))
    return 0


async def _explain(name: str, where: str, pool: str | None, last: int) -> dict[str, Any]:
    log = await open_log(where, read_only=True)
    try:
        audit = await read_audit(log)
        if name in audit.stories:
            return decision_document(audit, audit.stories[name])
        if not _is_decision(name):
            await read_attaches(log, audit)
        return target_document(audit, _the_one(audit, name, pool), last=last)
    finally:
        await log.close()


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
