"""`flyball receiver`: plays a controller to whatever receiver attaches, and says which rules of the contract it holds.

For whoever writes a receiver for another engine, in another language. Loopback only, and on no
engine that serves: the walk moves every knob within its bounds and leaves an invented version behind.
"""

import asyncio
import json

import click

from flyball_agents.contract.door import NothingCame, open_door
from flyball_agents.contract.examining import Patience
from flyball_agents.contract.walk import Result, Verdict, Walk, walk
from flyball_cli.operating.times import read_span
from flyball_core.errors import Rejected

SCHEMA = "flyball.receiver-check/1"
BROKEN = 1


@click.group()
def receiver() -> None:
    """For those who write receivers: docs/receiver.md's contract, tried out."""


@receiver.command()
@click.option("--listen", default="127.0.0.1:7460", show_default=True, metavar="HOST:PORT", help="On this machine.")
@click.option("--timeout", default="60s", show_default=True, help="Longest wait for what a receiver does of itself.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def check(*, listen: str, timeout: str, as_json: bool) -> int:
    """Walk the receiver that attaches through its contract, rule by rule; exit code 1 if it breaks one."""
    done = asyncio.run(_check(listen, read_span(timeout), as_json=as_json))
    if as_json:
        click.echo(json.dumps(document(done), indent=2))
    else:
        counted = ", ".join(f"{done.count(verdict)} {verdict.value}" for verdict in Verdict)
        click.echo(f"{done.attach.target} of {done.attach.pool}: {counted}")
    return BROKEN if done.count(Verdict.BROKEN) else 0


async def _check(listen: str, most_s: float, *, as_json: bool) -> Walk:
    door = await open_door(listen)
    try:
        click.echo(f"waiting on port {door.port} for a receiver to attach", err=True)
        return await walk(door, Patience(answer_s=min(10.0, most_s), move_s=most_s), _silent if as_json else _say)
    except NothingCame as error:
        raise Rejected(f"{listen}: {error}") from None
    finally:
        await door.close()


def document(done: Walk) -> dict[str, object]:
    """The walk as docs/commands.md shows it."""
    attach = done.attach
    return {
        "schema": SCHEMA,
        "pool": attach.pool,
        "kind": attach.kind.value,
        "target": attach.target,
        "incarnation": attach.incarnation,
        "knobs": [spec.name for spec in attach.knobs],
        **{verdict.value: done.count(verdict) for verdict in Verdict},
        "results": [
            {"rule": one.rule, "verdict": one.verdict.value, "claim": one.claim, "why": one.why} for one in done.results
        ],
        "wall_s": round(done.wall_s, 1),
    }


def _say(result: Result) -> None:
    click.echo(f"{result.rule:>4}  {result.verdict.value:<7}  {result.claim}")
    if result.why:
        click.echo(f"{'':15}{result.why}")


def _silent(result: Result) -> None:
    del result
