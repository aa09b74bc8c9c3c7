"""Checkpoints: restored, or refused with a reason."""

import tracemalloc
import zlib

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_controller.machine import export
from flyball_controller.machine.export import SCHEMA, restore_state
from flyball_core.errors import Rejected
from fuzz_checkpoints import checkpoint_parts, checkpoint_payload
from fuzz_strategies import mutated


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("checkpoint_payload"))
def test_checkpoint_payload_with_any_bytes(data: bytes) -> None:
    """A payload is a state that exports the same again, or `Rejected`."""
    checkpoint_payload(data)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("checkpoint_parts"))
def test_checkpoint_parts_with_any_bytes(data: bytes) -> None:
    """A successor restores a sound checkpoint or begins afresh, and never fails."""
    checkpoint_parts(data)


def test_a_payload_that_unpacks_to_gigabytes_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes in the state topic cannot take the memory of whoever restores: here the most is 4 MiB."""
    most = 4 * 1024 * 1024
    monkeypatch.setattr(export, "MAX_STATE_BYTES", most)
    packing = zlib.compressobj(9, wbits=31)
    bomb = b"".join([*(packing.compress(bytes(most)) for _ in range(16)), packing.flush()])
    tracemalloc.start()
    try:
        with pytest.raises(Rejected, match="larger than"):
            restore_state(bomb, SCHEMA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 3 * most > peak
