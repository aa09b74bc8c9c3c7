"""`flyball twin check`: whether scenarios are sound, and what they ask of their engines, without running them."""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from flyball_cli.wording import counted
from flyball_core.errors import InvalidDocument, Rejected

if TYPE_CHECKING:
    from flyball_twin.scenario.estimate import PoolEstimate
    from flyball_twin.scenario.model import Scenario

SCHEMA = "flyball.twin-check/1"
FOUND_MISTAKES = 1


@dataclass(slots=True)
class Checked:
    """What was found of one scenario."""

    file: str
    scenario: "Scenario | None" = None
    pools: "tuple[PoolEstimate, ...]" = ()
    notes: tuple[str, ...] = ()
    mistakes: list[Rejected] = field(default_factory=list)


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def check(*, files: tuple[str, ...], as_json: bool) -> int:
    """Say what is wrong with scenarios, files or names of the library, or else what they ask of their engines.

    Exit code: 0 all are sound, 1 one is not (each mistake with line, column and what would be right), 2 no such file.
    """
    found = [_check(file) for file in files]
    ok = not any(one.mistakes for one in found)
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "ok": ok, "scenarios": [_document(one) for one in found]}, indent=2))
    else:
        click.echo("\n".join(line for one in found for line in _lines(one)))
    return 0 if ok else FOUND_MISTAKES


def _check(file: str) -> Checked:
    """Everything that can be said of one. Raises `Rejected` if there is no such file."""
    from flyball_twin.scenario.estimate import estimate, notes
    from flyball_twin.scenario.library import find_scenario
    from flyball_twin.scenario.reading import InvalidScenario, read_scenario

    path = find_scenario(file)
    found = Checked(file=str(path))
    try:
        found.scenario = read_scenario(path)
        found.pools, found.notes = estimate(found.scenario), notes(found.scenario)
    except InvalidScenario as error:
        found.mistakes += error.faults
    except Rejected as error:
        # What a trace says, or whether a model fits its GPUs, comes out only when they are built.
        if found.scenario is None:
            raise
        found.mistakes.append(error)
    return found


def _document(found: Checked) -> dict[str, Any]:
    scenario = found.scenario
    return {
        "file": found.file,
        "ok": not found.mistakes,
        "mistakes": [_mistake(one) for one in found.mistakes],
        "name": None if scenario is None else scenario.name,
        "title": None if scenario is None else scenario.title,
        "duration_s": None if scenario is None else scenario.duration_s,
        "seeds": [] if scenario is None else list(scenario.seeds),
        "pools": [
            {
                "pool": one.pool,
                "engines": one.engines,
                "gpus": one.gpus,
                "kv_tokens": one.kv_tokens,
                "longest_tokens": one.longest_tokens,
                "requests": one.requests,
                "too_long": one.too_long,
                "prompt_tokens_per_s": one.prompt_tokens_per_s,
                "output_tokens_per_s": one.output_tokens_per_s,
                "shared_ratio": one.shared,
                "load_ratio": one.load,
            }
            for one in found.pools
        ],
        "notes": list(found.notes),
    }


def _mistake(error: Rejected) -> dict[str, Any]:
    if not isinstance(error, InvalidDocument):
        return {"file": None, "line": None, "column": None, "problem": str(error), "remedy": ""}
    return {
        "file": error.file,
        "line": error.line,
        "column": error.column,
        "problem": error.problem,
        "remedy": error.hint,
    }


def _lines(found: Checked) -> list[str]:
    scenario = found.scenario
    if scenario is None or found.mistakes:
        return [str(one) if isinstance(one, InvalidDocument) else f"{found.file}: {one}" for one in found.mistakes]
    lines = [f"{found.file}: sound; {scenario.title}"]
    for one in found.pools:
        lines += _pool_lines(one, scenario.duration_s / 60.0)
    return [*lines, *(f"  note: {note}" for note in found.notes)]


def _pool_lines(one: "PoolEstimate", minutes: float) -> list[str]:
    engines, gpus = counted(one.engines, "engine"), counted(one.gpus, "GPU")
    shared = f" ({one.shared:.0%} of it shared)" if one.shared else ""
    asked = f"{one.prompt_tokens_per_s:,.0f} prompt{shared} and {one.output_tokens_per_s:,.0f} output tokens/s"
    lines = [
        f"  pool {one.pool}: {engines} on {gpus}, {one.kv_tokens:,} tokens of KV cache",
        f"    {one.requests:,} requests in {minutes:g} min: {asked}, some {one.load:.0%} of what it can do",
    ]
    if one.too_long:
        lines.append(f"    {one.too_long:,} of them are longer than the {one.longest_tokens:,} tokens that fit")
    return lines
