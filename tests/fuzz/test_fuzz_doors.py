"""What clients send over HTTP: answered properly, and nobody else's trouble."""

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz_doors import gateway_door, lanes, twin_request
from fuzz_strategies import mutated

pytestmark = pytest.mark.usefixtures("close_what_targets_keep")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("lanes"))
def test_lanes_with_any_bytes(data: bytes) -> None:
    """A request has one of the lanes that there are."""
    lanes(data)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("twin_request"))
def test_twin_request_with_any_bytes(data: bytes) -> None:
    """A completion is within bounds, or refused with a status of 400 to 499."""
    twin_request(data)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("gateway_door"))
def test_gateway_door_with_any_bytes(data: bytes) -> None:
    """The gateway answers or hangs up, and serves the next client."""
    gateway_door(data)
