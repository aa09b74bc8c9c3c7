"""What a receiver remembers over a restart, and the audit of what it changed.

Two slots are written in turn, each whole (CRC, fsync, atomic rename), so one damaged
file costs one write and never the fence: an offer is written twice, first as being
tried, then as held, and either record keeps its version from being taken again.
The store refuses to raise on reading: damage is set aside as `*.bad`, told in
`trouble`, and read as nothing held. Writing raises OSError.
"""

import json
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from flyball_agents.offers import sound
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId
from flyball_core.knobs import Setting

_FORMAT = 1
_AUDIT_BYTES = 1 << 20
_KINDS = {
    "generation": int,
    "values": dict,
    "incarnation": str,
    "log_id": str,
    "wall_s": float,
    "refusal": str,
    "eased": bool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A receiver's memory. An empty one has taken no version yet."""

    version: Version | None = None
    """The version taken last."""
    values: Setting = field(default_factory=dict)
    """The last-known-good setting: what that version left each knob at."""
    incarnation: Incarnation = Incarnation("")
    """The incarnation that took it."""
    log_id: LogId = LogId("")
    """The only log that versions are taken from; empty until the first."""
    wall_s: float = -math.inf
    """When the lease was last seen renewed, Unix seconds, up to a minute old."""
    renewed: Version | None = None
    """The version that renewed the lease last."""
    hold_s: float = 0.0
    """How long the last heartbeat asked to hold, which counts after a restart too; 0 if it did not say."""
    refused: Version | None = None
    """The newest version refused, or being tried; it and older ones are never taken."""
    refusal: str = ""
    """Why."""
    eased: bool = False
    """Whether knobs were eased since the version was taken, so that `values` no longer stand."""


class ReceiverStore:
    """One receiver's folder: two slots, `audit.jsonl` (rotated once to `.1`), the switch `off`."""

    def __init__(self, folder: Path, *, audit_bytes: int = _AUDIT_BYTES, durable: bool = True) -> None:
        """`durable=False` writes a slot where it stands and does not wait for the disk: for simulations only."""
        self.folder = folder
        self._off = os.path.join(folder, "off")  # noqa: PTH118 - asked about once a second: no path is made each time
        self._durable = durable
        self.trouble = ""
        """What was wrong when the store was last read; empty if nothing."""
        self._audit_bytes = audit_bytes
        self._generation = 0

    def off(self) -> bool:
        """Whether the local off switch is set: a file `off` in the folder, put there by hand or a tool."""
        return os.access(self._off, os.F_OK)

    def load(self) -> Held:
        """The newest record that reads back whole; an empty one if there is none. Never raises."""
        self.trouble = ""
        self._generation = 0
        newest = Held()
        for path in (self._slot(0), self._slot(1)):
            try:
                generation, held = _decode(path.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
                self._set_aside(path, error)
                continue
            if generation > self._generation:
                self._generation, newest = generation, held
        return newest

    def save(self, held: Held) -> None:
        """Write the record durably beside the one before it; raises OSError, and then that one still stands."""
        generation = self._generation + 1
        path, data = self._slot(generation % 2), _encode(generation, held)
        write = _replace if self._durable else _overwrite
        try:
            write(path, data)
        except FileNotFoundError:  # the first record, or the folder was taken away
            self.folder.mkdir(parents=True, exist_ok=True)
            write(path, data)
        self._generation = generation

    def audit(self, wall_s: float, target: str, what: str, was: Setting, new: Setting) -> None:
        """Append one line: when, to whom, what was done and why, and old and new of what changed; raises OSError."""
        changes = {name: [was.get(name), value] for name, value in new.items() if was.get(name) != value}
        line = {"wall_s": wall_s, "target": target, "what": what, "changes": changes}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "audit.jsonl"
        if path.exists() and path.stat().st_size >= self._audit_bytes:
            path.replace(self.folder / "audit.jsonl.1")
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")

    def _slot(self, index: int) -> Path:
        return self.folder / f"held-{index}.json"

    def _set_aside(self, path: Path, error: Exception) -> None:
        self.trouble = f"{path.name} cannot be read and was set aside: {error}"
        try:
            path.replace(path.with_suffix(".bad"))
        except OSError:
            self.trouble = f"{path.name} cannot be read and could not be set aside: {error}"


def _replace(path: Path, data: bytes) -> None:
    """Put a whole file on the disk in the place of another, or leave that one as it was."""
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _overwrite(path: Path, data: bytes) -> None:
    """Write over a file. Some file systems wait for the disk where a file is replaced or emptied, but not here."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.write(file, data)
        os.ftruncate(file, len(data))
    finally:
        os.close(file)


def _encode(generation: int, held: Held) -> bytes:
    body = json.dumps(
        {
            "format": _FORMAT,
            "generation": generation,
            "version": _plain(held.version),
            "values": dict(held.values),
            "incarnation": held.incarnation,
            "log_id": held.log_id,
            "wall_s": held.wall_s,
            "renewed": _plain(held.renewed),
            "hold_s": held.hold_s,
            "refused": _plain(held.refused),
            "refusal": held.refusal,
            "eased": held.eased,
        },
        sort_keys=True,
    ).encode()
    return b"%08x\n%s\n" % (zlib.crc32(body), body)


def _decode(data: bytes) -> tuple[int, Held]:
    body = data[9:-1]
    if data != b"%08x\n%s\n" % (zlib.crc32(body), body):
        raise ValueError("checksum does not match")
    fields = json.loads(body)
    if fields["format"] != _FORMAT:
        raise ValueError(f"format {fields['format']}, this Flyball reads {_FORMAT}")
    if wrong := [name for name, kind in _KINDS.items() if type(fields[name]) is not kind]:
        raise ValueError(f"{', '.join(wrong)} of another type than is written")
    return fields["generation"], Held(
        version=_version(fields["version"]),
        values=fields["values"],
        incarnation=fields["incarnation"],
        log_id=fields["log_id"],
        wall_s=fields["wall_s"],
        renewed=_version(fields["renewed"]),
        hold_s=float(fields.get("hold_s", 0.0)),  # 0.1 did not keep it
        refused=_version(fields["refused"]),
        refusal=fields["refusal"],
        eased=fields["eased"],
    )


def _plain(version: Version | None) -> list[str | int] | None:
    if version is None:
        return None
    return [version.log_id, version.partition, version.epoch, version.revision]


def _version(plain: list[str | int] | None) -> Version | None:
    if plain is None:
        return None
    log_id, partition, epoch, revision = plain
    version = Version(log_id=LogId(str(log_id)), partition=int(partition), epoch=int(epoch), revision=int(revision))
    if not sound(version):
        raise ValueError(f"{plain} is no version")
    return version
