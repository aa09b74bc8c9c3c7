"""`flyball bench`: what this machine carries, measured here and now."""

import asyncio
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from flyball_cli.bench_spine import HOMES, measure_spine, spine_document
from flyball_cli.wording import aligned, seconds

AIM = 0.5


@click.group()
def bench() -> None:
    """Measure on this machine."""


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option("--seconds", "for_s", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Per home.")
@click.option(
    "--kafka",
    type=click.Choice(["auto", "off", "require"]),
    default="auto",
    show_default=True,
    help="Whether to measure on a Kafka broker of its own too; auto: if Java and the broker are to be had.",
)
def spine(*, as_json: bool, for_s: float, kafka: str) -> int:
    """Frames a second that can be read from the log, and that `step` can govern by."""
    document = spine_document(asyncio.run(measure_spine(for_s, kafka)))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(_lines(document)))
    return 0


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option(
    "--seconds", "for_s", type=click.FloatRange(min=1), default=10.0, show_default=True, help="Per run and size."
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=3, show_default=True, help="A figure is the median over so many."
)
def plane(*, as_json: bool, for_s: float, runs: int) -> int:
    """Milliseconds from a frame to the ack of what it changed, over real sockets; what agent and controller cost."""
    from flyball_cli.bench_plane import measure_plane
    from flyball_cli.bench_plane_report import plane_document, plane_lines

    load_before = os.getloadavg()[0]
    found = asyncio.run(measure_plane(for_s, runs, partial(click.echo, err=True)))
    document = plane_document(found, for_s, load_before)
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(plane_lines(document)))
    return 0


@bench.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
@click.option("--short", is_flag=True, help="Some seconds in all: figures of a first impression.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A trace to play instead of the bundled day; a week is played in full.",
)
def twin(*, as_json: bool, short: bool, trace: Path | None) -> int:
    """Requests a second that the simulation plays, bare and with control; what a week of a service takes."""
    from flyball_cli.bench_twin import FULL, SHORT, measure_twin, twin_document, twin_lines

    document = twin_document(asyncio.run(measure_twin(trace, SHORT if short else FULL, partial(click.echo, err=True))))
    click.echo(json.dumps(document, indent=2) if as_json else "\n".join(twin_lines(document)))
    return 0


def _lines(found: Mapping[str, Any]) -> list[str]:
    traffic, speeds = found["traffic"], found["frames_per_s"]
    rows: list[tuple[str, ...]] = [("", *HOMES)]
    for words, numbers, form in (
        ("frames/s, read bare", speeds["bare"], "{:,.0f}"),
        ("frames/s, stepped", speeds["step"], "{:,.0f}"),
        (f"stepped over bare (aim: {AIM})", found["step_over_bare"], "{:.2f}"),
        ("frames/s, read bare without presence", found["bare_without_presence"], "{:,.0f}"),
        ("stepped over that", found["step_over_bare_without_presence"], "{:.2f}"),
    ):
        rows.append((words, *(form.format(numbers[home]) if numbers[home] is not None else "-" for home in HOMES)))
    frames, ticks, engines = f"{traffic['frames']:,}", traffic["ticks"], traffic["engines"]
    size = f"{found['checkpoint_bytes'] / 1024:,.0f} KiB"
    return [
        f"{frames} frames of 8 GPUs and 8 engines, {ticks} ticks, {engines} engines in one pool",
        *aligned(rows),
        f"  restoring {engines} engines from a checkpoint: {seconds(found['restore_s'])}",
        f"  making a checkpoint: {seconds(found['checkpoint_s'])}, {size}",
        f"  memory of the state: {found['bytes_per_engine']:,} bytes per engine",
        *[f"note: {note}" for note in found["notes"]],
    ]
