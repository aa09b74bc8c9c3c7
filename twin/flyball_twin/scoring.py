"""How well a fleet served: attainment of its lanes' objectives over *all* arrivals.

A request that did not finish missed its objective, whatever the reason; nothing leaves
the denominator. Percentiles are over finished requests, and say so by their count. This
module refuses to weigh lanes against each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from flyball_core.errors import Rejected
from flyball_twin.fleet import Outcome
from flyball_twin.workload import Request


class Answered(Protocol):
    """A finished request, as far as an objective asks about it; an `Outcome`, or what a client measured."""

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
        """From arrival to the last token."""
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
        """Whether the request finished within every bound; None is one that did not finish."""
        if outcome is None:
            return False
        if self.ttft_s is not None and outcome.ttft_s > self.ttft_s:
            return False
        if self.e2e_s is not None and outcome.e2e_s > self.e2e_s:
            return False
        tpot_s = outcome.tpot_s
        return self.tpot_s is None or tpot_s is None or tpot_s <= self.tpot_s


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
    """Over finished requests; None if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """One bin of a timeline: the requests that *arrived* in it, and what became of them."""

    from_s: float
    arrivals: Mapping[str, int]
    attained: Mapping[str, int]
    """By lane; lanes without arrivals are left out."""


def percentile(values: Iterable[float], share: float) -> float | None:
    """The nearest-rank percentile, `share` from 0 to 1; None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


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
    wanted = [request for request in requests if from_s <= request.arrival_s < to_s]
    met = {request.id: _slo(by_lane, request).met(outcomes.get(request.id)) for request in wanted}
    finished = [outcomes[request.id] for request in wanted if request.id in outcomes]
    lanes = {
        lane: sum(met[request.id] for request in wanted if request.lane == lane) / count
        for lane, count in _count(wanted).items()
    }
    attained = sum(met.values())
    ttfts = [outcome.ttft_s for outcome in finished]
    tpots = [tpot_s for outcome in finished if (tpot_s := outcome.tpot_s) is not None]
    return Score(
        arrivals=len(wanted),
        finished=len(finished),
        attained=attained,
        attainment=attained / len(wanted) if wanted else 1.0,
        lanes=lanes,
        slo_goodput_rps=attained / (to_s - from_s),
        ttft_p50_s=percentile(ttfts, 0.5),
        ttft_p99_s=percentile(ttfts, 0.99),
        tpot_p50_s=percentile(tpots, 0.5),
        tpot_p99_s=percentile(tpots, 0.99),
    )


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
            attained=_count([r for r in arrived if _slo(by_lane, r).met(outcomes.get(r.id))]),
        )
        for index, arrived in enumerate(bins)
    )


def _slo(by_lane: Mapping[str, Slo], request: Request) -> Slo:
    slo = by_lane.get(request.lane)
    if slo is None:
        raise Rejected(f"lane {request.lane!r} has no objective")
    return slo


def _count(requests: Iterable[Request]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for request in requests:
        counts[request.lane] = counts.get(request.lane, 0) + 1
    return counts
