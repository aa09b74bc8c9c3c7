"""A mad controller: bounds, fences and answers hold whatever it says."""

from hypothesis import HealthCheck, given, settings

from fuzz_receivers import receiver
from fuzz_strategies import mutated


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("receiver"))
def test_receiver_with_any_bytes(data: bytes) -> None:
    """Knobs stay within bounds, refused offers move nothing, versions never go back."""
    receiver(data)
