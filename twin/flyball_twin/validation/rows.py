"""The rows of a measured table, one at a time, with the place of whatever is wrong in one.

It refuses to repair: a cell is what the reader asks for, or an error that names file, row and column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from flyball_core.errors import InvalidDocument
from flyball_twin.traffic.files import open_parquet


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `number` counts from 1."""

    cells: Mapping[str, Any]
    number: int
    path: Path

    def real(self, name: str, *, least: float = -float("inf")) -> float:
        """A finite number of at least `least`. Raises `InvalidDocument` for anything else."""
        value = self.cells[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            raise self.problem(f"{name} is {value!r}, not a number")
        if value < least:
            raise self.problem(f"{name} is {value!r}, below {least:g}")
        return float(value)

    def count(self, name: str, *, least: int = 0) -> int:
        """A whole number of at least `least`. Raises `InvalidDocument` for anything else."""
        value = self.real(name, least=least)
        if value != int(value):
            raise self.problem(f"{name} is {value!r}, not a whole number")
        return int(value)

    def name(self, name: str) -> str:
        """A text that is not empty. Raises `InvalidDocument` for anything else."""
        value = self.cells[name]
        if not isinstance(value, str) or not value:
            raise self.problem(f"{name} is {value!r}, not a name")
        return value

    def problem(self, text: str, hint: str = "") -> InvalidDocument:
        """The error that says what is wrong with this row."""
        return InvalidDocument(text, file=str(self.path), line=self.number, hint=hint)


def rows_of(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a Parquet file that has at least these columns, with the `optional` ones that it has.

    Raises `Rejected` for a file that cannot be read.
    """
    number = 0
    file = open_parquet(path, columns)
    wanted = [*columns, *(name for name in optional if name in file.schema_arrow.names)]
    for batch in file.iter_batches(columns=wanted):
        for cells in batch.to_pylist():
            number += 1
            yield Row(cells, number, path)


def columns_of(path: Path) -> frozenset[str]:
    """The columns that a Parquet file has. Raises `Rejected` for a file that cannot be read."""
    return frozenset(open_parquet(path, ()).schema_arrow.names)
