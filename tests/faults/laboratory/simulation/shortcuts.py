"""What makes a run cheap without making it another: reading the same bytes twice gives the same thing.

Owners, successors, replay and checker all decode the same inputs, and inputs are values that nobody changes. It also
has checkpoints made often enough for runs of less than a minute to have some.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any
from unittest.mock import patch

from flyball_controller import owner, replay
from flyball_controller.machine import orders
from flyball_core.inputs import Input
from flyball_policies.reading import read_document
from flyball_proto.codec import decode_input
from harness import invariants

CHECKPOINT_TICKS = 15
_MOST_KEPT = 4_096


@contextmanager
def shortcuts() -> Iterator[None]:
    """Within it, nothing is read twice."""

    @lru_cache(maxsize=_MOST_KEPT)
    def content(value: bytes | None) -> Input:
        return decode_input(0, value)

    def decoded(offset: int, value: bytes | None) -> Input:
        return content(value)._replace(offset=offset)

    document = lru_cache(maxsize=64)(read_document)
    replaced: tuple[tuple[ModuleType, str, Any], ...] = (
        (owner, "decode_input", decoded),
        (replay, "decode_input", decoded),
        (invariants, "decode_input", decoded),
        (invariants, "read_document", document),
        (orders, "read_document", document),
        (import_module("flyball_controller.machine.step"), "CHECKPOINT_TICKS", CHECKPOINT_TICKS),
    )
    with ExitStack() as stack:
        for module, name, what in replaced:
            stack.enter_context(patch.object(module, name, what))
        yield
