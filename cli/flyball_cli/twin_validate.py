"""`flyball twin validate`: how far the twin is from what others measured on real GPUs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flyball_core.errors import Rejected

if TYPE_CHECKING:
    from rich.console import RenderableType

    from flyball_twin.validation.report import Report
    from flyball_twin.validation.seam import Grid

WIDE = 160
"""Columns of tables that go to a file or a pipe, so that none is cut."""


@click.command()
@click.argument(
    "tables",
    nargs=-1,
    metavar="TABLE...",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option("--long-context", is_flag=True, help="Serve the long-context collapse too; it needs no table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for pictures.",
)
def validate(*, tables: tuple[Path, ...], long_context: bool, as_json: bool, out: Path | None) -> int:
    """Hold the twin against measured tables (Parquet), each recognised by its columns.

    They may be end-to-end rows, request logs with telemetry, fleet logs, or Splitwise's. What cannot be compared is
    left out and counted. Exit code: 0 with a report, however far off the twin is; 2 for bad input.
    """
    from flyball_twin.validation.long_context_section import NAME, long_context_section
    from flyball_twin.validation.report import validate as validated

    if not tables and not long_context:
        raise Rejected("name a TABLE, or give --long-context")
    report = validated(tables, out)
    built_in = [long_context_section(out)] if long_context else []
    report = replace(report, kinds=[*report.kinds, NAME], sections=[*report.sections, *built_in])
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        _show(report)
    return 0


def _show(report: "Report") -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = WIDE
    for file in report.files:
        console.print(f"{file.path}: {file.kind}, {file.rows:,} rows", markup=False)
    for section in report.sections:
        for grid in section.grids:
            console.print()
            console.print(_drawn(grid))
        if section.left_out:
            reasons = sorted(section.left_out.items(), key=lambda item: -item[1])
            console.print(f"left out: {', '.join(f'{reason} {count:,}' for reason, count in reasons)}", markup=False)
        for note in section.notes:
            console.print(note, markup=False)


def _drawn(grid: "Grid") -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(grid.title), title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(grid.heads):
        table.add_column(Text(head), justify="right" if place else "left", no_wrap=True)
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
