"""What one kind of measured table has to be able to do for `flyball twin validate`.

A kind recognises its files by their columns alone, never by their names, reads them, and answers with a section of
the report. What it cannot use it leaves out and counts; a file that is damaged is an error that names file and row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Signed relative errors of one quantity, summed up: predicted / measured - 1."""

    rows: int
    p50_ape: float | None
    """Median of their absolute values; None without rows, as are the others."""
    p90_ape: float | None
    mean_ape: float | None
    bias: float | None
    """Median of the errors themselves."""


NO_ERRORS = Errors(rows=0, p50_ape=None, p90_ape=None, mean_ape=None, bias=None)
"""Of a quantity that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows of one (model, GPU, backend, load), and how far the twin is from them."""

    table: str
    """The kind of table it comes from."""
    model: str
    gpu: str
    backend: str
    load: str
    rows: int
    tpot: Errors
    ttft: Errors
    e2e: Errors = NO_ERRORS
    """From sending a request to its last token."""
    moe: bool = False
    """Whether the model is a mixture of experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table for people: a title, column heads, and rows of cells that are text already."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The first column is a name and aligned left, the others right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one kind of table adds to the report."""

    kind: str
    groups: Sequence[Group] = ()
    score: Mapping[str, float | int | None] = field(default_factory=dict)
    """Entries of the report's `score`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that were not scored, by reason."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What only this kind has, as a JSON object; it stands in the document under the kind's name."""
    grids: Sequence[Grid] = ()
    notes: Sequence[str] = ()
    """Sentences that the figures need beside them."""


class TableKind(Protocol):
    """One kind of measured table."""

    @property
    def name(self) -> str:
        """Short name, which is also its key in the document: `silicon`, `requests`, ..."""
        ...

    @property
    def says(self) -> str:
        """What it holds and by which columns it is known, in a line: shown where a file is of no known kind."""
        ...

    def recognises(self, columns: frozenset[str]) -> bool:
        """Whether a file with these columns is one of its kind."""
        ...

    def section(self, files: Sequence[Path], pictures: Path | None) -> Section:
        """Read all files of its kind that were given, validate against them, and draw into `pictures` if asked.

        Raises `InvalidDocument` (file, row) for a row that makes no sense, `Rejected` for a file that cannot be read.
        """
        ...


def errors_of(relative: Sequence[float]) -> Errors:
    """Signed relative errors (predicted / measured - 1), summed up; a quantile lies between the two nearest."""
    if not relative:
        return NO_ERRORS
    signed = np.asarray(relative, dtype=np.float64)
    absolute = np.abs(signed)
    p50, p90 = np.quantile(absolute, (0.5, 0.9))
    return Errors(
        rows=len(relative),
        p50_ape=float(p50),
        p90_ape=float(p90),
        mean_ape=float(absolute.mean()),
        bias=float(np.median(signed)),
    )


def errors_document(errors: Errors) -> dict[str, float | int | None]:
    """Errors as the report's documents have them."""
    return {
        "rows": errors.rows,
        "p50": errors.p50_ape,
        "p90": errors.p90_ape,
        "mean": errors.mean_ape,
        "bias": errors.bias,
    }
