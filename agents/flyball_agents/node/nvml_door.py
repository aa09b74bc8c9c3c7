"""The one way to NVML: every answer that is none gets a name and is counted.

Tells troubles of one value from those of the whole driver. Never raises what pynvml raises, and
holds no opinion on what a missing value means.
"""

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import pynvml

_T = TypeVar("_T")

_PREFIX = "NVML_ERROR_"
_NAMES: dict[int, str] = {
    getattr(pynvml, name): name.removeprefix(_PREFIX) for name in dir(pynvml) if name.startswith(_PREFIX)
}

NOT_SUPPORTED = "NOT_SUPPORTED"
FUNCTION_NOT_FOUND = "FUNCTION_NOT_FOUND"
NO_PERMISSION = "NO_PERMISSION"
GPU_IS_LOST = "GPU_IS_LOST"

LASTING = frozenset({NOT_SUPPORTED, FUNCTION_NOT_FOUND, "ARGUMENT_VERSION_MISMATCH", "LIBRARY_MISMATCH"})
"""Asking again will not help until the driver is another one."""

DOWN = frozenset({GPU_IS_LOST, "UNINITIALIZED", "DRIVER_NOT_LOADED", "LIBRARY_NOT_FOUND", "LIB_RM_VERSION_MISMATCH"})
"""Nothing can be asked any more before NVML is opened anew."""


def error_name(code: int) -> str:
    """NVML's name of an error code, without its prefix; a code that this pynvml does not know keeps its number."""
    return _NAMES.get(code, f"CODE_{code}")


class Unanswered(Exception):
    """NVML gave no answer to one call; the others may go on."""

    def __init__(self, call: str, code: str) -> None:
        self.call = call
        self.code = code
        super().__init__(f"{call}: {code}")


class NvmlDown(Unanswered):
    """NVML as a whole, or the GPU that was asked, is gone: open it anew."""


class NvmlDoor:
    """Asks, and counts what went wrong. For one thread at a time; the counts may be read from any."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()
        """How often each call failed, by NVML's names of call and error."""

    def ask(self, call: str, function: Callable[[], _T]) -> _T:
        """What `function` returns. Raises `NvmlDown` if nothing can be asked any more, else `Unanswered`."""
        try:
            return function()
        except pynvml.NVMLError as error:
            code = error_name(error.value)
        except pynvml.NVMLLibraryMismatchError:
            code = "LIBRARY_MISMATCH"
        except UnicodeDecodeError:
            code = "UNREADABLE"
        raise self.failed(call, code)

    def must(self, call: str, function: Callable[[], _T]) -> _T:
        """As `ask`, for a call without which no other is of use: `NvmlDown` whatever went wrong."""
        try:
            return self.ask(call, function)
        except Unanswered as error:
            raise NvmlDown(error.call, error.code) from error

    def failed(self, call: str, code: str) -> Unanswered:
        """Count a failure that NVML reports inside an answer; the error to raise."""
        self.errors[call, code] += 1
        return NvmlDown(call, code) if code in DOWN else Unanswered(call, code)
