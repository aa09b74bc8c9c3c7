"""`flyball config`: checks a configuration file, explains its keys, and writes one to begin with.

Starts nothing and changes nothing.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from textwrap import wrap
from typing import Any

import click

from flyball_cli.certificate_checks import Fault
from flyball_cli.config_checks import check_file, services_in
from flyball_cli.config_example import KINDS, example, written
from flyball_cli.wording import counted, nearest
from flyball_core.errors import Rejected
from flyball_service.config import Config
from flyball_service.keys import Key, walk
from flyball_service.reading import spell_duration

CHECK_SCHEMA = "flyball.config-check/1"
EXPLAIN_SCHEMA = "flyball.config-explain/1"
FOUND_FAULTS = 1
_WIDTH = 100


@click.group()
def config() -> None:
    """Check, explain or begin a configuration file."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def check(*, file: Path, as_json: bool) -> int:
    """Say what is wrong with FILE and with the files that it names; exit code 1 if anything is."""
    found, faults = check_file(file, datetime.now(UTC))
    services = [] if found is None else [{"role": one.role, "name": one.name} for one in services_in(found)]
    if as_json:
        document = {
            "schema": CHECK_SCHEMA,
            "file": str(file),
            "ok": not faults,
            "services": services,
            "faults": [_fault(one) for one in faults],
        }
        click.echo(json.dumps(document, indent=2))
    elif faults:
        click.echo("\n".join(_fault_line(file, one) for one in faults))
    else:
        named = ", ".join(f"{one['role']} {one['name']}" for one in services)
        click.echo(f"{file}: nothing is wrong with it; {counted(len(services), 'service')}: {named}")
    return FOUND_FAULTS if faults else 0


@config.command()
@click.argument("key", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def explain(*, key: str | None, as_json: bool) -> int:
    """Say what every key is for, or KEY (`controller.tick`) and what is below it."""
    found = _below(key)
    if as_json:
        listed = [_explained(path, one) for path, one in found]
        click.echo(json.dumps({"schema": EXPLAIN_SCHEMA, "keys": listed}, indent=2))
    else:
        click.echo("\n".join(line for path, one in found for line in _explained_lines(path, one)))
    return 0


@config.command("example")
@click.argument("kind", type=click.Choice(KINDS), default="up")
def example_command(*, kind: str) -> int:
    """Print a complete, commented file for one service, or for all of them in one process (`up`)."""
    click.echo(example(kind), nl=False)
    return 0


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "key": fault.key or None,
        "line": fault.line,
        "column": fault.column,
        "problem": fault.problem,
        "remedy": fault.remedy,
    }


def _fault_line(file: Path, fault: Fault) -> str:
    where = f"{file}:{fault.line}:{fault.column}" if fault.line is not None else f"{file}: {fault.key}"
    return f"{where}: {fault.problem}" + (f" ({fault.remedy})" if fault.remedy else "")


def _below(key: str | None) -> list[tuple[str, Key]]:
    """The keys at and below `key`, or all; `[]` need not be written."""
    known = list(walk(Config))
    if key is None:
        return known
    bare = key.replace("[]", "")
    found = [(path, one) for path, one in known if f"{path.replace('[]', '')}.".startswith(f"{bare}.")]
    if not found:
        raise Rejected(f"there is no key {key!r}: {nearest(bare, [path.replace('[]', '') for path, _ in known])}")
    return found


def _explained(path: str, key: Key) -> dict[str, Any]:
    least, most = key.limits or (None, None)
    if key.duration and least is not None and most is not None:
        limits: tuple[Any, Any] = (spell_duration(least), spell_duration(most))
    else:
        limits = (least, most)
    return {
        "key": path,
        "type": key.wanted,
        "required": key.required,
        "default": None if key.required else written(key, key.default),
        "least": limits[0],
        "most": limits[1],
        "doc": key.doc,
    }


def _explained_lines(path: str, key: Key) -> list[str]:
    said = _explained(path, key)
    limits = f", {said['least']} to {said['most']}" if said["least"] is not None else ""
    default = said["default"]
    must = "; must be given" if key.required else ""
    has = "" if key.required or default in (None, "", [], {}) else f"; default {_short(default)}"
    body = wrap(key.doc, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return [f"{path}: {key.wanted}{limits}{must}{has}", *body]


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
