"""What came of a fleet's requests and what it looked like meanwhile, kept up as a run goes on.

A `Scorecard` is told of every outcome and takes looks at the fleet; its memory is flat in the run's length. It refuses
to look at the log: what was decided is `observing`'s.
"""

from collections import deque

from flyball_core.ids import PoolId
from flyball_twin.fleet.outcomes import Outcome
from flyball_twin.fleet.scoring import objective
from flyball_twin.fleet.tallies import Tally
from flyball_twin.governed.trail import Trail, bin_length_s
from flyball_twin.scenario.model import Scenario

LAST_REQUESTS = 200
"""How many of the latest outcomes `recent` looks at."""


class Scorecard:
    """One fleet's. Give `record` to the fleet."""

    def __init__(self, scenario: Scenario) -> None:
        """Raises as `Tally`."""
        self._slos = {slo.lane: slo for slo in scenario.slos}
        self.tally = Tally(scenario.slos, scenario.duration_s, scenario.phases, bin_s=bin_length_s(scenario.end_s))
        self.trail = Trail(scenario.end_s)
        self.output_tokens: dict[tuple[PoolId, str], int] = {}
        """Of finished requests, by pool and lane."""
        self._latest: deque[bool] = deque(maxlen=LAST_REQUESTS)
        self._ended = self._attained = 0

    def record(self, outcome: Outcome) -> None:
        """Count an outcome. Raises `Rejected` if its lane has no objective."""
        self.tally.record(outcome)
        met = objective(self._slos, outcome.lane).met(outcome)
        self._latest.append(met)
        self._ended += 1
        self._attained += met
        if outcome.finished:
            place = outcome.pool, outcome.lane
            self.output_tokens[place] = self.output_tokens.get(place, 0) + outcome.request.output_tokens

    @property
    def attainment(self) -> float:
        """Of all requests that have ended, the share that met their objective; 1 of none."""
        return self._attained / self._ended if self._ended else 1.0

    @property
    def recent(self) -> float:
        """The same of the latest `LAST_REQUESTS`."""
        return sum(self._latest) / len(self._latest) if self._latest else 1.0
