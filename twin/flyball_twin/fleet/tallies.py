"""Scores kept up as a run goes on, in memory that does not grow with it.

A `Tally` is told of every outcome and keeps counts and sketches per pool, lane and phase, and a timeline of at
most `BINS` bins: a longer run has longer ones. All arrivals count, those too that had not ended with the run
(`Fleet.close` tells of them). Percentiles are within `sketches.RELATIVE_ERROR`; all else is exact. It refuses to keep
outcomes.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flyball_core.errors import Rejected
from flyball_core.ids import PoolId
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.fleet.scoring import Counted, Minute, Phase, Score, Slo, objective
from flyball_twin.fleet.sketches import Sketch

BINS = 2048
"""How many bins a timeline has at most."""


@dataclass(slots=True)
class _Cell:
    """What is counted of one pool and lane in one phase."""

    by_status: dict[Status, int] = field(default_factory=dict)
    attained: int = 0
    ttft: Sketch = field(default_factory=Sketch)
    tpot: Sketch = field(default_factory=Sketch)
    e2e: Sketch = field(default_factory=Sketch)


class Tally:
    """Counts a run's outcomes; give `record` to the fleet."""

    def __init__(
        self, slos: Iterable[Slo], duration_s: float, phases: Iterable[Phase] = (), *, bin_s: float = 60.0
    ) -> None:
        """`duration_s` is how long requests arrive, by which goodput is reckoned; a phase holds what arrives in it.

        Raises `Rejected` if a length is not above 0 or phases overlap.
        """
        self._slos = {slo.lane: slo for slo in slos}
        self._duration_s = duration_s
        self._bin_s = bin_s
        self._phases = sorted(phases, key=lambda phase: phase.from_s)
        self._starts = [phase.from_s for phase in self._phases]
        if not (duration_s > 0.0 and bin_s > 0.0):
            raise Rejected(f"a tally and its bins last longer than {duration_s!r} s and {bin_s!r} s")
        for phase, following in zip(self._phases, self._phases[1:], strict=False):
            if following.from_s < phase.to_s:
                raise Rejected(f"phase {following.name!r} begins before {phase.name!r} ends")
        self._cells: dict[tuple[PoolId, str, str | None], _Cell] = {}
        self._bins: dict[tuple[PoolId, str], dict[int, list[int]]] = {}

    def record(self, outcome: Outcome) -> None:
        """Count an outcome. Raises `Rejected` if its lane has no objective."""
        request, status = outcome.request, outcome.status
        arrival_s, lane = request.arrival_s, request.lane
        met = objective(self._slos, lane).met(outcome)
        key = (outcome.pool, lane, self._phase_at(arrival_s))
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell()
        cell.by_status[status] = cell.by_status.get(status, 0) + 1
        cell.attained += met
        if status is Status.FINISHED:
            cell.ttft.add(outcome.ttft_s)
            cell.e2e.add(outcome.e2e_s)
            if (tpot_s := outcome.tpot_s) is not None:
                cell.tpot.add(tpot_s)
        self._place(outcome.pool, lane, arrival_s, met=met)

    def score(self, *, pool: PoolId | None = None, lane: str | None = None, phase: str | None = None) -> Score:
        """The score so far of what arrived in this pool, lane and phase; None: in any.

        Raises `Rejected` for a phase that there is not.
        """
        cells = [
            (lane_of, cell)
            for (pool_of, lane_of, phase_of), cell in self._cells.items()
            if pool in (None, pool_of) and lane in (None, lane_of) and phase in (None, phase_of)
        ]
        by_status: dict[Status, int] = {}
        by_lane: dict[str, tuple[int, int]] = {}
        for lane_of, cell in cells:
            arrivals, attained = by_lane.get(lane_of, (0, 0))
            by_lane[lane_of] = (arrivals + sum(cell.by_status.values()), attained + cell.attained)
            for status, count in cell.by_status.items():
                by_status[status] = by_status.get(status, 0) + count
        return Counted(
            by_status=by_status,
            by_lane={name: by_lane[name] for name in self._slos if name in by_lane},
            ttft=_merged(cell.ttft for _, cell in cells),
            tpot=_merged(cell.tpot for _, cell in cells),
            e2e=_merged(cell.e2e for _, cell in cells),
        ).score(self._duration_s if phase is None else self._length_s(phase))

    def timeline(self, pool: PoolId | None = None) -> tuple[Minute, ...]:
        """Arrivals and attainment by time of arrival, of one pool or of all, from 0 s to the last arrival."""
        kept = [(lane, bins) for (pool_of, lane), bins in self._bins.items() if pool in (None, pool_of)]
        last = max((max(bins) for _, bins in kept), default=-1)
        rows: list[Minute] = []
        for at in range(last + 1):
            arrivals: dict[str, int] = {}
            attained: dict[str, int] = {}
            for lane, bins in kept:
                if at in bins:
                    arrivals[lane] = arrivals.get(lane, 0) + bins[at][0]
                    attained[lane] = attained.get(lane, 0) + bins[at][1]
            attained = {lane: count for lane, count in attained.items() if count}
            rows.append(Minute(from_s=at * self._bin_s, arrivals=arrivals, attained=attained, length_s=self._bin_s))
        return tuple(rows)

    def _phase_at(self, arrival_s: float) -> str | None:
        at = bisect_right(self._starts, arrival_s) - 1
        return self._phases[at].name if at >= 0 and arrival_s < self._phases[at].to_s else None

    def _length_s(self, name: str) -> float:
        for phase in self._phases:
            if phase.name == name:
                return phase.to_s - phase.from_s
        raise Rejected(f"no phase {name!r}; there is {', '.join(phase.name for phase in self._phases)}")

    def _place(self, pool: PoolId, lane: str, arrival_s: float, *, met: bool) -> None:
        while arrival_s >= BINS * self._bin_s:
            self._bin_s *= 2.0
            for bins in self._bins.values():
                _fold(bins)
        bins = self._bins.setdefault((pool, lane), {})
        counts = bins.setdefault(int(arrival_s // self._bin_s), [0, 0])
        counts[0] += 1
        counts[1] += met


def _fold(bins: dict[int, list[int]]) -> None:
    """Make one bin of every two."""
    halved: dict[int, list[int]] = {}
    for at, (arrivals, attained) in bins.items():
        counts = halved.setdefault(at // 2, [0, 0])
        counts[0] += arrivals
        counts[1] += attained
    bins.clear()
    bins.update(halved)


def _merged(sketches: Iterator[Sketch]) -> Sketch:
    merged = Sketch()
    for sketch in sketches:
        merged.merge(sketch)
    return merged
