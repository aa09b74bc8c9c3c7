"""Recorded sessions: traces whose arrivals count from each session's own start, so that they have no fleet's clock.

Columns beside those of a trace: `session_id`, `turn`, `cached_prefix_tokens` (shared with the request before),
`think_time_s` and `api_time_s` (may have holes), `tool_system_tokens` and `dup_group` (may be missing). Refuses
sessions whose rows are not together and in order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from flyball_core.errors import InvalidDocument, Rejected
from flyball_twin.traffic.files import csv_rows, open_parquet, reading
from flyball_twin.traffic.traces import MOST_TOKENS

NEEDED = ("session_id", "turn", "arrival_s", "prompt_tokens", "output_tokens", "cached_prefix_tokens", "think_time_s")
OPTIONAL = ("api_time_s", "tool_system_tokens", "dup_group")

RecordedStep = tuple[int, int, float, int]
"""Prompt and output tokens, seconds of thinking before it, leading tokens shared with the request before."""


@dataclass(frozen=True, slots=True)
class RecordedSession:
    """One session."""

    name: str
    group: str
    """Sessions of one group opened alike and do not count as independent."""
    opening_tokens: int
    """Of its first prompt, what is the tools' and the system's: the same for every session with as many."""
    steps: list[RecordedStep] = field(default_factory=list)


def read_sessions(path: Path) -> tuple[RecordedSession, ...]:
    """The sessions of a `.parquet`, `.csv` or `.csv.gz` file.

    Where the time of thinking is missing it is taken from the arrivals and the time the answer took, and is 0 where
    that is missing too; an empty answer counts as one token, as an engine makes at least one. Raises `Rejected` for a
    file that cannot be read and, with row (or line) and column, for one whose rows make no sense.
    """
    try:
        stamp = path.stat()
    except OSError as error:
        raise Rejected(f"trace {path.name} is missing: {error.strerror or error}: {path}") from None
    return _read(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, _mtime_ns: int, _size: int) -> tuple[RecordedSession, ...]:
    sessions: dict[str, RecordedSession] = {}
    before: _Cells | None = None
    for cells in _rows(path):
        name = cells.text("session_id")
        turn = cells.whole("turn", 0)
        follows = before is not None and before.text("session_id") == name
        if (name in sessions) != follows or turn != (before.whole("turn", 0) + 1 if follows and before else 0):
            raise cells.wrong("turn", "a session's rows stand together, from turn 0 on")
        if name not in sessions:
            opening = cells.whole("tool_system_tokens", 0) if cells.has("tool_system_tokens") else 0
            sessions[name] = RecordedSession(name, cells.text("dup_group") or name, opening)
        step = (
            cells.whole("prompt_tokens", 1),
            max(cells.whole("output_tokens", 0), 1),
            _think_s(cells, before if follows else None),
            cells.whole("cached_prefix_tokens", 0) if follows else 0,
        )
        if follows and before is not None and step[3] > min(step[0], before.whole("prompt_tokens", 1)):
            raise cells.wrong("cached_prefix_tokens", "what two prompts share is no longer than either")
        sessions[name].steps.append(step)
        before = cells
    if not sessions:
        raise Rejected(f"trace {path} has no sessions")
    return tuple(sessions.values())


@dataclass(frozen=True, slots=True)
class _Cells:
    """One row, whatever the file's kind; an empty cell and a hole are the same."""

    path: Path
    row: int
    cells: dict[str, Any]

    def has(self, column: str) -> bool:
        return self.cells.get(column) not in (None, "")

    def text(self, column: str) -> str:
        return str(self.cells[column]) if self.has(column) else ""

    def number(self, column: str) -> float:
        try:
            value = float(self.cells[column])
        except (TypeError, ValueError):
            value = -1.0
        if not 0.0 <= value < float("inf"):
            raise self.wrong(column, "seconds from 0 on")
        return value

    def whole(self, column: str, least: int) -> int:
        try:
            value = int(self.cells[column])
            whole = isinstance(self.cells[column], str) or value == self.cells[column]
        except (TypeError, ValueError, OverflowError):
            value, whole = least, False
        if not whole or not least <= value <= MOST_TOKENS:
            raise self.wrong(column, f"a whole number of at least {least}, at most {MOST_TOKENS:,}")
        return value

    def wrong(self, column: str, right: str) -> Rejected:
        found = self.cells.get(column)
        if self.path.suffix == ".parquet":
            return Rejected(f"{self.path}: row {self.row}, column {column}: {found}; {right}")
        return InvalidDocument(f"{column} is {found!r}", file=str(self.path), line=self.row, hint=right)


def _rows(path: Path) -> Iterator[_Cells]:
    if path.suffix != ".parquet":
        yield from (_Cells(path, line, dict(cells)) for line, cells in csv_rows(path, NEEDED))
        return
    file = open_parquet(path, NEEDED)
    columns = [name for name in (*NEEDED, *OPTIONAL) if name in file.schema_arrow.names]
    row = 0
    for group in range(file.num_row_groups):
        with reading(path):
            listed = file.read_row_group(group, columns=columns).to_pylist()
        for cells in listed:
            row += 1
            yield _Cells(path, row, cells)


def _think_s(cells: _Cells, before: _Cells | None) -> float:
    if cells.has("think_time_s"):
        return cells.number("think_time_s")
    if before is None or not before.has("api_time_s"):
        return 0.0
    return max(cells.number("arrival_s") - before.number("arrival_s") - before.number("api_time_s"), 0.0)
