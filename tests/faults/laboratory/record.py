"""What was sent and applied, as seen by those who did it: JSON lines, one file for each process.

A line is in the kernel's hands before the call returns, so a process that is killed loses none of what it
did; it may lose the last line's end, which is then not read. Nothing here judges.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from flyball_core.fencing import Version
from flyball_core.ids import LogId
from flyball_core.knobs import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """An agent made a frame, and later knew it synced, delivered, or dropped."""

    at_s: float
    """Wall time, Unix seconds; virtual in a simulation."""
    what: Literal["made", "synced", "dropped"]
    agent: str
    boot: str
    pool: str
    seq: int
    reason: str = ""
    """Of a drop."""

    @property
    def identity(self) -> tuple[str, str, str, int]:
        """Which frame."""
        return self.agent, self.boot, self.pool, self.seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A receiver persisted a version, and then set its values."""

    at_s: float
    target: str
    kind: Literal["engine", "gateway"]
    incarnation: str
    version: Version
    values: dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A receiver's lease was renewed, or begun at its start: it should hold what it has until then, and no longer."""

    at_s: float
    target: str
    incarnation: str
    until_s: float
    """By the same clock as `at_s`; infinite for one that holds for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eased:
    """A receiver moved knobs towards their safe values because nobody governed, or it was switched off locally."""

    at_s: float
    target: str
    incarnation: str
    before: dict[str, Value]
    """Of the knobs that it moved, the values before."""
    values: dict[str, Value]
    off: bool = False
    """By the local switch, which needs no lease to run out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something else worth knowing: a fault that began or ended, a start, an order of an operator."""

    at_s: float
    event: str
    target: str = ""
    detail: str = ""


Line = Sampled | Applied | Renewed | Eased | Happened

_KINDS: dict[str, type[Line]] = {kind.__name__: kind for kind in (Sampled, Applied, Renewed, Eased, Happened)}


class Recorder:
    """Writes one process's part of a record to FOLDER/NAME.jsonl, after what is there already."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"{name}.jsonl").open("ab", buffering=0)

    def __enter__(self) -> Self:
        """The file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def write(self, line: Line) -> None:
        """One line, begun on a line of its own even if a killed predecessor's has no end."""
        text = json.dumps({"line": type(line).__name__, **asdict(line)})
        self._file.write(f"\n{text}\n".encode())


@dataclass(slots=True)
class Record:
    """All that was written, each kind in the order of its writing within one process."""

    sampled: list[Sampled] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    leases: list[Renewed | Eased] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Take one line."""
        if isinstance(line, Sampled):
            self.sampled.append(line)
        elif isinstance(line, Applied):
            self.applied.append(line)
        elif isinstance(line, (Renewed, Eased)):
            self.leases.append(line)
        else:
            self.happened.append(line)


def read_record(folder: Path) -> Record:
    """Everything in the folder. A line that a kill cut off is left out; any other damage raises ValueError."""
    record = Record()
    for file in sorted(folder.glob("*.jsonl")):
        for line in _lines(file):
            record.add(line)
    return record


def _lines(file: Path) -> Iterator[Line]:
    *whole, last = file.read_text().split("\n")
    for number, text in enumerate(whole):
        if not text:
            continue
        try:
            yield _line(json.loads(text))
        except json.JSONDecodeError as error:
            if number + 1 < len(whole) and not whole[number + 1]:
                raise ValueError(f"{file}: line {number + 1} is damaged: {error}") from error
    del last  # the end of a line that was never finished


def _line(said: dict[str, Any]) -> Line:
    kind = _KINDS[said.pop("line")]
    if kind is Applied:
        version = said.pop("version")
        said["version"] = Version(**{**version, "log_id": LogId(version["log_id"])})
    return kind(**said)
