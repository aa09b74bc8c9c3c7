"""A state as text that can be compared between runs whose inputs stand at other offsets."""

import gzip
import json
from typing import Any

from flyball_controller.machine import PartitionState
from flyball_controller.machine.export import export_state

_OF_OFFSETS = frozenset({"digest", "orders_end", "slow_revision", "decision", "counts"})


def state_text(state: PartitionState) -> str:
    """Everything in a state but offsets, what is made of them (ids, digests), and counters; bit-equal or not equal."""
    return json.dumps(_without_offsets(json.loads(gzip.decompress(export_state(state)))), indent=1)


def _without_offsets(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_offsets(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("$c") == "Version":
        return "a version"
    return {key: _without_offsets(item) for key, item in value.items() if key not in _OF_OFFSETS}
