"""Plays seeds of the simulation by hand: `scripts/simulate --seed 17`, `--seeds 0:2000`, `--minutes 10`.

One seed prints its schedule, its timeline and the checker's verdict; many print what was found and how fast it went.
The exit code is 1 if anything was found.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Sequence

from laboratory.schedule import Schedule
from laboratory.simulation.campaign import COMMAND, play
from laboratory.simulation.world import simulate

DEFAULT = range(1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what is asked for; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__.partition("\n\n")[0])
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--seed", type=int, help="play this one and print all of it")
    asked.add_argument("--seeds", type=_span, metavar="A:B", help="play A up to B, without B")
    parser.add_argument("--minutes", type=float, help="stop after so long; without --seeds, from seed 0 on until then")
    parser.add_argument("--jobs", type=int, default=1, help="processes that play")
    parser.add_argument("--schedule", type=Schedule.from_json, help="of --seed, another schedule, as JSON")
    told = parser.parse_args(arguments)
    if told.seed is not None:
        return _one(told.seed, told.schedule)
    seeds = told.seeds or (DEFAULT if told.minutes is None else itertools.count())
    return _many(seeds, told.jobs, told.minutes)


def _one(seed: int, schedule: Schedule | None) -> int:
    outcome = simulate(seed, schedule)
    print(f"seed {seed}: {outcome.schedule.to_json()}")
    for event in outcome.record.happened:
        print(f"{event.at_s:8.3f} s  {event.event:<14} {event.target:<14} {event.detail}")
    print(outcome.verdict)
    for failure in outcome.failures:
        print(f"BROKEN {failure}")
    print(f"digest {outcome.digest():08x}; {COMMAND.format(seed=seed)}")
    return 1 if outcome.broken else 0


def _many(seeds: Iterable[int], jobs: int, minutes: float | None) -> int:
    shown = 0
    campaign = None
    for campaign in play(seeds, jobs=jobs, minutes=minutes):
        for finding in campaign.findings[shown:]:
            print(finding, flush=True)
        shown = len(campaign.findings)
    print(campaign)
    return 1 if shown else 0


def _span(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))


if __name__ == "__main__":
    sys.exit(main())
