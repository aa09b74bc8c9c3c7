"""Frames on disk until they are delivered: bounded, checked, and counted without a gap.

Segments of records, each record with a checksum over its head and one over its body. Appending
writes to the page cache and never syncs: `unsynced` gives the descriptors for someone else to
sync, once a second, who then says with `synced` how that went. At the bound, or when the disk is
full, the oldest segment goes and its frames are counted as dropped, by name. Opening truncates a
torn tail, sets a damaged segment aside (`*.bad`, one kept) after taking over what in it is whole,
and never fails for what it finds.

What it refuses: to lose a frame without counting it, to grow past its bound, to wait.
"""

import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flyball_agents.accounting import Accounting, Key, Witness
from flyball_agents.segments import HEAD_BYTES, Stored, decode, encode, scan
from flyball_core.errors import Rejected
from flyball_core.ids import BootId, PoolId


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolLimits:
    """How much is kept and how."""

    most_bytes: int = 64 << 20
    """Bytes on disk, damaged files included; never exceeded."""
    most_age_s: float = 86400.0
    """Older frames are dropped: by the monotonic clock within a boot, by wall clocks across boots."""
    segment_bytes: int = 256 << 10
    """Bytes of one segment: the grain of dropping; also the greatest record."""
    fresh_bytes: int = 64 << 10
    """A segment of at least this size goes as soon as all in it is delivered."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One frame that is neither delivered nor dropped yet."""

    key: Key
    stored: Stored
    segment: "_Segment | None"
    """Where it lies; None if it could not be stored or its segment is gone."""
    payload: bytes | None = None
    """Its live form while that may still be sent."""
    leased: bool = False
    """Being sent: it is dropped only once the outcome is known."""
    loss: str = ""
    """Why it is not on disk."""


@dataclass(slots=True, eq=False)
class _Segment:
    number: int
    path: Path
    size: int
    left: set[Key] = field(default_factory=set)
    newest_s: float = 0.0
    newest_wall_s: float = 0.0
    boot: BootId = BootId("")
    descriptor: int = -1
    """Open while it is written to, and then until it is synced."""
    unsynced: list[Key] = field(default_factory=list)
    """What was written since it was last given away to be synced."""

    def close(self) -> None:
        """Close its descriptor, if it is open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class Spool:
    """The spool of one agent in a folder of its own. Not thread-safe."""

    def __init__(self, folder: Path, limits: SpoolLimits | None = None, witness: Witness | None = None) -> None:
        """Open, repair and index; raises OSError only if the folder cannot be made, `Rejected` for absurd limits."""
        self.limits = limits or SpoolLimits()
        if not HEAD_BYTES < self.limits.segment_bytes <= self.limits.most_bytes:
            raise Rejected("a spool's segment is larger than a record's head and no larger than the spool")
        self.folder = folder
        self.accounting = Accounting() if witness is None else Accounting(witness=witness)
        self.quarantined: list[str] = []
        """Damaged files found at opening, by name."""
        self.torn = 0
        """Segments whose last record was cut off and truncated at opening."""
        self.sync_failures = 0
        """Files that the disk took and could not sync: it is failing."""
        self._tickets: OrderedDict[Key, Ticket] = OrderedDict()
        self._segments: OrderedDict[int, _Segment] = OrderedDict()
        self._active: _Segment | None = None
        self._sealed: list[_Segment] = []
        self._new_names = False
        self._syncing: list[Key] = []
        self._bytes = 0
        self._bad: OrderedDict[Path, int] = OrderedDict()
        self._next = 1
        folder.mkdir(parents=True, exist_ok=True)
        self._open()

    @property
    def bytes_on_disk(self) -> int:
        """All bytes in the folder that are the spool's."""
        return self._bytes

    @property
    def waiting(self) -> int:
        """Frames neither delivered nor dropped."""
        return len(self._tickets)

    def append(
        self, *, boot: BootId, pool: PoolId, seq: int, now_s: float, wall_s: float, payload: bytes, live: bytes | None
    ) -> Ticket:
        """Take one frame; never raises for the disk. `live` is what may be sent from memory while it is young.

        Raises `Rejected` for an identity that is waiting already: a boot id used twice.
        """
        key = (boot, pool, seq)
        if key in self._tickets:
            raise Rejected(f"frame {seq} of pool {pool} in boot {boot} is in the spool already")
        record = encode(boot, pool, seq, now_s, wall_s, payload)
        ticket = Ticket(key=key, stored=Stored(boot, pool, seq, now_s, wall_s, 0, len(record)), segment=None)
        ticket.payload = live
        self._tickets[key] = ticket
        self.accounting.take(key)
        if len(record) > self.limits.segment_bytes:
            ticket.loss = "too_large"
        else:
            self._store(ticket, record)
        self._settle(ticket)
        return ticket

    def oldest(self, most: int) -> list[Ticket]:
        """Up to so many of the oldest frames that are on disk, not live and not being sent."""
        found: list[Ticket] = []
        for ticket in self._tickets.values():
            if len(found) >= most:
                break
            if ticket.segment is not None and ticket.payload is None and not ticket.leased:
                found.append(ticket)
        return found

    def read(self, ticket: Ticket) -> bytes | None:
        """A frame's payload from disk; None, and the frame counted as damaged, if it does not read back whole."""
        segment, payload = ticket.segment, None
        with contextlib.suppress(OSError, ValueError):
            if segment is not None:
                with segment.path.open("rb") as file:
                    file.seek(ticket.stored.offset)
                    stored, payload = decode(file.read(ticket.stored.size))
                if (stored.boot, stored.pool, stored.seq) != ticket.key:
                    payload = None
        if payload is None:
            self.drop(ticket, "damaged")
        return payload

    def release(self, ticket: Ticket) -> None:
        """It is no longer being sent, and was not delivered."""
        ticket.leased = False
        self._settle(ticket)

    def retire(self, ticket: Ticket) -> None:
        """It is no longer live: from now on it is sent from disk, or counted as dropped."""
        ticket.payload = None
        self._settle(ticket)

    def delivered(self, tickets: Iterable[Ticket]) -> None:
        """Their append has returned: they are counted and leave the disk."""
        for ticket in tickets:
            if self._tickets.pop(ticket.key, None) is not None:
                self.accounting.delivered += 1
                self._leave(ticket)

    def drop(self, ticket: Ticket, reason: str) -> None:
        """Give one frame up, counted under this reason."""
        if self._tickets.pop(ticket.key, None) is not None:
            self.accounting.drop(ticket.key, reason)
            self._leave(ticket)

    def expire(self, boot: BootId, now_s: float, wall_s: float) -> None:
        """Drop what is too old, by `now_s` within this boot and by the wall clock across boots."""
        for segment in list(self._segments.values()):
            age_s = now_s - segment.newest_s if segment.boot == boot else wall_s - segment.newest_wall_s
            if segment.left and age_s > self.limits.most_age_s:
                self._drop_segment(segment, "age")

    def unsynced(self) -> list[int]:
        """Descriptors of what was written since the last call; `sync_all` syncs and closes them in any thread.

        None while the process may open no more files: then it is for the next call.
        """
        active = self._active if self._active is not None and self._active.unsynced else None
        opened: list[int] = []
        try:
            if active is not None:
                opened.append(os.dup(active.descriptor))
            if self._new_names and (active or self._sealed):
                opened.append(os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC))
                self._new_names = False
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            return []
        given = [*self._sealed, *([active] if active is not None else [])]
        self._syncing = [key for segment in given for key in segment.unsynced]
        descriptors = [segment.descriptor for segment in self._sealed]
        for segment in given:
            segment.unsynced = []
        for segment in self._sealed:
            segment.descriptor = -1
        self._sealed = []
        return [*descriptors, *opened]

    def synced(self, *, failed: int) -> None:
        """Be told how many descriptors of the last `unsynced` could not be synced: if none, the disk has the frames."""
        keys, self._syncing = self._syncing, []
        if failed:
            self.sync_failures += failed
            self._new_names = True
            return
        for key in keys:
            ticket = self._tickets.get(key)
            if ticket is not None and ticket.segment is not None:
                self.accounting.sync(key)

    def close(self) -> None:
        """Close everything; what waits stays on disk. Idempotent."""
        self._seal()
        for segment in self._sealed:
            segment.close()
        self._sealed = []
        for segment in [segment for segment in self._segments.values() if not segment.left]:
            self._remove_segment(segment)

    def _store(self, ticket: Ticket, record: bytes) -> None:
        """Write the record, making room as often as that helps."""
        while True:
            if not self._room(len(record)):
                ticket.loss = "disk"
                return
            try:
                segment = self._writable(len(record))
                _write(segment.descriptor, segment.size, record)
            except OSError as error:
                ticket.loss = "disk"
                victim = next((segment for segment in self._segments.values() if segment.size), None)
                if victim is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    return
                self._drop_segment(victim, "disk_full")
                continue
            ticket.stored = ticket.stored._replace(offset=segment.size)
            ticket.segment = segment
            ticket.loss = ""
            self._file(ticket.stored, segment, len(record))
            segment.unsynced.append(ticket.key)
            return

    def _file(self, stored: Stored, segment: _Segment, grown: int) -> None:
        segment.left.add((stored.boot, stored.pool, stored.seq))
        segment.newest_s, segment.newest_wall_s, segment.boot = stored.now_s, stored.wall_s, stored.boot
        segment.size += grown
        self._bytes += grown

    def _room(self, size: int) -> bool:
        """Make room for so many bytes: damaged files go first, then the oldest segments."""
        most = self.limits.most_bytes
        for path in list(self._bad):
            if self._bytes + size > most:
                self._unlink(path, self._bad.pop(path))
        while self._bytes + size > most and self._segments:
            self._drop_segment(next(iter(self._segments.values())), "oldest")
        return self._bytes + size <= most

    def _writable(self, size: int) -> _Segment:
        active = self._active
        if active is not None and active.size + size <= self.limits.segment_bytes:
            return active
        self._seal()
        number, self._next = self._next, self._next + 1
        path = self.folder / f"{number:012d}.seg"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fresh = _Segment(number=number, path=path, size=0, descriptor=descriptor)
        self._active = self._segments[number] = fresh
        self._new_names = True
        return fresh

    def _seal(self) -> None:
        """End the active segment; its descriptor waits to be synced."""
        if self._active is None:
            return
        active, self._active = self._active, None
        if not active.left:
            self._remove_segment(active)
        elif active.unsynced:
            self._sealed.append(active)
        else:
            active.close()
        if len(self._sealed) > _MOST_UNSYNCED:
            self._sealed.pop(0).close()  # nobody syncs; the kernel will in its own time

    def _settle(self, ticket: Ticket) -> None:
        """Drop what can be sent neither from disk nor from memory."""
        if ticket.segment is None and ticket.payload is None and not ticket.leased:
            self.drop(ticket, ticket.loss)

    def _leave(self, ticket: Ticket) -> None:
        segment = ticket.segment
        if segment is None:
            return
        segment.left.discard(ticket.key)
        if not segment.left and (segment is not self._active or segment.size >= self.limits.fresh_bytes):
            self._remove_segment(segment)

    def _drop_segment(self, segment: _Segment, reason: str) -> None:
        for key in sorted(segment.left):
            ticket = self._tickets[key]
            ticket.segment, ticket.loss = None, reason
            self._settle(ticket)
        segment.left.clear()
        self._remove_segment(segment)

    def _remove_segment(self, segment: _Segment) -> None:
        if segment is self._active:
            self._active = None
        if segment in self._sealed:
            self._sealed.remove(segment)
        segment.close()  # an open file would keep its place on the disk
        if self._segments.pop(segment.number, None) is not None:
            self._unlink(segment.path, segment.size)

    def _unlink(self, path: Path, size: int) -> None:
        try:
            path.unlink(missing_ok=True)
            self._bytes -= size
        except OSError:
            self._bad[path] = size  # still there, so it still counts; tried again when room is needed

    def _open(self) -> None:
        for path in sorted(self.folder.glob("*.new")):
            whole = path.with_suffix(".seg")
            with contextlib.suppress(OSError):  # a taking-over that was cut short: before or after its original went
                path.unlink() if whole.exists() else path.rename(whole)
        for path in sorted(self.folder.glob("*.bad")):
            self._bad[path] = path.lstat().st_size
        paths = sorted(path for path in self.folder.glob("*.seg") if _is_numbered(path))
        self._next = max((int(path.stem) for path in (*paths, *self._bad) if _is_numbered(path)), default=0) + 1
        self._bytes = sum(self._bad.values()) + sum(path.lstat().st_size for path in paths)
        for path in paths:
            self._recover(path)
        self.accounting.recovered = len(self._tickets)
        self._room(0)

    def _recover(self, path: Path) -> None:
        """Index one segment of an earlier life."""
        size = path.lstat().st_size  # not of what a link leads to: that may not be there
        try:
            data = path.read_bytes()
        except OSError:
            self.quarantined.append(path.name)
            self._bad[path] = size
            return
        found = scan(data)
        if found.damaged:
            whole = b"".join(data[r.offset : r.offset + r.size] for r in found.records)
            if self._quarantine(path, size, whole):
                found, size = scan(whole), len(whole)
        elif found.torn_at is not None:
            self.torn += 1
            with contextlib.suppress(OSError):
                os.truncate(path, found.torn_at)
                self._bytes -= size - found.torn_at
                size = found.torn_at
        segment = _Segment(number=int(path.stem), path=path, size=size)
        for stored in found.records:
            key = (stored.boot, stored.pool, stored.seq)
            if key not in self._tickets:
                self._tickets[key] = Ticket(key=key, stored=stored, segment=segment)
                self._file(stored, segment, 0)
        self._segments[segment.number] = segment
        if not segment.left:
            self._remove_segment(segment)

    def _quarantine(self, path: Path, size: int, whole: bytes) -> bool:
        """Set a damaged segment aside and leave in its place what of it is whole; False if the disk refuses."""
        self.quarantined.append(path.name)
        bad, new = path.with_suffix(".bad"), path.with_suffix(".new")
        for old in list(self._bad):
            self._unlink(old, self._bad.pop(old))
        try:
            if self._bytes + len(whole) > self.limits.most_bytes:
                path.unlink()  # no room to keep the evidence
                self._bytes -= size
                new.write_bytes(whole)
            else:
                new.write_bytes(whole)
                path.rename(bad)
                self._bad[bad] = size
            new.rename(path)
        except OSError:
            return False
        self._bytes += len(whole)
        return True


_MOST_UNSYNCED = 16


def sync_all(descriptors: Iterable[int]) -> int:
    """Sync and close what `Spool.unsynced` gave; how many could not be synced, for `Spool.synced`."""
    failed = 0
    for descriptor in descriptors:
        try:
            os.fsync(descriptor)
        except OSError:
            failed += 1
        os.close(descriptor)
    return failed


def _is_numbered(path: Path) -> bool:
    """Whether a file is called as this spool calls its own; others are left alone."""
    stem = path.stem
    return stem.isascii() and stem.isdecimal() and stem == f"{int(stem):012d}"


def _write(descriptor: int, offset: int, record: bytes) -> None:
    """Write the whole record at the end of the segment, or leave the segment as it was."""
    done = 0
    try:
        while done < len(record):
            done += os.pwrite(descriptor, record[done:], offset + done)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
