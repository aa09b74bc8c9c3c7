"""`scripts/soak --minutes N`: a soak, and its report on standard output.

Exit code 1 if a promise was broken or the fleet was once not itself again in time, 2 for a wrong argument, 3 if there
can be no Kafka here.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import pytest

from laboratory.soak.report import document, page
from laboratory.soak.soaking import soak

NO_BROKER = 3


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="A fleet with something of it always broken.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long at least; rounds are played to their end")
    parser.add_argument("--seed", type=int, default=1, help="from which the faults follow")
    parser.add_argument("--keep", type=Path, help="an empty folder for everything that is written; else it is deleted")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON document and nothing else")
    chosen = parser.parse_args()
    if not 0.0 < chosen.minutes <= 100_000.0:
        parser.error(f"--minutes is more than 0, not {chosen.minutes:g}")
    if chosen.keep is not None and chosen.keep.exists() and any(chosen.keep.iterdir()):
        parser.error(f"{chosen.keep} is not empty")
    with tempfile.TemporaryDirectory(prefix="flyball-soak-") as made:
        folder = (chosen.keep or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            found = document(asyncio.run(soak(chosen.minutes, chosen.seed, folder, _say)))
        except (pytest.skip.Exception, pytest.fail.Exception) as error:  # how the tests' broker says what is missing
            _say(f"soak: {error}")
            return NO_BROKER
    print(json.dumps(found, indent=2) if chosen.as_json else page(found))
    return 1 if found["promises"]["broken"] or found["settled_s"]["never"] else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
