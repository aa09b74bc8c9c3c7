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
from flyball_cli.wording import nearest
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
        named = _named(audit, name, pool)
        if not named or any(target not in audit.told for target in named):
            await read_attaches(log, audit)
            named = _named(audit, name, pool)
        return target_document(audit, _the_one(audit, name, pool, named), last=last)
    finally:
        await log.close()


def _named(audit: Audit, name: str, pool: str | None) -> list[Target]:
    found = [target for target in audit.targets() if target[2] == name and pool in (None, target[1])]
    return sorted(found, key=lambda target: (target[1], target[0].value))


def _the_one(audit: Audit, name: str, pool: str | None, named: list[Target]) -> Target:
    if len(named) == 1:
        return named[0]
    if len({target[1] for target in named}) > 1:
        raise Rejected(
            f"{name} is in pools {', '.join(sorted({target[1] for target in named}))}; say which with --pool"
        )
    if named:  # an engine and a gateway of one name: the engine is what one asks for
        return next(target for target in named if target[0] is TargetKind.ENGINE)
    within = "" if pool is None else f" in pool {pool}"
    decision = "@" in name and name.rpartition("@")[2].isdecimal()
    known = list(audit.stories) if decision else [t[2] for t in audit.targets() if pool in (None, t[1])]
    what = "decision" if decision else "engine, gateway or decision"
    raise Rejected(f"no {what} {name!r}{within} in {audit.where}: {nearest(name, known)}")
