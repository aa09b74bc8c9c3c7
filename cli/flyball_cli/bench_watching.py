"""When records of a growing log became durable, seen from outside: a process of its own.

It does nothing but look at what the log's writer says is synced, every millisecond, so that what it sees does not
depend on how busy the measured or the measuring process is. It reads no record; whoever reads them afterwards
finds here when they were there. Ended by a signal.
"""

import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from flyball_log.embedded.watermark import synced_end

LOOK_S = 0.001
"""How often it looks: by so much at most a record is seen too late."""


def main() -> None:
    """Watch the partition in the folder of the first argument; lines `END WALL_S` go to the file of the second."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    going = True

    def end(number: int, frame: object) -> None:
        nonlocal going
        del number, frame
        going = False

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    known = 0
    with out.open("w", encoding="ascii") as lines:
        while going:
            synced = synced_end(folder)
            if synced != known:
                lines.write(f"{synced} {time.time():.6f}\n")
                lines.flush()
                known = synced
            time.sleep(LOOK_S)


def begun(out: Path) -> bool:
    """Whether the watching has begun."""
    return out.exists()


def seen(out: Path) -> list[tuple[int, float]]:
    """What was watched: offsets before which everything was durable, and since when (Unix seconds), in order."""
    return list(_parsed(out.read_text(encoding="ascii").splitlines()))


def _parsed(lines: Iterable[str]) -> Iterable[tuple[int, float]]:
    for line in lines:
        synced, wall_s = line.split()
        yield int(synced), float(wall_s)
