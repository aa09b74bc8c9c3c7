"""Protobuf records and stream messages: whatever bytes come, the codec answers and `step` goes on."""

from hypothesis import HealthCheck, given, settings

from fuzz_strategies import mutated
from fuzz_wire import inputs, outputs, streams


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("inputs"))
def test_inputs_with_any_bytes(data: bytes) -> None:
    """Records, damaged and out of their order, are taken or counted; what is answered can be published."""
    inputs(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("outputs"))
def test_outputs_with_any_bytes(data: bytes) -> None:
    """A record that is none is `Rejected`; one that is reads back the same."""
    outputs(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("streams"))
def test_streams_with_any_bytes(data: bytes) -> None:
    """Receivers', pushers' and agents' messages are read or refused with a reason."""
    streams(data)
