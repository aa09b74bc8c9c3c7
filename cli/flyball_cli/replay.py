"""`flyball replay`: whether a log gives the same decisions again, and what another policy would have given.

It reads the log and changes nothing; nothing here can reach an engine. A damaged log is an
answer (exit code 1), a log that cannot be found or reached is bad input (2).
"""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flyball_cli.policy_comparison import comparison_document, comparison_lines
from flyball_cli.policy_file import read_policy
from flyball_cli.services_file import NamedLog, takes_log
from flyball_cli.wording import counted
from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.replay import Difference, ReplayReport, Verdict, replay_log
from flyball_controller.whatif import Comparison, compare_policies
from flyball_core.errors import LogCorrupt

SCHEMA = "flyball.replay/1"
EXIT_CODES = {Verdict.IDENTICAL: 0, Verdict.DIFFERENT: 1, Verdict.WITHIN_TOLERANCE: 3}
DAMAGED = 1


@click.command()
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with what this policy document would have decided.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@takes_log("[LOG]")
def replay(*, log: NamedLog, policy_file: Path | None, as_json: bool) -> int:
    """Step through LOG again (a folder, or kafka://HOST:PORT/PREFIX) and compare with what was recorded.

    Without LOG, the log that --config FILE names. Exit code: 0 identical, 1 different or damaged, 2 no such log, 3
    equal within a tolerance under another fingerprint. With --policy always 0: then there is nothing to be equal to.
    """
    text = None if policy_file is None else read_policy(policy_file)
    try:
        if policy_file is not None and text is not None:
            return _compare(log, policy_file, text, as_json=as_json)
        report = asyncio.run(_replay(log))
    except LogCorrupt as error:
        return _damaged(log.where, error, as_json=as_json)
    if as_json:
        click.echo(json.dumps(replay_document(log.where, report), indent=2))
    else:
        click.echo("\n".join(_replay_lines(report)))
    return EXIT_CODES[report.verdict]


async def _replay(named: NamedLog) -> ReplayReport:
    log = await named.open()
    try:
        return await replay_log(log, standard_seams, own_fingerprint())
    finally:
        await log.close()


def _compare(named: NamedLog, file: Path, text: str, *, as_json: bool) -> int:
    comparison = asyncio.run(_what_if(named, text))
    if as_json:
        click.echo(json.dumps(comparison_document(named.where, file, comparison), indent=2))
    else:
        click.echo("\n".join(comparison_lines(file, comparison)))
    return 0


async def _what_if(named: NamedLog, text: str) -> Comparison:
    log = await named.open()
    try:
        return await compare_policies(log, text, standard_seams)
    finally:
        await log.close()


def _damaged(where: str, error: LogCorrupt, *, as_json: bool) -> int:
    if as_json:
        found = {"where": error.where, "record": error.offset, "what": str(error)}
        click.echo(json.dumps({"schema": SCHEMA, "log": where, "verdict": "damaged", "damage": found}, indent=2))
    else:
        click.echo(f"damaged: {error}")
    return DAMAGED


def replay_document(where: str, report: ReplayReport) -> dict[str, Any]:
    """The JSON document of a replay."""
    return {
        "schema": SCHEMA,
        "log": where,
        "verdict": report.verdict.value.replace(" ", "_"),
        "inputs": report.inputs,
        "ticks": report.ticks,
        "records": report.records,
        "directives": report.directives,
        "duplicates": report.duplicates,
        "unpublished": report.unpublished,
        "fingerprints": report.fingerprints,
        "notes": report.notes,
        "differences": [{**asdict(one), "inputs": list(one.inputs)} for one in report.differences],
    }


def _replay_lines(report: ReplayReport) -> list[str]:
    lines = []
    if not report.inputs:
        lines.append("identical: the log holds no inputs, so there was nothing to compare")
    elif report.verdict is Verdict.IDENTICAL:
        lines.append(f"identical: {_compared(report)}")
    elif report.verdict is Verdict.WITHIN_TOLERANCE:
        lines.append(f"within tolerance, recorded under another fingerprint: {_compared(report)}")
    else:
        lines.extend(_difference_lines(report.differences[0]))
        if len(report.differences) > 1:
            lines.append(f"{counted(len(report.differences) - 1, 'further difference')}; --json lists them")
        stepped, agreed = counted(report.inputs, "input"), counted(report.records, "record")
        lines.append(f"stepped {stepped}; {agreed} agree before that")
    lines.extend(f"fingerprint: {line}" for line in report.fingerprints)
    if report.duplicates:
        lines.append(f"note: {counted(report.duplicates, 'record')} published more than once, which is harmless")
    if report.unpublished:
        lines.append(f"note: {counted(report.unpublished, 'record')} decided but not published before an owner ended")
    lines.extend(f"note: {note}" for note in report.notes)
    return lines


def _compared(report: ReplayReport) -> str:
    return (
        f"{counted(report.inputs, 'input')}, {counted(report.ticks, 'tick')}, {counted(report.records, 'record')}"
        f" and {counted(report.directives, 'directive key')} agree"
    )


def _difference_lines(found: Difference) -> list[str]:
    first, last = found.inputs
    where = f"input {first}" if first == last else f"inputs {first} to {last}"
    return [
        f"different: {found.where}",
        f"  look at   {where} of partition {found.partition}: all before agree",
        f"  what      {found.what}",
        f"  recorded  {found.recorded}",
        f"  came out  {found.replayed}",
    ]
