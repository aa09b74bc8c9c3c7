"""What scripts/cut_traces.py uses of pyarrow.parquet."""

from pathlib import Path

from pyarrow import Table

def read_table(source: Path, columns: list[str] | None = ...) -> Table: ...
