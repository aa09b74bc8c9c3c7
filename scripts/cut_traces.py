"""Cut the bundled traces out of the developer set, byte for byte the same each time.

Run as `python scripts/cut_traces.py [FOLDER [TARGET]]`, where FOLDER holds the Parquet files
of the developer set (default: `../shared/data/traces` beside the repository). It needs
pyarrow, and writes into TARGET (default: `twin/flyball_twin/data/`). What is cut:

* `azure2023_conv_h1.csv.gz`, `azure2023_code_h1.csv.gz`: all of those files. Arrivals are
  rounded to 0.1 ms.
* `mooncake_conversation.csv.gz`: arrivals from 0 s up to 900 s. The publisher stamped
  arrivals in batches about 3 s apart; each batch of n is spread evenly over the time to the
  next batch, in the file's order (arrival = start + gap * i / n). Nothing is drawn at random.
  Prefix hashes are written as runs of numbers (`0-12 40`).
* `servegen_mlarge_day.csv.gz`: the first day, every eighth request of it, arrivals rounded to
  0.1 s. Played 24 times as fast it is a day in an hour at 3 times the file's own rate.
* `claude_code_sessions.csv.gz`: 25 sessions, the first of each `dup_group` in the file's
  order that have 8 to 100 requests, none beyond 120,000 tokens with its answer, none without
  one.

Only arrival, prompt and output lengths are kept, of the sessions what makes them a chain.
The script refuses rows out of order or without tokens rather than mending them.
"""

import csv
import gzip
import io
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "twin" / "flyball_twin" / "data"
MOONCAKE_S = 900.0
DAY_S = 86_400.0
DAY_EVERY = 8
SESSIONS = 25
SESSION_STEPS = range(8, 101)
SESSION_TOKENS = 120_000
LENGTHS = ["arrival_s", "prompt_tokens", "output_tokens"]
CHAIN = [
    "session_id",
    "turn",
    "arrival_s",
    "prompt_tokens",
    "output_tokens",
    "cached_prefix_tokens",
    "api_time_s",
    "think_time_s",
    "tool_system_tokens",
    "dup_group",
]

Row = tuple[float, int, int, str]
"""Arrival, prompt and output tokens, and the runs of its prefix."""


def read(path: Path, *, prefixes: bool = False) -> list[Row]:
    """Arrival, prompt, output and perhaps prefix of every row. Raises SystemExit if they make no sense."""
    table = pq.read_table(_there(path), columns=[*LENGTHS, *(["prefix_hashes"] if prefixes else [])])
    columns = [table[name].to_pylist() for name in table.column_names]
    if not prefixes:
        columns.append([[]] * table.num_rows)
    rows: list[Row] = []
    for arrival, prompt, output, names in zip(*columns, strict=True):
        if arrival is None or prompt is None or output is None:
            raise SystemExit(f"{path}: a row with holes")
        rows.append((float(arrival), int(prompt), int(output), runs(names or [])))
    if any(later[0] < earlier[0] for earlier, later in pairwise(rows)):
        raise SystemExit(f"{path}: arrivals are out of order")
    if any(row[1] < 1 or row[2] < 1 for row in rows):
        raise SystemExit(f"{path}: a request without tokens")
    return rows


def runs(names: Iterable[int]) -> str:
    """Numbers in their order, each run of them that counts up by one as `FIRST-LAST`."""
    found: list[list[int]] = []
    for name in names:
        if found and found[-1][1] + 1 == name:
            found[-1][1] = name
        else:
            found.append([name, name])
    return " ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def spread(rows: list[Row], until_s: float) -> list[Row]:
    """Rows before `until_s`, each batch of equal arrivals spread evenly up to the next batch."""
    batches = [(arrival, list(batch)) for arrival, batch in groupby(rows, key=lambda row: row[0])]
    out: list[Row] = []
    for (start, batch), (following, _) in pairwise(batches):
        if start >= until_s:
            break
        gap = (following - start) / len(batch)
        out += [(start + gap * i, *row[1:]) for i, row in enumerate(batch)]
    return [row for row in out if row[0] < until_s]


def sessions(path: Path) -> list[dict[str, Any]]:
    """The rows of the sessions that are kept. Raises SystemExit if there are too few."""
    kept: list[dict[str, Any]] = []
    groups: set[str] = set()
    for _, rows in groupby(pq.read_table(_there(path), columns=CHAIN).to_pylist(), key=lambda row: row["session_id"]):
        steps = list(rows)
        group = steps[0]["dup_group"]
        fits = all(0 < row["output_tokens"] <= SESSION_TOKENS - row["prompt_tokens"] for row in steps)
        if group not in groups and len(steps) in SESSION_STEPS and fits and len(groups) < SESSIONS:
            groups.add(group)
            kept += steps
    if len(groups) < SESSIONS:
        raise SystemExit(f"{path}: only {len(groups)} sessions fit")
    return kept


def write(target: Path, name: str, rows: list[Row], digits: int = 4) -> None:
    """A trace; prefixes where any row has one."""
    prefixes = any(row[3] for row in rows)
    header = [*LENGTHS, "prefix_hashes"] if prefixes else LENGTHS
    _write(target / f"{name}.csv.gz", header, [[f"{row[0]:.{digits}f}", *row[1 : len(header)]] for row in rows])


def write_sessions(target: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Recorded sessions: a hole is an empty cell, a time has no more digits than it was given."""
    cells = [["" if row[column] is None else _plain(row[column]) for column in CHAIN] for row in rows]
    _write(target / f"{name}.csv.gz", CHAIN, cells)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a cell of any column
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def _write(path: Path, header: list[str], rows: Sequence[Sequence[object]]) -> None:
    """Gzip with neither time nor name in its header, so that the same rows give the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode("ascii"), compresslevel=9, mtime=0))
    print(f"{path.name}: {len(rows)} requests, {path.stat().st_size} bytes")


def _there(path: Path) -> Path:
    if not path.is_file():
        raise SystemExit(f"no trace at {path}")
    return path


def main() -> None:
    """Cut all of them."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY.parent / "shared" / "data" / "traces"
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else TARGET
    for name in ("azure2023_conv_h1", "azure2023_code_h1"):
        write(target, name, read(source / f"{name}.parquet"))
    long = read(source / "mooncake_conversation.parquet", prefixes=True)
    write(target, "mooncake_conversation", spread(long, MOONCAKE_S))
    week = read(source / "servegen_mlarge_week1_resampled.parquet")
    write(target, "servegen_mlarge_day", [row for row in week if row[0] < DAY_S][::DAY_EVERY], digits=1)
    write_sessions(target, "claude_code_sessions", sessions(source / "claude_code_agentic_sessions.parquet"))


if __name__ == "__main__":
    main()
