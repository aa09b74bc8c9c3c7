"""Logs of a whole fleet under rising load: where its median time to first token leaves the ground.

Such a log has one row per completed request, under several offered rates and several ways of routing
(`variant`). It is read as it stands. What it does not hold is refused or counted, never guessed: a request that
did not complete is not in it, so at overload its latencies are those of the lucky.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from statistics import median

from flyball_twin.validation.rows import Row
from flyball_twin.workload import PREFIX_TOKENS, Request

COLUMNS = (
    "prompt_tokens",
    "generation_tokens",
    "ttft",
    "generation_time",
    "user_id",
    "question_id",
    "launch_time",
    "variant",
    "target_qps",
)
OPTIONAL = ("release",)
KNEE = 1.5
"""A fleet is past its knee where the median time to first token is above so many times the unloaded one."""

SHARED_RUNS = 1
"""Leading runs of `PREFIX_TOKENS` that all prompts of the benchmark share: its system prompt has 1,000 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """One completed request; `launched_s` counts from the first of its variant."""

    launched_s: float
    user: int
    question: int
    """Its place in the user's conversation, from 1; each repeats what was said before."""
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    generation_s: float
    rate_rps: float
    """The rate that was offered when it was launched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetLog:
    """What one way of routing did at every offered rate, in the order of the launches."""

    variant: str
    requests: tuple[FleetRequest, ...]
    release: str = ""
    """Of the benchmark, which says what it ran on; empty where the table does not say."""

    @property
    def name(self) -> str:
        """What tells it from the other logs of a file."""
        return f"{self.release} {self.variant}".strip()

    @property
    def rates_rps(self) -> tuple[float, ...]:
        """The offered rates, rising."""
        return tuple(sorted({request.rate_rps for request in self.requests}))

    def counts(self) -> dict[float, int]:
        """Completed requests by offered rate."""
        counts = dict.fromkeys(self.rates_rps, 0)
        for request in self.requests:
            counts[request.rate_rps] += 1
        return counts

    def median_ttfts(self) -> dict[float, float]:
        """The measured median time to first token by offered rate, in seconds."""
        return medians((request.rate_rps, request.ttft_s) for request in self.requests)

    def workload(self, *, lane: str, seed: int = 0) -> tuple[Request, ...]:
        """The same questions for a twin: same launches and lengths, a session for each user, prefixes as it had them.

        All prompts begin with the benchmark's system prompt, go on with what is the user's own, and repeat the
        conversation so far; so a user's prompts share all whole runs of the shorter one. `seed` renames the
        users, which is all that routing by hash depends on.
        """
        return tuple(
            Request(
                id=index,
                arrival_s=request.launched_s,
                prompt_tokens=request.prompt_tokens,
                output_tokens=request.output_tokens,
                lane=lane,
                session=f"{seed}-{request.user}",
                turn=request.question - 1,
                prefix=_prefix(request),
            )
            for index, request in enumerate(self.requests)
        )


def _prefix(request: FleetRequest) -> tuple[int, ...]:
    runs = request.prompt_tokens // PREFIX_TOKENS
    own = 1 + request.user  # name 0 is the system prompt's
    return (0,) * min(SHARED_RUNS, runs) + (own,) * max(0, runs - SHARED_RUNS)


def medians(pairs: Iterable[tuple[float, float]]) -> dict[float, float]:
    """The median of the values of each rate, by rising rate."""
    by_rate: dict[float, list[float]] = {}
    for rate, value in pairs:
        by_rate.setdefault(rate, []).append(value)
    return {rate: median(by_rate[rate]) for rate in sorted(by_rate)}


def knee_rps(ttfts: Mapping[float, float]) -> float | None:
    """The lowest rate whose median is above `KNEE` times that of the lowest rate; None if there is none."""
    rates = sorted(ttfts)
    unloaded_s = ttfts[rates[0]]
    return next((rate for rate in rates if ttfts[rate] > KNEE * unloaded_s), None)


def steps_apart(rates: Sequence[float], one: float | None, other: float | None) -> int:
    """How many of the measured rate steps lie between two knees; none found counts as one step past the last."""
    places = {rate: place for place, rate in enumerate(rates)}
    beyond = len(rates)
    return abs((beyond if one is None else places[one]) - (beyond if other is None else places[other]))


def read_fleet_logs(rows: Iterable[Row]) -> list[FleetLog]:
    """One log for each release and variant, by name. Raises `InvalidDocument` for a row that is no request."""
    found: dict[tuple[str, str], list[FleetRequest]] = {}
    for row in rows:
        release = row.name("release") if "release" in row.cells else ""
        found.setdefault((release, row.name("variant")), []).append(_request(row))
    return [
        FleetLog(release=release, variant=variant, requests=_from_zero(requests))
        for (release, variant), requests in sorted(found.items())
    ]


def _request(row: Row) -> FleetRequest:
    return FleetRequest(
        launched_s=row.real("launch_time"),
        user=row.count("user_id"),
        question=row.count("question_id", least=1),
        prompt_tokens=row.count("prompt_tokens", least=1),
        output_tokens=row.count("generation_tokens", least=1),
        ttft_s=row.real("ttft", least=0.0),
        generation_s=row.real("generation_time", least=0.0),
        rate_rps=row.real("target_qps", least=0.0),
    )


def _from_zero(requests: list[FleetRequest]) -> tuple[FleetRequest, ...]:
    requests.sort(key=attrgetter("launched_s", "user"))
    start_s = requests[0].launched_s
    return tuple(replace(request, launched_s=request.launched_s - start_s) for request in requests)
