"""Recorded requests with a fleet's clock, read in groups so that a long trace needs no more memory than a short one.

The columns are those of the developer set: `arrival_s`, `prompt_tokens`, `output_tokens`, and where a source has them
`session_id`, `turn` and `prefix_hashes`; others are let be. A Parquet file is held one row group at a time, a CSV file
as a whole (16 bytes a request). Refuses to mend: a row that makes no sense is an error with file, row and column.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.traffic.files import csv_rows, open_parquet, reading

if TYPE_CHECKING:
    from pyarrow import Table

NEEDED = ("arrival_s", "prompt_tokens", "output_tokens")
OPTIONAL = ("session_id", "turn", "prefix_hashes")
MOST_TOKENS = 10_000_000
"""Longest prompt or answer taken, as in a scenario."""
CHUNK = 4096
"""Rows that become Python numbers at once."""

Row = tuple[float, int, int, str, int, tuple[int, ...]]
"""Arrival on the trace's clock, prompt and output tokens, session (empty: none), turn, names of the prefix's blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Some rows of a trace, in order of arrival."""

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    session: Sequence[str | None] | None
    turn: Sequence[int | None] | None
    prefix: Callable[[int], tuple[int, ...]] | None

    def between(self, from_s: float, to_s: float) -> Iterator[Row]:
        """Those that arrive from `from_s` up to but without `to_s`."""
        low, high = (int(at) for at in np.searchsorted(self.arrival_s, (from_s, to_s)))
        for start in range(low, high, CHUNK):
            end = min(start + CHUNK, high)
            columns = (self.arrival_s, self.prompt_tokens, self.output_tokens)
            for at, (arrival, prompt, output) in enumerate(
                zip(*(column[start:end].tolist() for column in columns), strict=True), start=start
            ):
                session = (self.session[at] or "") if self.session is not None else ""
                turn = (self.turn[at] or 0) if self.turn is not None else 0
                yield arrival, prompt, output, session, turn, self.prefix(at) if self.prefix is not None else ()


class _Groups(Protocol):
    """A file that gives its rows in groups."""

    def spans(self) -> Iterator[tuple[float, float, int]]:
        """First and last arrival of each group, and how many rows it has."""
        ...

    def read(self, index: int) -> Rows:
        """One group."""
        ...


class Trace:
    """A trace, found to be in order; its rows are read where they are asked for."""

    def __init__(self, path: Path, groups: _Groups) -> None:
        """Raises as `open_trace` does."""
        self.path = path
        self._groups = groups
        self._spans = tuple(groups.spans())
        self.requests = sum(span[2] for span in self._spans)
        if not self.requests:
            raise Rejected(f"trace {path} has no requests")
        self._held: tuple[int, Rows] | None = None

    @property
    def last_s(self) -> float:
        """When its last request arrives."""
        return self._spans[-1][1]

    @property
    def end_s(self) -> float:
        """Where the next request would be, were it repeated: a mean gap after the last."""
        first_s, last_s = self._spans[0][0], self.last_s
        return last_s + max((last_s - first_s) / max(self.requests - 1, 1), 1e-3)

    def between(self, from_s: float, to_s: float) -> Iterator[Row]:
        """The rows that arrive from `from_s` up to but without `to_s`."""
        for index, (first_s, last_s, _) in enumerate(self._spans):
            if first_s < to_s and last_s >= from_s:
                yield from self._read(index).between(from_s, to_s)

    def _read(self, index: int) -> Rows:
        if self._held is None or self._held[0] != index:
            self._held = (index, self._groups.read(index))
        return self._held[1]


def open_trace(path: Path) -> Trace:
    """The trace in a file.

    Raises `Rejected` for a file that is missing, damaged or empty, and, with file, row and column, for a row without
    arrival or tokens or out of order; `InvalidDocument` with its line if the file is CSV.
    """
    try:
        stamp = path.stat()
    except OSError as error:
        raise Rejected(f"trace {path.name} is missing: {error.strerror or error}: {path}") from None
    return _open(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _open(path: Path, _mtime_ns: int, _size: int) -> Trace:
    return Trace(path, _ParquetGroups(path) if path.suffix == ".parquet" else _CsvGroup(path))


class _ParquetGroups:
    """A Parquet file; its groups are its row groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_parquet(path, NEEDED)
        schema = self._file.schema_arrow
        self._columns = [name for name in (*NEEDED, *OPTIONAL) if name in schema.names]
        for name in self._columns:
            pattern, right = _TYPES.get(name, ("", ""))
            if not re.match(pattern, held := str(schema.field(name).type)):
                raise Rejected(f"{path}: column {name} holds {held}; {right}")
        self._first_row: list[int] = []

    def spans(self) -> Iterator[tuple[float, float, int]]:
        row, before_s = 0, 0.0
        for index in range(self._file.num_row_groups):
            arrivals = self._numbers(self._group(index, ["arrival_s"]), "arrival_s", row)
            self._first_row.append(row)
            if len(arrivals):
                gaps = np.diff(arrivals, prepend=before_s)
                self._refuse(~(np.isfinite(arrivals) & (gaps >= 0.0)), "arrival_s", arrivals, row)
                before_s = float(arrivals[-1])
            yield (float(arrivals[0]) if len(arrivals) else before_s), before_s, len(arrivals)
            row += len(arrivals)

    def read(self, index: int) -> Rows:
        table, row = self._group(index, self._columns), self._first_row[index]
        tokens = [self._numbers(table, name, row) for name in NEEDED[1:]]
        for name, column in zip(NEEDED[1:], tokens, strict=True):
            self._refuse(~((column >= 1) & (column <= MOST_TOKENS) & (column == np.floor(column))), name, column, row)
        return Rows(
            arrival_s=self._numbers(table, "arrival_s", row).astype(np.float64),
            prompt_tokens=tokens[0].astype(np.int64),
            output_tokens=tokens[1].astype(np.int64),
            session=self._listed(table, "session_id"),
            turn=self._listed(table, "turn"),
            prefix=self._prefixes(table, row) if self._has(table, "prefix_hashes") else None,
        )

    def _group(self, index: int, columns: list[str]) -> "Table":
        with reading(self._path):
            return self._file.read_row_group(index, columns=columns)

    def _numbers(self, table: "Table", name: str, row: int) -> NDArray[Any]:
        column = table[name]
        if column.null_count:
            hole = next(at for at, value in enumerate(column.to_pylist()) if value is None)
            raise Rejected(f"{self._path}: row {row + hole + 1}, column {name}: a hole; {_RIGHT[name]}")
        numbers = column.to_numpy()
        if numbers.dtype.kind not in "iuf":
            raise Rejected(f"{self._path}: column {name} holds {numbers.dtype}; {_RIGHT[name]}")
        return numbers

    def _refuse(self, wrong: NDArray[np.bool_], name: str, column: NDArray[Any], row: int) -> None:
        if wrong.any():
            at = int(wrong.argmax())
            raise Rejected(f"{self._path}: row {row + at + 1}, column {name}: {column[at]}; {_RIGHT[name]}")

    def _has(self, table: "Table", name: str) -> bool:
        return name in self._columns and table[name].null_count < table.num_rows

    def _listed(self, table: "Table", name: str) -> list[Any] | None:
        return table[name].to_pylist() if self._has(table, name) else None

    def _prefixes(self, table: "Table", row: int) -> Callable[[int], tuple[int, ...]]:
        """The names of a row's blocks, kept as the file has them: one array for all."""
        column = table["prefix_hashes"].combine_chunks()
        if column.values.null_count:
            hole = next(at for at, names in enumerate(table["prefix_hashes"].to_pylist()) if names and None in names)
            raise Rejected(f"{self._path}: row {row + hole + 1}, column prefix_hashes: a hole between names")
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()

        def of(at: int) -> tuple[int, ...]:
            return tuple(values[offsets[at] : offsets[at + 1]].tolist())

        return of


_RIGHT = {
    "arrival_s": "arrivals are seconds from 0 on, none before the one above it",
    "prompt_tokens": f"a request has 1 to {MOST_TOKENS:,}, a whole number",
    "output_tokens": f"a request has 1 to {MOST_TOKENS:,}, a whole number",
}
_TYPES = {
    "session_id": (r"(large_)?string|dictionary<values=(large_)?string|null", "names are texts"),
    "turn": (r"u?int\d|null", "turns are whole numbers"),
    "prefix_hashes": (r"(large_)?list<\w+: u?int\d|null", "names of blocks are lists of whole numbers"),
}
"""Patterns of Arrow types that the optional columns may have."""


class _CsvGroup:
    """A CSV file, which is one group."""

    def __init__(self, path: Path) -> None:
        arrivals: list[float] = []
        tokens: list[tuple[int, int]] = []
        sessions: list[str | None] = []
        turns: list[int | None] = []
        prefixes: list[tuple[int, ...]] = []
        for line, cells in csv_rows(path, NEEDED):
            arrival, prompt, output = read_cells(cells, path, line)
            if arrivals and arrival < arrivals[-1]:
                raise InvalidDocument("arrives before the row above it", file=str(path), line=line)
            arrivals.append(arrival)
            tokens.append((prompt, output))
            sessions.append(cells.get("session_id") or None)
            turns.append(whole(cells["turn"], path, line, "turn") if cells.get("turn") else None)
            prefixes.append(_runs(cells.get("prefix_hashes", ""), path, line))
        pairs = np.array(tokens, dtype=np.int64).reshape(-1, 2)
        self._rows = Rows(
            arrival_s=np.array(arrivals, dtype=np.float64),
            prompt_tokens=pairs[:, 0],
            output_tokens=pairs[:, 1],
            session=sessions if any(sessions) else None,
            turn=turns if any(turn is not None for turn in turns) else None,
            prefix=prefixes.__getitem__ if any(prefixes) else None,
        )

    def spans(self) -> Iterator[tuple[float, float, int]]:
        arrivals = self._rows.arrival_s
        if len(arrivals):
            yield float(arrivals[0]), float(arrivals[-1]), len(arrivals)

    def read(self, index: int) -> Rows:
        del index
        return self._rows


def read_cells(cells: dict[str, str], path: Path, line: int) -> tuple[float, int, int]:
    """Arrival and tokens of a CSV row. Raises `InvalidDocument` with line and column if they make no sense."""
    arrival = number(cells["arrival_s"], path, line, "arrival_s")
    tokens = [whole(cells[name], path, line, name) for name in NEEDED[1:]]
    for name, value in zip(NEEDED[1:], tokens, strict=True):
        if not 1 <= value <= MOST_TOKENS:
            raise InvalidDocument(f"{name} is {value}", file=str(path), line=line, hint=_RIGHT[name])
    return arrival, tokens[0], tokens[1]


def number(cell: str, path: Path, line: int, column: str) -> float:
    """A cell as seconds, finite and not below 0. Raises `InvalidDocument`."""
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise InvalidDocument(f"{column} is {shortened(cell)}", file=str(path), line=line, hint="seconds from 0 on")
    return value


def whole(cell: str, path: Path, line: int, column: str) -> int:
    """A cell as a whole number. Raises `InvalidDocument`."""
    try:
        return int(cell)
    except ValueError:
        raise InvalidDocument(
            f"{column} is {shortened(cell)}", file=str(path), line=line, hint="a whole number"
        ) from None


def _runs(cell: str, path: Path, line: int) -> tuple[int, ...]:
    """Names written as numbers and runs of numbers with blanks between: `0-12 40 51-60`."""
    names: list[int] = []
    for part in cell.split():
        first, _, last = part.partition("-")
        low = whole(first, path, line, "prefix_hashes")
        high = whole(last, path, line, "prefix_hashes") if last else low
        if not 0 <= low <= high < low + 100_000:
            hint = "numbers and runs of them: 0-12 40 51-60"
            raise InvalidDocument(f"prefix_hashes has {part!r}", file=str(path), line=line, hint=hint)
        names += range(low, high + 1)
    return tuple(names)
