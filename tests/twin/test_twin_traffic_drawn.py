"""Drawn arrivals have the rates and lengths that they are told, alike under a seed, and streams merge in order."""

from collections import Counter
from itertools import islice
from math import log, pi, sin
from random import Random
from statistics import fmean, median, pstdev

import pytest

from flyball_core.errors import Rejected
from flyball_twin.scenario.model import DiurnalSource, MmppSource
from flyball_twin.traffic.asking import Draft, play_diurnal, play_mmpp
from flyball_twin.traffic.lots import Lots
from flyball_twin.traffic.seam import NEVER
from flyball_twin.traffic.streams import Merged, OpenStream
from flyball_twin.workload import Request

STEADY = MmppSource(rates_rps=(5.0,), mean_stay_s=(60.0,), prompt_tokens=(900.0, 0.8), output_tokens=(150.0, 0.6))


def before(drafts: list[Draft], to_s: float) -> list[float]:
    """Arrivals up to that time; fails if the drafts do not reach it."""
    assert drafts[-1][0] > to_s
    return [draft[0] for draft in drafts if draft[0] < to_s]


def dispersion(arrivals: list[float], to_s: float, bin_s: float) -> float:
    """Variance over mean of the counts per bin: 1 for a Poisson process."""
    counts = Counter(int(arrival // bin_s) for arrival in arrivals)
    bins = [counts[index] for index in range(int(to_s / bin_s))]
    return float(pstdev(bins) ** 2 / fmean(bins))


def test_one_state_is_a_poisson_process_with_log_normal_lengths() -> None:
    """Rate and dispersion, and the median and spread of both lengths."""
    drafts = list(islice(play_mmpp(STEADY, Random(1)), 22_000))
    arrivals = before(drafts, 4000.0)
    prompts, outputs = [draft[1] for draft in drafts], [draft[2] for draft in drafts]

    assert 5.0 == pytest.approx(len(arrivals) / 4000.0, rel=0.03)
    assert 1.0 == pytest.approx(dispersion(arrivals, 4000.0, 10.0), abs=0.15)
    assert 900 == pytest.approx(median(prompts), rel=0.03)
    assert 150 == pytest.approx(median(outputs), rel=0.03)
    assert 0.8 == pytest.approx(pstdev(log(prompt) for prompt in prompts), rel=0.03)


def test_states_last_as_told_and_the_rate_is_theirs() -> None:
    """The rate is the mean over the states by time, and arrivals are far more uneven than a Poisson process's."""
    source = MmppSource(
        rates_rps=(1.0, 10.0, 0.0), mean_stay_s=(60.0, 20.0, 20.0), prompt_tokens=(9.0, 0.0), output_tokens=(9.0, 0.0)
    )
    drafts = list(islice(play_mmpp(source, Random(2)), 60_000))
    arrivals = before(drafts, 20_000.0)

    assert 2.6 == pytest.approx(len(arrivals) / 20_000.0, rel=0.06)
    assert dispersion(arrivals, 20_000.0, 20.0) > 20.0
    assert {(9, 9)} == {draft[1:3] for draft in drafts}


def test_a_day_swings_as_told() -> None:
    """In each eighth of the day the rate is the formula's; it first rises through its mean at the shift."""
    source = DiurnalSource(
        mean_rps=4.0, swing=0.5, period_s=8000.0, shift_s=1000.0, prompt_tokens=(9.0, 0.0), output_tokens=(9.0, 0.0)
    )
    drafts = list(islice(play_diurnal(source, Random(3)), 165_000))
    eighths = Counter(int(arrival % 8000.0 // 1000.0) for arrival in before(drafts, 40_000.0))

    for eighth in range(8):
        wanted = fmean(4.0 * (1 + 0.5 * sin(2 * pi * (eighth * 1000 + s - 1000) / 8000)) for s in range(1000))
        assert wanted == pytest.approx(eighths[eighth] / 5000.0, rel=0.05)


def test_prompt_and_answer_together_are_cut_off() -> None:
    """None is longer than the longest, none has no token."""
    source = MmppSource(
        rates_rps=(1.0,),
        mean_stay_s=(1.0,),
        prompt_tokens=(50.0, 3.0),
        output_tokens=(50.0, 3.0),
        longest_tokens=100,
    )
    drafts = list(islice(play_mmpp(source, Random(4)), 2000))

    assert 100 == max(draft[1] + draft[2] for draft in drafts)
    assert 1 == min(min(draft[1], draft[2]) for draft in drafts)


def test_the_seed_and_nothing_else_decides() -> None:
    """The same seed draws the same, another one something else."""
    first, again, other = (list(islice(play_mmpp(STEADY, Random(seed)), 50)) for seed in (1, 1, 2))

    assert first == again != other


def lots(seed: str = "1/0") -> Lots:
    """Two pools, two lanes."""
    return Lots({"a": 3.0, "b": 1.0}, {"x": 0.5, "y": 0.5}, {("a", "y"): 7}, seed)


def stream(index: int, to_s: float, seed: str = "1/0") -> OpenStream:
    """Steady traffic."""
    return OpenStream(index, play_mmpp(STEADY, Random(seed)), lots(seed), 100.0, to_s)


def drained(merged: Merged) -> list[Request]:
    """All of its requests."""
    found: list[Request] = []
    while merged.next_s() < NEVER:
        assert merged.next_s() == merged.next_s()
        found.append(merged.take())
    return found


def test_streams_merge_in_order_of_arrival() -> None:
    """Ids count arrivals, each stream keeps to its own time, and all of both is there."""
    alone = [drained(Merged([stream(0, 400.0, "a")])), drained(Merged([stream(0, 300.0, "b")]))]
    merged = drained(Merged([stream(0, 400.0, "a"), stream(1, 300.0, "b")]))
    arrivals = [request.arrival_s for request in merged]

    assert list(range(len(alone[0]) + len(alone[1]))) == [request.id for request in merged]
    assert sorted(arrivals) == arrivals
    assert arrivals == sorted(request.arrival_s for requests in alone for request in requests)
    assert arrivals[0] >= 100.0
    assert arrivals[-1] < 400.0


def test_pools_and_lanes_follow_their_shares_with_their_priority() -> None:
    """Drawn by the seed alone; the priority is that of the lane in that pool."""
    requests = drained(Merged([stream(0, 1100.0)]))
    pools, lanes = Counter(one.pool for one in requests), Counter(one.lane for one in requests)

    assert 0.75 == pytest.approx(pools["a"] / len(requests), abs=0.03)
    assert 0.5 == pytest.approx(lanes["x"] / len(requests), abs=0.03)
    assert {("a", "y", 7), ("a", "x", 0), ("b", "x", 0), ("b", "y", 0)} == {
        (one.pool, one.lane, one.priority) for one in requests
    }


def test_a_session_draws_once_for_all_its_requests() -> None:
    """By its name: evenly over sessions, the same whenever it is asked."""
    drawn = Counter(lots().of_session(f"s-{number}")[0] for number in range(2000))

    assert 0.75 == pytest.approx(drawn["a"] / 2000, abs=0.03)
    assert [lots().of_session("s-1")] * 3 == [lots().of_session("s-1") for _ in range(3)]


@pytest.mark.parametrize("shares", [{}, {"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": float("nan")}])
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    """None at all, negative ones, or nothing in sum."""
    with pytest.raises(Rejected, match="shares"):
        Lots(shares, {"x": 1.0}, {}, "1")
