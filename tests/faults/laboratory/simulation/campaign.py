"""Many seeds: played over some processes, each finding with the command that replays it."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from laboratory.simulation.world import simulate

COMMAND = "scripts/simulate --seed {seed}"
REPLAY_EACH = 8
"""One seed of so many is also replayed from its log: the promise that is dearest to look at."""
_BATCH = 16
_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """A seed that broke something."""

    seed: int
    broken: tuple[str, ...]

    def __str__(self) -> str:
        shown = [f"    {line[:300]}" for text in self.broken[:_MOST_SHOWN] for line in text.splitlines()[-6:]]
        return "\n".join([f"seed {self.seed}: {len(self.broken)} findings; {COMMAND.format(seed=self.seed)}", *shown])


@dataclass(slots=True)
class Campaign:
    """What became of the seeds played so far."""

    cases: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def per_minute(self) -> float:
        """Cases a minute, of wall time."""
        return self.cases / self.seconds * 60.0 if self.seconds else 0.0

    def __str__(self) -> str:
        had = ", ".join(f"{number} {what}" for what, number in sorted(self.figures.items()))
        return (
            f"{self.cases} cases in {self.seconds:.1f} s, {self.per_minute:.0f} a minute, "
            f"{len(self.findings)} with findings\nin all: {had}"
        )


def try_seed(seed: int) -> tuple[Finding | None, dict[str, int]]:
    """Play one seed; what it broke, if anything, and what there was in it."""
    outcome = simulate(seed, replays=seed % REPLAY_EACH == 0)
    broken = outcome.broken
    looked_at = outcome.figures | {"applied": len(outcome.record.applied)}
    return (Finding(seed, tuple(broken)) if broken else None), looked_at


def play(seeds: Iterable[int], *, jobs: int = 1, minutes: float | None = None) -> Iterator[Campaign]:
    """Play the seeds, for so long at most; what became of them so far, after every handful."""
    campaign, began_s = Campaign(), time.monotonic()
    remaining = iter(seeds)
    with ProcessPoolExecutor(jobs) as pool:
        while batch := list(islice(remaining, _BATCH * jobs)):
            tried = pool.map(try_seed, batch, chunksize=4) if jobs > 1 else map(try_seed, batch)
            for finding, figures in tried:
                campaign.cases += 1
                campaign.figures.update(figures)
                if finding is not None:
                    campaign.findings.append(finding)
            campaign.seconds = time.monotonic() - began_s
            yield campaign
            if minutes is not None and campaign.seconds > minutes * 60.0:
                return
