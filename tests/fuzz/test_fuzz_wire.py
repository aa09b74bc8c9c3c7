"""Protobuf records and stream messages: whatever bytes come, the codec answers and `step` goes on."""

import math

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_core.inputs import Attach, Malformed
from flyball_proto.codec import decode_input
from flyball_proto.v1 import common_pb2, inputs_pb2
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


def attach(low: float, high: float) -> Attach | Malformed:
    """What is read of an attach whose knob has these bounds, and which holds an infinity."""
    record = inputs_pb2.InputRecord()
    record.attach.pool, record.attach.kind = "chat", common_pb2.TARGET_KIND_ENGINE
    record.attach.effective["speed"].real = math.inf
    record.attach.effective["cap"].integer = 3
    knob = record.attach.knobs.add(
        name="order", knob_class=common_pb2.KNOB_CLASS_LIVE, kind=common_pb2.KNOB_KIND_FLAG, minimum=low, maximum=high
    )
    knob.safe.flag = True
    body = decode_input(0, record.SerializeToString()).body
    assert isinstance(body, (Attach, Malformed))
    return body


@pytest.mark.parametrize(("low", "high"), [(math.nan, 1.0), (0.0, math.nan), (math.inf, math.inf), (0.0, -math.inf)])
def test_bounds_that_are_no_numbers_are_no_bounds(low: float, high: float) -> None:
    """Also of a flag, which has no use for them: they would stand in the state."""
    assert isinstance(attach(low, high), Malformed)


def test_an_infinite_bound_is_none_and_an_infinite_value_is_not_known() -> None:
    """What comes into the state is finite, whatever a receiver says that it holds."""
    body = attach(-math.inf, math.inf)

    assert isinstance(body, Attach)
    assert (None, None) == (body.knobs[0].minimum, body.knobs[0].maximum)
    assert {"cap": 3} == body.effective
