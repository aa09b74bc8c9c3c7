"""What became of a request, told once for each, in the moment in which it is known.

A fleet hands every `Outcome` to one `Record` and keeps none, so its memory does not grow with its
trace. `Kept` keeps them all, for small runs; `flyball_twin.fleet.tallies` counts them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from flyball_core.ids import EngineId, PoolId
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request


class Status(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    REFUSED = "refused"
    """The engine that it came to cannot serve it (400)."""
    ABANDONED = "abandoned"
    """It waited too long at the gateway (`timeout queue`, 503)."""
    LOST = "lost"
    """Its engine broke off after the first token, or too often before it (a broken stream, or 502)."""
    OPEN = "open"
    """It had not ended when the run did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one request; times on the fleet's clock, of its last attempt. Infinity: it never came so far."""

    request: Request
    pool: PoolId
    engine: EngineId | None
    """Where it ended; None if it reached no engine."""
    status: Status = Status.FINISHED
    ended_s: float
    """When it finished, was refused, given up or lost; of an open one, the end of the run."""
    first_token_s: float = NEVER
    preemptions: int = 0
    attempts: int = 1
    """Engines that it was sent to: 1, and one more for each that went down under it."""
    reason: str = ""
    """Why it did not finish."""

    @property
    def lane(self) -> str:
        """Its lane."""
        return self.request.lane

    @property
    def session(self) -> str:
        """Its session; empty: none."""
        return self.request.session

    @property
    def finished(self) -> bool:
        """Whether it was answered in full."""
        return self.status is Status.FINISHED

    @property
    def finished_s(self) -> float:
        """When its last token came."""
        return self.ended_s if self.status is Status.FINISHED else NEVER

    @property
    def ttft_s(self) -> float:
        """From the request's arrival at the gateway to its first token."""
        return self.first_token_s - self.request.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None if there is only one, or it did not finish."""
        later = self.request.output_tokens - 1
        if later <= 0 or self.status is not Status.FINISHED:
            return None
        return (self.ended_s - self.first_token_s) / later

    @property
    def e2e_s(self) -> float:
        """From arrival to last token."""
        return self.finished_s - self.request.arrival_s


Record = Callable[[Outcome], None]
"""Told of every outcome once, in the order of their times."""


class Kept:
    """A `Record` that keeps everything: for runs small enough."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        """By request id, in the order in which they ended."""

    def __call__(self, outcome: Outcome) -> None:
        """Keep it."""
        self.outcomes[outcome.request.id] = outcome
