"""Going through a segment record by record: its index, and what is damaged or torn.

Reads; never repairs. What to do about a torn tail is for the partition to decide.
"""

from dataclasses import dataclass, field
from pathlib import Path

from flyball_log.embedded.records import INDEX_BYTES, Damage, Mark, locate, search


@dataclass(slots=True, kw_only=True)
class Scan:
    """What a walk through a segment found.

    `end` is the position after the last record that can be read, `next_offset` the one after its
    offset; `size` is the file's. Between `end` and `size` there is a torn or damaged tail.
    """

    end: int
    next_offset: int
    size: int
    records: int = 0
    marks: list[Mark] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    last_batch: int = 0

    @property
    def tail_bytes(self) -> int:
        """Bytes behind the last record that can be read."""
        return self.size - self.end


def scan(path: Path, offset: int, *, position: int = 0, stop: int | None = None) -> Scan:
    """Walk from `position`, where `offset` or a later one is expected, to the end or to offset `stop`.

    Raises `OSError` if the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        file.seek(position)
        buffer = file.readall()
    found = Scan(end=position, next_offset=offset, size=position + len(buffer))
    at, next_mark = 0, 0
    while at < len(buffer) and (stop is None or found.next_offset < stop):
        record = locate(buffer, at)
        if record is None or record.offset < found.next_offset:
            behind = search(buffer, at, found.next_offset)
            if behind is None:
                break
            after = locate(buffer, behind)
            assert after is not None  # search only answers with a whole record
            found.damages.append(Damage(position + at, found.next_offset, after.offset))
            at = next_mark = behind
            continue
        if stop is not None and record.offset >= stop:
            break
        if at >= next_mark:
            found.marks.append((record.offset, position + at))
            next_mark = at + INDEX_BYTES
        at = record.end
        found.records += 1
        found.end, found.next_offset, found.last_batch = position + at, record.offset + 1, record.batch
    return found


def settle(found: Scan, synced: int) -> bool:
    """Tell torn from damaged in `found`, a scan of the last segment; offsets before `synced` were synced.

    A damaged stretch was synced, and so is true damage, if offsets before `synced` are missing in it,
    or if a commit began behind it. Otherwise it and all behind it are the remains of one commit that
    never ended, and are taken back. Synced offsets missing at the end become damage too: then True.
    """
    while found.damages:
        hole = found.damages[-1]
        if hole.first < synced or found.last_batch > hole.position:
            break
        found.damages.pop()
        found.end, found.next_offset = hole.position, hole.first
        found.marks = [mark for mark in found.marks if mark[1] < hole.position]
    if found.next_offset >= synced:
        return False
    found.damages.append(Damage(found.end, found.next_offset, synced))
    found.next_offset = synced
    return True
