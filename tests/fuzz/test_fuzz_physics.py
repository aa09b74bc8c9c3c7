"""What the twin's physics is read from: refused in words, or taken and good for finite answers."""

from hypothesis import HealthCheck, given, settings

from fuzz_physics import kernel_file, kernel_table, model_config
from fuzz_strategies import mutated


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("kernel_file"))
def test_kernel_file_with_any_bytes(data: bytes) -> None:
    """A file is refused, or answers every question and can be written again."""
    kernel_file(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("kernel_table"))
def test_kernel_table_with_any_bytes(data: bytes) -> None:
    """A table is refused, or becomes a kernel file that answers."""
    kernel_table(data)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("model_config"))
def test_model_config_with_any_bytes(data: bytes) -> None:
    """A config is refused, or is a model with weights."""
    model_config(data)
