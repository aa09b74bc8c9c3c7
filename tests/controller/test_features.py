"""Features: rates only within one source, missing is NaN and never zero, damage is no measurement."""

import math
from typing import Any

import numpy as np
import pytest

from flyball_controller.machine.features import (
    DEGRADED_TICKS,
    Measured,
    mark_degraded,
    measure,
    pool_features,
    queue_features,
)
from flyball_controller.machine.filing import file_frame, release_frames
from flyball_controller.machine.state import PoolState
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GatewaySample, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, PoolId

STALE_TICKS = 3


class Course:
    """A pool that gets one frame a second and measures at each tick."""

    def __init__(self) -> None:
        self.pool = PoolState(pool="chat")
        self.now = 0
        self.measured: Measured = measure(self.pool, STALE_TICKS)

    def second(
        self,
        *engines: EngineSample,
        gpus: tuple[GpuSample, ...] = (),
        gateways: tuple[GatewaySample, ...] = (),
        boot: str = "b0",
        elapsed_s: float = 1.0,
    ) -> Measured:
        """File one frame, let its lateness window pass, measure, and end the tick."""
        made = Frame(
            agent=AgentId("a0"),
            boot=BootId(boot),
            pool=PoolId("chat"),
            seq=self.now,
            wall_s=0.0,
            monotonic_s=100.0 + self.now * elapsed_s,
            backlog=False,
            gpus=gpus,
            engines=engines,
            gateways=gateways,
        )
        file_frame(self.pool, made, float(self.now))
        release_frames(self.pool, self.now + 50.0, 1.0)
        self.measured = measure(self.pool, STALE_TICKS)
        self.pool.features = pool_features(self.measured, queue_features(self.pool, STALE_TICKS), self.pool.features)
        self.now += 1
        self.pool.tick += 1
        return self.measured

    def column(self, name: str) -> list[float]:
        """A column as a plain list."""
        found: list[float] = self.measured.columns[name].tolist()
        return found


def sample(
    engine: str = "e0", *, rank: int = 0, incarnation: str = "i0", gpus: tuple[int, ...] = (0,), **numbers: Any
) -> EngineSample:
    """A sample with these numbers and no others."""
    return EngineSample(EngineId(engine), Incarnation(incarnation), rank, gpus, "graphs", **numbers)


def test_rates_come_from_differences_over_the_agents_own_clock() -> None:
    """100 tokens in half a second of the agent's clock are 200 a second."""
    course = Course()
    course.second(sample(generation_tokens_total=1000.0), elapsed_s=0.5)
    course.second(sample(generation_tokens_total=1100.0), elapsed_s=0.5)

    assert [200.0] == course.column("gen_tokens_per_s")


def test_means_come_from_sums_over_counts() -> None:
    """TPOT of an interval is the growth of the sum over the growth of the count."""
    course = Course()
    course.second(sample(itl_s_sum=10.0, itl_count=100.0))
    course.second(sample(itl_s_sum=14.0, itl_count=200.0))

    assert [0.04] == course.column("tpot_s")


MISSING = {
    "generation_tokens_total": "gen_tokens_per_s",
    "prompt_tokens_total": "prompt_tokens_per_s",
    "requests_finished_total": "finished_per_s",
    "preemptions_total": "preemptions_per_s",
    "itl_s_sum": "tpot_s",
    "itl_count": "tpot_s",
    "ttft_s_sum": "ttft_s",
    "ttft_count": "ttft_s",
    "queue_s_sum": "queue_s",
    "queue_count": "queue_s",
    "requests_running": "running",
    "requests_waiting": "waiting",
    "kv_used_ratio": "kv_used_ratio",
    "kv_capacity_tokens": "kv_capacity_tokens",
}

FULL: dict[str, Any] = dict.fromkeys(MISSING, 0.5)


@pytest.mark.parametrize(("number", "column"), MISSING.items())
def test_what_is_missing_is_nan_never_zero(number: str, column: str) -> None:
    """A number that did not come leaves its column NaN, and the pool's feature absent."""
    course = Course()
    for second in range(2):
        numbers: dict[str, Any] = {name: value + second for name, value in FULL.items() if name != number}
        numbers |= {"kv_used_ratio": 0.5} if number != "kv_used_ratio" else {}
        course.second(sample(**numbers))

    assert math.isnan(course.column(column)[0])
    assert all(math.isfinite(value) for value in course.pool.features.values())
    absent = {"preemptions_total": "preemptions_per_s", "kv_used_ratio": "kv_used_max", "requests_running": "running"}
    assert absent.get(number, column) not in course.pool.features or column == "kv_capacity_tokens"


@pytest.mark.parametrize(
    ("name", "rate"), [("requests_finished_total", 100.0), ("preemptions_total", 100.0), ("queue_s_sum", 1.0)]
)
def test_a_counter_that_went_back_gives_no_rate(name: str, rate: float) -> None:
    """After a reset the rate is missing for one tick, and right again at the next."""
    course, rates = Course(), []
    for number in (1000.0, 1100.0, 20.0, 120.0):
        numbers: dict[str, Any] = {"queue_count": number, name: number}
        course.second(sample(**numbers))
        rates += course.column(MISSING[name])

    assert pytest.approx([math.nan, rate, math.nan, rate], nan_ok=True) == rates


def test_a_reset_leaves_what_is_smoothed_as_it_was() -> None:
    """A smoothed column keeps its last value over a reset, and never shows a negative one."""
    course, rates = Course(), []
    for number in (1000.0, 1100.0, 20.0, 120.0):
        course.second(sample(generation_tokens_total=number))
        rates += course.column("gen_tokens_per_s")

    assert pytest.approx([math.nan, 100.0, 100.0, 100.0], nan_ok=True) == rates


def test_no_rate_spans_two_incarnations() -> None:
    """A counter of the next incarnation is another counter, even if it is higher."""
    course = Course()
    course.second(sample(generation_tokens_total=10.0))
    course.second(sample(generation_tokens_total=5000.0, incarnation="i1"))

    assert math.isnan(course.column("gen_tokens_per_s")[0])


def test_no_rate_spans_two_boots_of_an_agent() -> None:
    """Another boot has another clock, so nothing is divided by it."""
    course = Course()
    course.second(sample(generation_tokens_total=10.0))
    course.second(sample(generation_tokens_total=20.0), boot="b1")

    assert math.isnan(course.column("gen_tokens_per_s")[0])


def test_ranks_of_one_engine_are_one() -> None:
    """Data-parallel ranks add up; of their KV caches the fuller counts; bandwidth is the mean of all their GPUs."""
    course = Course()
    gpus = tuple(GpuSample(i, "u", BandwidthSource.GPM, 0, hbm_bandwidth_ratio=0.2 + 0.6 * i) for i in range(2))
    for second in range(2):
        ranks = [
            sample(
                rank=rank,
                gpus=(rank,),
                requests_running=3.0 + rank,
                kv_used_ratio=0.4 + 0.3 * rank,
                generation_tokens_total=100.0 * second,
            )
            for rank in range(2)
        ]
        course.second(*ranks, gpus=gpus)

    assert [7.0] == course.column("running")
    assert [0.7] == course.column("kv_used_ratio")
    assert [200.0] == course.column("gen_tokens_per_s")
    assert [0.5] == course.column("hbm_ratio")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_rank_that_was_missing_for_a_tick_makes_no_rate(missing: int) -> None:
    """When one rank's sample is missing and comes back, its whole counter is not taken for one second's work."""
    course = Course()
    for second in range(5):
        ranks = [sample(rank=rank, generation_tokens_total=1e6 + 100.0 * second) for rank in range(2)]
        course.second(*(ranks if second != 2 else [ranks[1 - missing]]))
        rate = course.measured.columns["gen_tokens_per_s"].tolist()[0]

        assert math.isnan(rate) or 200.0 == rate


def test_damage_is_no_measurement() -> None:
    """Token rates beyond any engine and latencies beyond an hour are missing, not learned."""
    course = Course()
    course.second(sample(generation_tokens_total=0.0, itl_s_sum=0.0, itl_count=0.0))
    course.second(sample(generation_tokens_total=1e12, itl_s_sum=1e9, itl_count=1.0))

    assert math.isnan(course.column("gen_tokens_per_s")[0])
    assert math.isnan(course.column("tpot_s")[0])


def test_an_empty_engine_has_no_latency() -> None:
    """What was smoothed while it ran is history once nothing runs."""
    course = Course()
    for i in range(4):
        course.second(sample(requests_running=2.0, itl_s_sum=float(i), itl_count=10.0 * i))
    course.second(sample(requests_running=0.0, itl_s_sum=3.0, itl_count=30.0))

    assert math.isnan(course.column("tpot_s")[0])


def test_an_engine_whose_gauge_reads_0_while_tokens_come_is_not_empty() -> None:
    """The gauge may miss what the counters show: then what was measured stands."""
    course = Course()
    for i in range(3):
        course.second(sample(requests_running=2.0, itl_s_sum=float(i), itl_count=10.0 * i))
    course.second(sample(requests_running=0.0, itl_s_sum=3.0, itl_count=30.0))

    assert [0.1] == course.column("tpot_s")
    course.second(sample(requests_running=0.0, itl_s_sum=3.0, itl_count=30.0))

    assert [True] == [math.isnan(value) for value in course.column("tpot_s")]


def test_an_engine_without_telemetry_is_stale_and_left_out() -> None:
    """After its last sample an engine is fresh for `stale_ticks` ticks; then the pool's features do without it."""
    course = Course()
    course.second(sample("e0", requests_running=3.0), sample("e1", requests_running=4.0))
    fresh = []
    for _ in range(STALE_TICKS + 2):
        course.second(sample("e0", requests_running=3.0))
        fresh.append(course.measured.fresh.tolist())

    assert [[True, True]] * STALE_TICKS + [[True, False]] * 2 == fresh
    assert 3.0 == course.pool.features["running"]
    assert 2.0 == course.pool.features["engines"]
    assert 1.0 == course.pool.features["engines_fresh"]


def test_a_pool_without_engines_has_features_all_the_same() -> None:
    """Nothing measured: the numbers of engines, and nothing else."""
    pool = PoolState(pool="chat")

    assert {"engines": 0.0, "engines_fresh": 0.0} == pool_features(measure(pool, STALE_TICKS), {}, {})


def test_queues_of_gateways_add_up_and_survive_resets() -> None:
    """Queued is a sum over lanes and gateways; arrivals and waits come from differences within one incarnation."""
    course = Course()
    for second, incarnation in enumerate(("g0", "g0", "g1", "g1")):
        lanes = tuple(
            GatewaySample(
                GatewayId("gw"),
                Incarnation(incarnation),
                lane,
                requests_queued=2.0,
                requests_total=10.0 * second,
                queue_s_sum=4.0 * second,
                queue_count=2.0 * second,
            )
            for lane in ("realtime", "bulk")
        )
        course.second(sample(), gateways=lanes)
        features = course.pool.features

        assert 4.0 == features["queued"]
        assert (second in (1, 3)) == ("queue_s" in features)
        assert 2.0 == features.get("queue_s", 2.0)


def degrade(course: Course, seconds: int, slowness: float) -> list[str]:
    """Four engines for some seconds, the first slower than its peers; who was newly marked."""
    marked = []
    for _ in range(seconds):
        samples = []
        for i in range(4):
            tpot = 0.02 * (slowness if i == 0 else 1.0)
            steps = 100.0 * (course.now + 1)
            samples.append(
                sample(
                    f"e{i}",
                    requests_running=5.0,
                    kv_used_ratio=0.5,
                    kv_capacity_tokens=1e4,
                    itl_s_sum=tpot * steps,
                    itl_count=steps,
                )
            )
        course.second(*samples)
        marked += [engine.engine for engine in mark_degraded(course.measured)]
    return marked


def test_an_engine_slower_than_its_peers_is_marked_once_and_mends() -> None:
    """Twice as slow at the same mix: degraded after its ticks, told once; as fast again: mended."""
    course = Course()

    assert [] == degrade(course, 20, 1.1)
    assert ["e0"] == degrade(course, DEGRADED_TICKS + 10, 2.0)
    assert course.pool.engines["e0"].degraded
    # Its counters are sums over its life here, so the way back shows only in a new incarnation.
    for engine in course.pool.engines.values():
        engine.source = ""
    assert [] == degrade(course, DEGRADED_TICKS + 20, 1.0)
    assert not course.pool.engines["e0"].degraded


def test_two_engines_are_too_few_to_tell_which_is_slow() -> None:
    """With fewer than three measured engines nobody is called degraded."""
    course = Course()
    for i in range(40):
        samples = [
            sample(
                f"e{k}",
                requests_running=5.0,
                kv_used_ratio=0.1,
                kv_capacity_tokens=1e4,
                itl_s_sum=i * (1.0 + k),
                itl_count=i * 10.0,
            )
            for k in range(2)
        ]
        course.second(*samples)

        assert [] == mark_degraded(course.measured)


def test_measuring_gives_no_warning_for_any_row() -> None:
    """The largest numbers that filing lets through make no overflow and no infinity."""
    course = Course()
    for number in (0.0, 1e17, 0.0, 5e-324, 1e17):
        numbers: dict[str, Any] = {name: number if name != "kv_used_ratio" else 1.0 for name in MISSING}
        course.second(sample(**numbers))
        for column in course.measured.columns.values():
            assert not np.isinf(column).any()
        assert all(math.isfinite(value) for value in course.pool.features.values())
