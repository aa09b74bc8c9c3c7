"""The part of atheris that Flyball uses."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

enabled_hooks: set[str]

def instrument_imports(include: Sequence[str] | None = None) -> AbstractContextManager[None]: ...
def Setup(args: Sequence[str], test_one_input: Callable[[bytes], None]) -> list[str]: ...  # noqa: N802 - the library's name
def Fuzz() -> None: ...  # noqa: N802 - as above
