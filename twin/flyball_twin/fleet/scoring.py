"""How well a fleet served: attainment of its lanes' objectives over *all* arrivals.

A request that did not finish missed its objective, whatever the reason; nothing leaves
the denominator. Percentiles are over finished requests, and say so by their count. `score` and `timeline` are exact and
look at every outcome; `flyball_twin.fleet.tallies` counts as a run goes on, for long ones. This
module refuses to weigh lanes against each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

from flyball_core.errors import Rejected
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request


class Answered(Protocol):
    """A request that ended, as far as an objective asks about it; an `Outcome`, or what a client measured."""

    @property
    def ttft_s(self) -> float:
        """From arrival to the first token."""
        ...

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None if there is only one."""
        ...

    @property
    def e2e_s(self) -> float:
        """From arrival to the last token; infinity if it was not answered in full."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """What a lane promises each request; a bound that is None promises nothing."""

    lane: str
    ttft_s: float | None = None
    tpot_s: float | None = None
    """Mean time per output token after the first; a request of one token meets any."""
    e2e_s: float | None = None

    def met(self, outcome: Answered | None) -> bool:
        """Whether the request finished within every bound; None is one of which nothing was heard."""
        if outcome is None or outcome.e2e_s == NEVER:
            return False
        if self.ttft_s is not None and outcome.ttft_s > self.ttft_s:
            return False
        if self.e2e_s is not None and outcome.e2e_s > self.e2e_s:
            return False
        tpot_s = outcome.tpot_s
        return self.tpot_s is None or tpot_s is None or tpot_s <= self.tpot_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A named stretch of a scenario, for tables and pictures."""

    name: str
    from_s: float
    to_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One fleet's result over a span of arrivals."""

    arrivals: int
    finished: int
    attained: int
    attainment: float
    """Share of all arrivals that met their lane's objective; 1 if there were none."""
    lanes: Mapping[str, float]
    """The same per lane, for the lanes that had arrivals."""
    slo_goodput_rps: float
    """Requests per second that met their objective."""
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    tpot_p50_s: float | None
    tpot_p99_s: float | None
    ttft_p90_s: float | None = None
    tpot_p90_s: float | None = None
    e2e_p50_s: float | None = None
    e2e_p90_s: float | None = None
    e2e_p99_s: float | None = None
    """Over finished requests; None if there are none."""
    unfinished: Mapping[str, int] = field(default_factory=dict)
    """Arrivals that did not finish, by what became of them (`Status`); what nothing was heard of is `open`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """One bin of a timeline: the requests that *arrived* in it, and what became of them."""

    from_s: float
    arrivals: Mapping[str, int]
    attained: Mapping[str, int]
    """By lane; lanes without arrivals are left out."""
    length_s: float = 60.0


class Latencies(Protocol):
    """Times of finished requests."""

    def quantile(self, share: float) -> float | None:
        """The nearest-rank percentile, `share` from 0 to 1; None of nothing."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a score is made of."""

    by_status: Mapping[Status, int]
    by_lane: Mapping[str, tuple[int, int]]
    """Arrivals, and those that met the lane's objective."""
    ttft: Latencies
    tpot: Latencies
    e2e: Latencies

    def score(self, span_s: float) -> Score:
        """The score over a span of that length."""
        arrivals = sum(self.by_status.values())
        attained = sum(met for _, met in self.by_lane.values())
        return Score(
            arrivals=arrivals,
            finished=self.by_status.get(Status.FINISHED, 0),
            attained=attained,
            attainment=attained / arrivals if arrivals else 1.0,
            lanes={lane: met / count for lane, (count, met) in self.by_lane.items() if count},
            slo_goodput_rps=attained / span_s,
            ttft_p50_s=self.ttft.quantile(0.5),
            ttft_p90_s=self.ttft.quantile(0.9),
            ttft_p99_s=self.ttft.quantile(0.99),
            tpot_p50_s=self.tpot.quantile(0.5),
            tpot_p90_s=self.tpot.quantile(0.9),
            tpot_p99_s=self.tpot.quantile(0.99),
            e2e_p50_s=self.e2e.quantile(0.5),
            e2e_p90_s=self.e2e.quantile(0.9),
            e2e_p99_s=self.e2e.quantile(0.99),
            unfinished={
                status.value: count
                for status in Status
                if status is not Status.FINISHED and (count := self.by_status.get(status, 0))
            },
        )


class _Exact:
    """Every value."""

    def __init__(self, values: Iterable[float]) -> None:
        self._ordered = sorted(values)

    def quantile(self, share: float) -> float | None:
        """One of the values."""
        ordered = self._ordered
        return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def percentile(values: Iterable[float], share: float) -> float | None:
    """The nearest-rank percentile, `share` from 0 to 1; None of nothing."""
    return _Exact(values).quantile(share)


def score(
    requests: Sequence[Request],
    outcomes: Mapping[int, Outcome],
    slos: Iterable[Slo],
    *,
    from_s: float = 0.0,
    to_s: float,
) -> Score:
    """Score the requests that arrived from `from_s` up to `to_s`, whenever they finished.

    Raises `Rejected` if a lane has no objective or the span is empty.
    """
    if not to_s > from_s:
        raise Rejected(f"a span runs forward, not from {from_s!r} s to {to_s!r} s")
    by_lane = {slo.lane: slo for slo in slos}
    by_status: dict[Status, int] = {}
    lanes: dict[str, tuple[int, int]] = {}
    finished: list[Outcome] = []
    for request in requests:
        if not from_s <= request.arrival_s < to_s:
            continue
        outcome = outcomes.get(request.id)
        status = outcome.status if outcome is not None else Status.OPEN
        by_status[status] = by_status.get(status, 0) + 1
        count, met = lanes.get(request.lane, (0, 0))
        lanes[request.lane] = (count + 1, met + objective(by_lane, request.lane).met(outcome))
        if outcome is not None and outcome.finished:
            finished.append(outcome)
    return Counted(
        by_status=by_status,
        by_lane=lanes,
        ttft=_Exact(outcome.ttft_s for outcome in finished),
        tpot=_Exact(tpot_s for outcome in finished if (tpot_s := outcome.tpot_s) is not None),
        e2e=_Exact(outcome.e2e_s for outcome in finished),
    ).score(to_s - from_s)


def timeline(
    requests: Sequence[Request],
    outcomes: Mapping[int, Outcome],
    slos: Iterable[Slo],
    *,
    to_s: float,
    bin_s: float = 60.0,
) -> tuple[Minute, ...]:
    """Attainment by time of arrival, one `Minute` per bin from 0 s, the last one perhaps cut short.

    Raises `Rejected` if a lane has no objective or a bin no length.
    """
    if not bin_s > 0.0:
        raise Rejected(f"a bin is longer than {bin_s!r} s")
    by_lane = {slo.lane: slo for slo in slos}
    bins: list[list[Request]] = [[] for _ in range(ceil(to_s / bin_s))]
    for request in requests:
        if request.arrival_s < to_s:
            bins[int(request.arrival_s // bin_s)].append(request)
    return tuple(
        Minute(
            from_s=index * bin_s,
            arrivals=_count(arrived),
            attained=_count([r for r in arrived if objective(by_lane, r.lane).met(outcomes.get(r.id))]),
            length_s=bin_s,
        )
        for index, arrived in enumerate(bins)
    )


def objective(by_lane: Mapping[str, Slo], lane: str) -> Slo:
    """The objective of a lane. Raises `Rejected` if it has none."""
    slo = by_lane.get(lane)
    if slo is None:
        raise Rejected(f"lane {lane!r} has no objective")
    return slo


def _count(requests: Iterable[Request]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for request in requests:
        counts[request.lane] = counts.get(request.lane, 0) + 1
    return counts
