"""How long faults last: scaled down in every run, at full length in `make faults-full`.

A figure that is only measured, not promised, is reported here and asserted nowhere.
"""

import json
import os
import time
from pathlib import Path
from typing import TypeVar

FULL = "FLYBALL_FAULTS"
"""Environment: `full` asks for full lengths and counts."""
REPORT = "FLYBALL_FAULTS_REPORT"
"""Environment: a file that takes one JSON line for each reported fault."""

T = TypeVar("T", int, float)


def full() -> bool:
    """Whether lengths and counts are those of the promise."""
    return os.environ.get(FULL) == "full"


def scaled(shortened: T, whole: T) -> T:
    """The length or count to use: `shortened` in every run, `whole` at full length."""
    return whole if full() else shortened


def report(fault: str, **figures: float | str) -> None:
    """Put what a fault's test measured on record, with names that carry the units."""
    file = os.environ.get(REPORT)
    if file:
        line = json.dumps({"fault": fault, "full": full(), "wall_s": round(time.time(), 1), **figures})
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(f"{line}\n")
