"""What makes a run cheap without making it another: reading the same bytes twice gives the same thing.

Owners, successors, replay and checker all decode the same inputs, and inputs are values that nobody changes; receivers
describe the same knobs at every beat. It also has checkpoints made often enough for short runs to have some.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

from flyball_agents import gateway_adapter, receiver
from flyball_agents.surface import capability_hash
from flyball_controller import owner, replay
from flyball_controller.machine import orders
from flyball_core.inputs import Input
from flyball_core.knobs import KnobSpec
from flyball_policies.reading import read_document
from flyball_proto.codec import decode_input
from harness import invariants

CHECKPOINT_TICKS = 15
_MOST_KEPT = 4_096


_document = lru_cache(maxsize=64)(read_document)
_spec = lru_cache(maxsize=256)(gateway_adapter._spec)  # noqa: SLF001 - asked for at every beat, always the same


@lru_cache(maxsize=256)
def _hash(specs: tuple[KnobSpec, ...]) -> str:
    return capability_hash(specs)


def _capabilities(specs: Iterable[KnobSpec]) -> str:
    return _hash(tuple(specs))


@contextmanager
def shortcuts() -> Iterator[None]:
    """Within it, nothing is read twice."""

    @lru_cache(maxsize=_MOST_KEPT)
    def content(value: bytes | None) -> Input:
        return decode_input(0, value)

    def decoded(offset: int, value: bytes | None) -> Input:
        return content(value)._replace(offset=offset)

    replaced: tuple[tuple[ModuleType, str, Any], ...] = (
        (owner, "decode_input", decoded),
        (replay, "decode_input", decoded),
        (invariants, "decode_input", decoded),
        (invariants, "read_document", _document),
        (orders, "read_document", _document),
        (receiver, "capability_hash", _capabilities),
        (gateway_adapter, "_spec", _spec),
        (import_module("flyball_controller.machine.step"), "CHECKPOINT_TICKS", CHECKPOINT_TICKS),
    )
    with ExitStack() as stack:
        for module, name, what in replaced:
            stack.enter_context(patch.object(module, name, what))
        yield
