"""The report of `flyball twin validate`: files sorted by kind, validated kind by kind, and put into one document.

The document's schema is `flyball.twin-validate/1`. A file of no known kind is an error that says which kinds there
are; nothing is skipped in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball_core.errors import Rejected
from flyball_twin.traffic.files import open_parquet
from flyball_twin.validation.kinds import KINDS
from flyball_twin.validation.seam import Group, Section, TableKind, errors_document

SCHEMA = "flyball.twin-validate/1"
SCORES = tuple(f"{of}_{how}_ape" for of in ("tpot", "ttft", "e2e") for how in ("median", "mean"))
"""What the score has at least; None without rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """A file that was given, and what it is."""

    path: Path
    kind: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What validating some files came to."""

    kinds: Sequence[str]
    """All kinds that there are, in their order."""
    files: Sequence[TableFile]
    sections: Sequence[Section]

    def document(self) -> dict[str, object]:
        """The report as a JSON object."""
        score: dict[str, float | int | None] = dict.fromkeys(SCORES)
        left_out: dict[str, int] = {}
        for section in self.sections:
            score.update(section.score)
            for reason, count in section.left_out.items():
                left_out[reason] = left_out.get(reason, 0) + count
        details = {section.kind: section.details for section in self.sections}
        return {
            "schema": SCHEMA,
            "files": [{"file": file.path.name, "kind": file.kind, "rows": file.rows} for file in self.files],
            "groups": [_group(group) for section in self.sections for group in section.groups],
            "score": score,
            "left_out": left_out,
            **{kind: details.get(kind) for kind in self.kinds},
        }


def validate(files: Sequence[Path], pictures: Path | None = None, kinds: Sequence[TableKind] = KINDS) -> Report:
    """Validate the twin against these files.

    Raises `Rejected` for a file of no known kind or an unreadable one, `InvalidDocument` for a row that makes no sense.
    """
    of_kind: dict[str, list[Path]] = {}
    known: list[TableFile] = []
    for path in files:
        parquet = open_parquet(path, ())
        columns = frozenset(parquet.schema_arrow.names)
        kind = next((kind for kind in kinds if kind.recognises(columns)), None)
        if kind is None:
            raise Rejected(f"{path} is no table that validate knows. It knows: {'; '.join(k.says for k in kinds)}")
        of_kind.setdefault(kind.name, []).append(path)
        known.append(TableFile(path=path, kind=kind.name, rows=parquet.metadata.num_rows))
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    sections = [kind.section(of_kind[kind.name], pictures) for kind in kinds if kind.name in of_kind]
    return Report(kinds=[kind.name for kind in kinds], files=known, sections=sections)


def _group(group: Group) -> dict[str, object]:
    return {
        "table": group.table,
        "model": group.model,
        "gpu": group.gpu,
        "backend": group.backend,
        "load": group.load,
        "rows": group.rows,
        "moe": group.moe,
        "tpot": errors_document(group.tpot),
        "ttft": errors_document(group.ttft),
        "e2e": errors_document(group.e2e),
    }
