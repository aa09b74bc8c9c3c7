"""Where traces lie and how their bytes are opened: bundled ones by name, others as files beside the scenario.

Says what is wrong with a file by its name. Refuses to judge what the rows say; that is `traces` and `recorded`.
"""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from flyball_core.errors import InvalidDocument, Rejected

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

DATA = Path(__file__).parent.parent / "data"
"""Where the bundled traces lie."""

BUNDLED = ".csv.gz"
SUFFIXES = (".parquet", ".csv", BUNDLED)


def bundled() -> tuple[str, ...]:
    """The names of the bundled traces."""
    return tuple(sorted(path.name.removesuffix(BUNDLED) for path in DATA.glob(f"*{BUNDLED}")))


def find_trace(name: str, folder: Path) -> Path:
    """The file of a trace: a name with one of `SUFFIXES` is a file in `folder`, another one a bundled trace.

    Raises `Rejected`, with the nearest name that there is, if there is no such trace.
    """
    if name.endswith(SUFFIXES):
        path = folder / name
        if not path.is_file():
            raise Rejected(f"there is no trace {path}")
        return path
    known = bundled()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        right = f"did you mean {near[0]!r}?" if near else f"bundled are {', '.join(known)}"
        raise Rejected(f"no bundled trace is called {name!r} ({right}); a file ends in {', '.join(SUFFIXES)}")
    return DATA / f"{name}{BUNDLED}"


def csv_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells of each row of a `.csv` or `.csv.gz` whose header has at least the `needed` columns.

    Raises `Rejected` for a file that is missing or damaged, `InvalidDocument` for its header or a row that does not
    fit it.
    """
    rows = _cells(path)
    header = next(rows, [])
    missing = [name for name in needed if name not in header]
    if missing:
        found = f"the header is {','.join(header)!r}, without {', '.join(missing)}"
        raise InvalidDocument(found, file=str(path), line=1, hint=f"it begins {','.join(needed)}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            problem = f"{len(row)} cells under {len(header)} columns"
            raise InvalidDocument(problem, file=str(path), line=line, hint=",".join(header))
        yield line, dict(zip(header, row, strict=True))


def _cells(path: Path) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(_text(path), newline=""))
    try:
        yield from rows
    except csv.Error as problem:
        raise InvalidDocument(f"no CSV: {problem}", file=str(path), line=rows.line_num or 1) from problem


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except FileNotFoundError:
        raise Rejected(f"trace {path.name} is missing: no file {path}") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise Rejected(f"{path} is damaged: {problem}") from problem


def open_parquet(path: Path, needed: Sequence[str]) -> "ParquetFile":
    """A Parquet file with at least the `needed` columns. Raises `Rejected` if it cannot be read."""
    with reading(path):
        from pyarrow.parquet import ParquetFile

        file = ParquetFile(path)
    missing = [name for name in needed if name not in file.schema_arrow.names]
    if missing:
        raise Rejected(f"{path}: no column {', '.join(missing)}; it has {', '.join(file.schema_arrow.names)}")
    twice = [name for name, times in Counter(file.schema_arrow.names).items() if times > 1]
    if twice:
        raise Rejected(f"{path}: column {twice[0]} is there twice")
    return file


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What pyarrow says about a Parquet file that it cannot read, as `Rejected`."""
    try:
        import pyarrow as pa
    except ImportError:
        raise Rejected(f"{path} needs pyarrow to be read: install flyball[cli]") from None
    try:
        yield
    except FileNotFoundError:
        raise Rejected(f"trace {path.name} is missing: no file {path}") from None
    except (OSError, pa.ArrowException) as problem:
        said = " ".join(str(problem).split())  # on one line
        raise Rejected(f"{path} is damaged: {said}") from problem
