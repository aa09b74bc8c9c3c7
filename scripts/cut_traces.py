"""Cut the bundled traces out of the developer set, byte for byte the same each time.

Run as `python scripts/cut_traces.py [FOLDER]`, where FOLDER holds the Parquet files of the
developer set (default: `../shared/data/traces` beside the repository). It needs pyarrow, and
writes into `twin/flyball_twin/data/`. What is cut:

* `azure2023_conv_h1.csv.gz`: all of that file. Arrivals are rounded to 0.1 ms.
* `mooncake_conversation.csv.gz`: arrivals from 0 s up to 900 s. The publisher stamped
  arrivals in batches about 3 s apart; each batch of n is spread evenly over the time to the
  next batch, in the file's order (arrival = start + gap * i / n). Nothing is drawn at random.

Only arrival, prompt and output lengths are kept. The script refuses rows out of order or
without tokens rather than mending them.
"""

import csv
import gzip
import io
import sys
from itertools import groupby, pairwise
from pathlib import Path

import pyarrow.parquet as pq

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = REPOSITORY / "twin" / "flyball_twin" / "data"
MOONCAKE_S = 900.0

Row = tuple[float, int, int]


def read(path: Path) -> list[Row]:
    """Arrival, prompt and output of every row. Raises SystemExit with one line if they make no sense."""
    if not path.is_file():
        raise SystemExit(f"no trace at {path}")
    table = pq.read_table(path, columns=["arrival_s", "prompt_tokens", "output_tokens"])
    columns = (table[name].to_pylist() for name in table.column_names)
    rows: list[Row] = []
    for arrival, prompt, output in zip(*columns, strict=True):
        if arrival is None or prompt is None or output is None:
            raise SystemExit(f"{path}: a row with holes")
        rows.append((float(arrival), int(prompt), int(output)))
    if any(later[0] < earlier[0] for earlier, later in pairwise(rows)):
        raise SystemExit(f"{path}: arrivals are out of order")
    if any(prompt < 1 or output < 1 for _, prompt, output in rows):
        raise SystemExit(f"{path}: a request without tokens")
    return rows


def spread(rows: list[Row], until_s: float) -> list[Row]:
    """Rows before `until_s`, each batch of equal arrivals spread evenly up to the next batch."""
    batches = [(arrival, list(batch)) for arrival, batch in groupby(rows, key=lambda row: row[0])]
    out: list[Row] = []
    for (start, batch), (following, _) in pairwise(batches):
        if start >= until_s:
            break
        gap = (following - start) / len(batch)
        out += [(start + gap * i, prompt, output) for i, (_, prompt, output) in enumerate(batch)]
    return [row for row in out if row[0] < until_s]


def write(name: str, rows: list[Row]) -> None:
    """Gzip with neither time nor name in its header, so that the same rows give the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arrival_s", "prompt_tokens", "output_tokens"])
    writer.writerows([f"{arrival:.4f}", prompt, output] for arrival, prompt, output in rows)
    path = TARGET / f"{name}.csv.gz"
    path.write_bytes(gzip.compress(text.getvalue().encode("ascii"), compresslevel=9, mtime=0))
    print(f"{path.relative_to(REPOSITORY)}: {len(rows)} requests, {path.stat().st_size} bytes")


def main() -> None:
    """Cut both traces."""
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY.parent / "shared" / "data" / "traces"
    TARGET.mkdir(parents=True, exist_ok=True)
    write("azure2023_conv_h1", read(source / "azure2023_conv_h1.parquet"))
    write("mooncake_conversation", spread(read(source / "mooncake_conversation.parquet"), MOONCAKE_S))


if __name__ == "__main__":
    main()
