"""`flyball twin calibrate`: measured kernel times of a GPU into a kernel file that the twin's engines run by."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from flyball_twin.physics.calibration import Calibrated

SCHEMA = "flyball.twin-calibrate/1"

_TABLE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--name", required=True, metavar="NAME", help="Short name of the GPU, such as h100_sxm.")
@click.option("--datasheet", type=_TABLE, help="Its datasheet, YAML; may be left out for a GPU the twin knows.")
@click.option("--gemm", type=_TABLE, multiple=True, help="Times of GEMMs.")
@click.option("--context-attention", type=_TABLE, multiple=True, help="Times of attention in prefill.")
@click.option("--generation-attention", type=_TABLE, multiple=True, help="Times of attention in decode.")
@click.option("--all-reduce", type=_TABLE, multiple=True, help="Times of all-reduce.")
@click.option("-o", "--out", type=_TABLE, required=True, help="The kernel file to write (.npz).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document (docs/commands.md) and nothing else.")
def calibrate(*, name: str, datasheet: Path | None, out: Path, as_json: bool, **tables: tuple[Path, ...]) -> int:
    """Make a kernel file of your own measurements, in aiconfigurator's columns (Parquet or CSV).

    Says of each table how many rows were used, what of its grid is missing, and how far points that are left out are
    from what the others say of them. A scenario's engine then has `gpu: FILE`. Exit code: 0, or 2 for bad input.
    """
    from flyball_twin.physics.calibration import calibrated

    found = calibrated(name, datasheet, {kind: files for kind, files in tables.items() if files}, out)
    click.echo(json.dumps(_document(found), indent=2) if as_json else "\n".join(_lines(found)))
    return 0


def _document(found: "Calibrated") -> Mapping[str, Any]:
    return {
        "schema": SCHEMA,
        "gpu": found.gpu.key,
        "file": str(found.file),
        "file_bytes": found.file_bytes,
        "tables": [
            {
                "part": notes.part,
                "rows": notes.rows,
                "used": notes.used,
                "grids": notes.grids,
                "missing": notes.missing,
                "left_out": [{"why": why, "rows": count} for why, count in notes.left_out.items()],
            }
            for notes in found.notes
        ],
        "held_out": [asdict(one) for one in found.held_out],
        "assumed": list(found.assumed),
    }


def _lines(found: "Calibrated") -> list[str]:
    lines = [f"{found.file}: {found.gpu.name}, {found.file_bytes:,} bytes"]
    for notes in found.notes:
        lines.append(f"{notes.part}: {notes.used:,} of {notes.rows:,} rows")
        lines += [f"  grid {grid}" for grid in notes.grids]
        lines += [f"  not measured: {missing}" for missing in notes.missing]
        lines += [f"  left out, {why}: {count:,}" for why, count in notes.left_out.items()]
    if found.held_out:
        lines.append("left out and predicted from the others, off by")
        lines += [
            f"  {one.median_ape:5.1f} % at half, {one.p90_ape:5.1f} % at 90 %: {one.what}" for one in found.held_out
        ]
    lines += [f"assumed: {what}" for what in found.assumed]
    return lines
