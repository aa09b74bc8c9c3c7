"""Exporting and restoring the machine's state: plain JSON with named types, no pickle.

The payload is compressed JSON; floats go through `repr` and come back bit-equal. Only the
types listed here can be restored, each by its field names, so a payload can make nothing
else. A newer schema is refused in a sentence; damage is found by the CRC that travels
with the payload. Nothing here converts a state: what lacks a field that came later is read
only where that field's default says what was so before there was such a field.
"""

import json
import zlib
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from flyball_controller.machine import sequences, state
from flyball_controller.machine.state import PartitionState
from flyball_core import fencing, frames, inputs, knobs, outputs
from flyball_core.errors import Rejected

MAX_STATE_BYTES = 128 * 1024 * 1024
"""Largest state that is written or read, unpacked. Thousands of engines are some tens of MiB."""

_GZIP = 31
"""Tells zlib to write the gzip format, whose CRC-32 notices what zlib's own Adler-32 lets pass."""

SCHEMA = 2
"""Raised once in a release that has another shape of the state, or another meaning of a field, than the one before."""

OLDEST_SCHEMA = 1
"""The oldest that is read: that of the release before, unless a field was taken away or given another meaning."""

_DATACLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        sequences.SequenceSet,
        state.AgentState,
        state.BootState,
        state.Canary,
        state.Displaced,
        state.EngineState,
        state.GatewayState,
        state.Holding,
        state.OutcomeDue,
        state.PartitionState,
        state.PoolState,
        state.QueueState,
        state.RegimeState,
        state.Relaunch,
        fencing.Version,
        inputs.OverrideSet,
        inputs.Proposal,
        knobs.KnobSpec,
        outputs.DecisionRecord,
        outputs.Directive,
        outputs.LaneRule,
        outputs.RebaseNotice,
        outputs.Route,
        outputs.RoutingTable,
        outputs.Verdict,
    )
}
_FIELDS = {name: tuple(field.name for field in fields(kind)) for name, kind in _DATACLASSES.items()}
_SCALARS = frozenset({type(None), bool, int, float, str})
"""What most of a state is made of, and is plain already."""
_TUPLES: dict[str, Any] = {
    kind.__name__: kind for kind in (state.ClockReading, state.FiledFrame, state.Reading, frames.GatewaySample)
}
_ENUMS: dict[str, type[Enum]] = {
    kind.__name__: kind
    for kind in (
        frames.BandwidthSource,
        inputs.Mode,
        inputs.TargetKind,
        knobs.KnobClass,
        knobs.KnobKind,
        outputs.RecordKind,
    )
}


def export_state(partition: PartitionState) -> bytes:
    """The state as bytes; the same state gives the same bytes. `Rejected` if there is too much of it."""
    text = json.dumps(_plain(partition), separators=(",", ":")).encode()
    if len(text) > MAX_STATE_BYTES:
        raise Rejected(f"the state has {len(text)} bytes; the most that is read is {MAX_STATE_BYTES}")
    return zlib.compress(text, 6, wbits=_GZIP)


def restore_state(payload: bytes, schema: int) -> PartitionState:
    """The state of a payload. `Rejected` if it is of a schema that is not read here, damaged, or no state."""
    if schema > SCHEMA:
        raise Rejected(f"the state is of schema {schema}, written by a newer Flyball; this one knows {SCHEMA}")
    if schema < OLDEST_SCHEMA:
        known = f"{OLDEST_SCHEMA} to {SCHEMA}" if OLDEST_SCHEMA < SCHEMA else f"{SCHEMA}"
        raise Rejected(f"the state is of schema {schema}, too old for this Flyball, which knows {known}")
    try:
        found = _made(json.loads(_unpacked(payload)))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, zlib.error, RecursionError) as error:
        raise Rejected(f"the state cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(found, PartitionState):
        raise Rejected("the payload holds no state of a partition")
    return found


def _unpacked(payload: bytes) -> bytes:
    """The payload's text; raises `Rejected` before more than the most of it is unpacked, else as zlib does."""
    unpacking = zlib.decompressobj(wbits=_GZIP)
    text = unpacking.decompress(payload, MAX_STATE_BYTES)
    if not unpacking.eof:
        if unpacking.unconsumed_tail:
            raise Rejected(f"the state is larger than {MAX_STATE_BYTES} bytes")
        raise ValueError("it ends too early")
    return text


def _plain(value: Any) -> Any:  # noqa: ANN401 - any part of the state, told apart by its type
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Enum):
        return {"$e": type(value).__name__, "v": value.value}
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        name = type(value).__name__
        items = [_plain(item) for item in value]
        return {"$n": name, "v": items} if name in _TUPLES else {"$t": items}
    if isinstance(value, dict):
        return {"$d": [[_plain(key), _plain(item)] for key, item in value.items()]}
    name = type(value).__name__
    if is_dataclass(value) and name in _FIELDS:
        return {"$c": name, "v": {field: _plain(getattr(value, field)) for field in _FIELDS[name]}}
    raise Rejected(f"a {type(value).__name__} cannot be part of the machine's state")


def _made(value: Any) -> Any:  # noqa: ANN401 - any JSON, made into any part of the state
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$d" in value:
        return {_made(key): _made(item) for key, item in value["$d"]}
    if "$t" in value:
        return tuple(_made(item) for item in value["$t"])
    if "$c" in value:
        kind = _DATACLASSES[value["$c"]]
        return kind(**{name: _made(item) for name, item in value["v"].items()})
    if "$n" in value:
        return _TUPLES[value["$n"]](*[_made(item) for item in value["v"]])
    return _ENUMS[value["$e"]](value["v"])
