"""Targets: checkpoints, as a successor finds them in the log's state topic, and the payload inside them.

The promises: what cannot be restored is refused with `Rejected` and a reason, the one before it or a fresh
state is taken instead, never a crash loop; a payload cannot make more than it may; what was restored exports
to the same state again.
"""

import asyncio
import json
import zlib
from collections.abc import Sequence
from functools import cache

from flyball_controller.checkpoints import checkpoint_entries, find_checkpoint
from flyball_controller.machine.export import SCHEMA, export_state, restore_state
from flyball_controller.machine.state import PartitionState
from flyball_core.errors import Rejected
from flyball_core.ids import LogId
from flyball_log.interface import Bounds, Entry, Record, Topic
from flyball_log.partitioning import partition_of
from flyball_proto.codec import CheckpointPart, decode_checkpoint, encode_checkpoint
from fuzz_bytes import Draw, edited, says
from fuzz_wire import small_pool
from harness.scripted_pool import LOG_ID

_GZIP = 31
MOST_PIECES = 12


@cache
def payload() -> bytes:
    """The exported state of a pool that has lived a little."""
    pool = small_pool()
    pool.run(3)
    return export_state(pool.state)


@cache
def text() -> bytes:
    """The JSON inside it."""
    return zlib.decompress(payload(), wbits=_GZIP)


def _restored(found: PartitionState) -> None:
    """What was restored is a state like any other: it exports, and comes back the same."""
    again = export_state(found)
    assert again == export_state(restore_state(again, SCHEMA))


def checkpoint_payload(data: bytes) -> None:
    """A payload: damaged, or compressed JSON of any kind, or the JSON of a state with one place changed."""
    draw = Draw(data)
    how = draw.byte() % 4
    if how == 0:
        made = draw.rest()
    elif how == 1:
        made = edited(payload(), draw)
    elif how == 2:
        made = zlib.compress(draw.rest(), 1, wbits=_GZIP)
    else:
        made = zlib.compress(json.dumps(_changed(json.loads(text()), draw)).encode(), 1, wbits=_GZIP)
    try:
        found = restore_state(made, SCHEMA)
    except Rejected as error:
        says(error)
    else:
        _restored(found)


def _changed(value: object, draw: Draw) -> object:
    """The JSON value with one place in it made something else."""
    inside: list[tuple[object, object]] = []
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    if not inside or not draw.left or draw.byte() % 16 == 0:
        return draw.pick(
            (
                None,
                0,
                -1,
                2**70,
                0.5,
                1e400,
                float("nan"),
                "",
                "x",
                "\ud800",
                True,
                [],
                {},
                {"$t": []},
                {"$c": "Version", "v": {}},
            )
        )
    key, inner = inside[draw.byte() % len(inside)]
    changed = _changed(inner, draw)
    if isinstance(value, dict):
        return {**value, str(key): changed}
    assert isinstance(value, list)
    assert isinstance(key, int)
    return [*value[:key], changed, *value[key + 1 :]]


class StateLog:
    """As much of a log as a successor reads: the records of one compacted partition."""

    log_id = LOG_ID
    partitions = 1
    where = "nowhere"

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = list(records)

    def partition_of(self, key: str) -> int:
        """The only one."""
        return partition_of(key, 1)

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """The records from `start` on."""
        del topic, partition, wait_s
        return [record for record in self._records if record.offset >= start][:limit]

    async def bounds(self, topic: Topic, partition: int) -> Bounds:
        """All of them."""
        del topic, partition
        return Bounds(0, len(self._records))

    async def append(self, topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        """Nobody appends here."""
        del topic, partition, entries
        raise Rejected("this log is only read")

    async def close(self) -> None:
        """Nothing is open."""


@cache
def parts() -> tuple[bytes, ...]:
    """Two sound checkpoints of one part each, the later one last."""
    pool = small_pool()
    made = [entry.value for entry in checkpoint_entries(pool.state, 7, 0)]
    pool.run(2)
    made += [entry.value for entry in checkpoint_entries(pool.state, 9, 1)]
    return tuple(value for value in made if value is not None)


def checkpoint_parts(data: bytes) -> None:
    """Records of the state topic: sound ones, damaged ones, ones whose place was changed, and anything else."""
    draw = Draw(data)
    records: list[Record] = []
    for number in range(MOST_PIECES):
        if not draw.left:
            break
        how, base = draw.byte() % 4, draw.pick(parts())
        value = base
        if how == 0:
            value = draw.piece()
        elif how == 1:
            value = edited(base, Draw(draw.piece()))
        elif how == 2:
            value = _moved(base, draw)
        records.append(Record(number, b"key-%d" % number, value))
    restored = asyncio.run(find_checkpoint(StateLog(records), 0))
    assert restored.revision >= -1
    assert restored.state.log_id == LOG_ID
    for reason in restored.refused:
        reason.encode()
    if restored.revision == -1:
        assert export_state(restored.state) == export_state(PartitionState(log_id=LOG_ID, partition=0))
    else:
        _restored(restored.state)


def _moved(base: bytes, draw: Draw) -> bytes:
    """A sound part that says it stands elsewhere."""
    part = decode_checkpoint(base)
    number = draw.pick((0, 1, 2, 2**31, 2**32 - 1))
    changes = (
        {"schema": number},
        {"log_id": LogId("another")},
        {"partition": number},
        {"epoch": number},
        {"revision": number},
        {"part": number},
        {"parts": number},
        {"crc": number},
        {"payload": b""},
    )
    fields = {name: getattr(part, name) for name in part.__slots__}
    return encode_checkpoint(CheckpointPart(**{**fields, **draw.pick(changes)}))
