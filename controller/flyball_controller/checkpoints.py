"""Storing and finding checkpoints in the log's state topic.

A checkpoint only saves time: what it cannot give back, the inputs can. Two are kept per
epoch, so that a damaged one leaves the one before; nothing here ever stops a start.
"""

import zlib
from collections import defaultdict
from dataclasses import dataclass

from flyball_controller.machine.export import SCHEMA, export_state, restore_state
from flyball_controller.machine.state import PartitionState
from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import LogId
from flyball_log import fold
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import CheckpointPart, decode_checkpoint, encode_checkpoint

PART_BYTES = 192 * 1024
"""Largest part; a record of the log may be 256 KiB."""

SLOTS = 2


@dataclass(frozen=True, slots=True)
class Restored:
    """A state to go on from: as of input `revision` (-1: none), and why others were refused."""

    state: PartitionState
    revision: int
    refused: tuple[str, ...]
    keys: tuple[bytes, ...]
    """All keys found, for the successor to tombstone once it has stored its own."""


def checkpoint_entries(state: PartitionState, revision: int, slot: int, *, schema: int = SCHEMA) -> list[Entry]:
    """The records of one checkpoint."""
    payload = export_state(state)
    crc = _crc(state.log_id, state.partition, state.epoch, revision, payload)
    pieces = [payload[at : at + PART_BYTES] for at in range(0, len(payload), PART_BYTES)]
    return [
        Entry(
            f"checkpoint/{state.partition}/{state.epoch}/{slot}/{number}".encode(),
            encode_checkpoint(
                CheckpointPart(
                    schema=schema,
                    log_id=state.log_id,
                    partition=state.partition,
                    epoch=state.epoch,
                    revision=revision,
                    part=number,
                    parts=len(pieces),
                    crc=crc,
                    payload=piece,
                )
            ),
        )
        for number, piece in enumerate(pieces)
    ]


async def find_checkpoint(log: Log, partition: int) -> Restored:
    """The newest checkpoint that can be restored, or a fresh state if there is none."""
    refused: list[str] = []
    found: dict[bytes, bytes] = {}
    try:
        records = await fold(log, Topic.STATE, partition)
        found = {key: record.value for key, record in records.items() if record.value is not None}
    except (Fatal, Rejected) as error:
        refused.append(f"the state topic cannot be read: {error}")
    groups: dict[tuple[int, int, int], list[CheckpointPart]] = defaultdict(list)
    for key, value in found.items():
        try:
            part = decode_checkpoint(value)
        except Rejected as error:
            refused.append(f"{key.decode(errors='replace')}: {error}")
            continue
        groups[part.revision, part.epoch, part.crc].append(part)
    for (revision, _, _), parts in sorted(groups.items(), reverse=True):
        try:
            state = _restore(parts, log.log_id, partition)
        except Rejected as error:
            refused.append(f"checkpoint at {revision}: {error}")
            continue
        return Restored(state, revision, tuple(refused), tuple(found))
    fresh = PartitionState(log_id=log.log_id, partition=partition)
    return Restored(fresh, -1, tuple(refused), tuple(found))


def _restore(parts: list[CheckpointPart], log_id: LogId, partition: int) -> PartitionState:
    first = parts[0]
    if any((part.log_id, part.partition) != (log_id, partition) for part in parts):
        raise Rejected("it is of another log or partition")
    ordered = sorted(parts, key=lambda part: part.part)
    if len(parts) != first.parts or [part.part for part in ordered] != list(range(len(parts))):
        raise Rejected(f"only {len(parts)} of {first.parts} parts are there")
    if any((part.schema, part.parts) != (first.schema, first.parts) for part in parts):
        raise Rejected("its parts do not belong together")
    payload = b"".join(part.payload for part in ordered)
    if _crc(first.log_id, first.partition, first.epoch, first.revision, payload) != first.crc:
        raise Rejected("its CRC does not match")
    state = restore_state(payload, first.schema)
    if state.log_id != log_id or state.partition != partition:
        raise Rejected("its content is of another log or partition")
    return state


def _crc(log_id: str, partition: int, epoch: int, revision: int, payload: bytes) -> int:
    """Over the place as well: a sound state that is taken for that of another input would skip or repeat inputs."""
    return zlib.crc32(payload, zlib.crc32(f"{log_id}/{partition}/{epoch}/{revision}".encode()))
