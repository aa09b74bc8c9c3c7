"""Samplers keep their contract, and what several of them read becomes one picture per pool."""

import math

import pytest

from flyball_agents.sampling import PooledEngine, PooledGateway, PoolView, Reading, Sampler, Sampling
from flyball_core.frames import BandwidthSource
from flyball_core.ids import UNASSIGNED, Incarnation
from node_bench import CHAT, CODE, Source, chat_source, engine, gateway, gpu
from receiver_bench import odd as odd_thing
from sampler_contract import SamplerContract


class TestSourceKeepsTheContract(SamplerContract):
    """The tests' own sampler is one."""

    def sampler(self) -> Sampler:
        """A source with a GPU, an engine and a gateway."""
        source = chat_source()
        source.gpus += (gpu(1, hbm_bandwidth_ratio=0.5),)
        source.gateways = (PooledGateway(CHAT, gateway(requests_queued=2.0)),)
        return source


def test_gpus_go_to_the_pools_of_their_engines() -> None:
    """A GPU shared by two pools is in both, one of no engine is unassigned, and pools come in order."""
    source = Source()
    source.gpus = (gpu(0), gpu(1), gpu(2))
    source.engines = (PooledEngine(CODE, engine("e2", (1,))), PooledEngine(CHAT, engine("e1", (0, 1))))

    assert list(Sampling((source,)).take(5.0).items()) == [
        (UNASSIGNED, PoolView((gpu(2),), (), ())),
        (CHAT, PoolView((gpu(0), gpu(1)), (engine("e1", (0, 1)),), ())),
        (CODE, PoolView((gpu(1),), (engine("e2", (1,)),), ())),
    ]


def test_a_gateway_is_in_the_pool_it_speaks_of() -> None:
    """A node without GPUs still has a frame to send."""
    source = Source()
    source.gateways = (PooledGateway(CODE, gateway(lane="bulk")), PooledGateway(CODE, gateway(lane="agent")))

    assert Sampling((source,)).take(5.0) == {CODE: PoolView((), (), (gateway(lane="agent"), gateway(lane="bulk")))}


def test_nothing_read_is_no_frame() -> None:
    """A pool that nobody reported is not there; it is not reported as empty."""
    assert Sampling((Source(),)).take(5.0) == {}
    assert Sampling(()).take(5.0) == {}


def test_two_samplers_of_one_thing_complete_each_other() -> None:
    """What the first leaves missing comes from the second; what it has stays, zero included."""
    first, second = Source("nvml"), Source("dcgm")
    first.gpus = (gpu(0, power_w=0.0)._replace(throttle_reasons=4),)
    second.gpus = (gpu(0, power_w=9.0, hbm_bandwidth_ratio=0.5)._replace(throttle_reasons=8),)
    first.engines = (PooledEngine(CHAT, engine(requests_running=0.0)._replace(variant="", gpus=())),)
    second.engines = (PooledEngine(CHAT, engine(requests_running=7.0, requests_waiting=2.0)),)
    first.gateways = (PooledGateway(CHAT, gateway(requests_queued=1.0)),)
    second.gateways = (PooledGateway(CHAT, gateway(requests_queued=2.0, requests_total=3.0)),)
    view = Sampling((first, second)).take(5.0)[CHAT]

    assert view.gpus == (gpu(0, power_w=0.0, hbm_bandwidth_ratio=0.5)._replace(throttle_reasons=12),)
    assert view.engines == (engine(requests_running=0.0, requests_waiting=2.0),)
    assert view.gateways == (gateway(requests_queued=1.0, requests_total=3.0),)


def test_a_bandwidth_keeps_the_source_it_came_from() -> None:
    """The first bandwidth counts, and its own source with it."""
    first, second = Source("a"), Source("b")
    first.gpus = (gpu(0, hbm_bandwidth_ratio=0.25),)
    second.gpus = (gpu(0, hbm_bandwidth_ratio=0.5)._replace(hbm_bandwidth_source=BandwidthSource.DCGM),)

    for samplers, value, source in (
        ((first, second), 0.25, BandwidthSource.GPM),
        ((second, first), 0.5, BandwidthSource.DCGM),
    ):
        (merged,) = Sampling(samplers).take(5.0)[UNASSIGNED].gpus
        assert (merged.hbm_bandwidth_ratio, merged.hbm_bandwidth_source) == (value, source)


def test_numbers_of_two_incarnations_are_not_mixed() -> None:
    """Where two samplers saw different starts of an engine or gateway, the first one's numbers stand alone."""
    first, second = Source("a"), Source("b")
    old = Incarnation("i0")
    first.engines = (PooledEngine(CHAT, engine(requests_running=1.0)),)
    second.engines = (PooledEngine(CHAT, engine(requests_waiting=2.0)._replace(incarnation=old)),)
    first.gateways = (PooledGateway(CHAT, gateway(requests_queued=1.0)),)
    second.gateways = (PooledGateway(CHAT, gateway(requests_total=3.0)._replace(incarnation=old)),)
    view = Sampling((first, second)).take(5.0)[CHAT]

    assert view.engines == (engine(requests_running=1.0),)
    assert view.gateways == (gateway(requests_queued=1.0),)


def test_ranks_and_engines_are_told_apart() -> None:
    """Two data-parallel ranks of an engine are two samples."""
    source = Source()
    source.engines = tuple(PooledEngine(CHAT, engine(name, rank=rank)) for name in ("e2", "e1") for rank in (1, 0))

    assert [(e.engine, e.rank) for e in Sampling((source,)).take(5.0)[CHAT].engines] == [
        ("e1", 0),
        ("e1", 1),
        ("e2", 0),
        ("e2", 1),
    ]


def test_a_sampler_that_raises_costs_its_own_values_alone() -> None:
    """It is counted; the others' values are there; its own are missing, and GPUs keep their pools."""
    cards, engines = Source("cards"), Source("engines")
    cards.gpus = (gpu(0, power_w=1.0),)
    engines.engines = (PooledEngine(CHAT, engine()),)
    sampling = Sampling((cards, engines))
    sampling.take(5.0)
    engines.broken = True

    assert sampling.take(6.0) == {CHAT: PoolView((gpu(0, power_w=1.0),), (), ())}
    assert sampling.troubles == {("engines", "raised"): 1}
    engines.broken = False
    engines.engines = ()
    assert sampling.take(7.0) == {UNASSIGNED: PoolView((gpu(0, power_w=1.0),), (), ())}


@pytest.mark.parametrize(("age_s", "late"), [(0.0, False), (2.0, False), (2.001, True), (math.nan, True)])
def test_an_old_reading_is_missing(age_s: float, *, late: bool) -> None:
    """A sampler that does not keep up is counted as late, and its old values are not passed off as new."""
    source = chat_source()
    source.age_s = age_s
    sampling = Sampling((source,), most_age_s=2.0)

    assert (sampling.take(5.0) == {}) is late
    assert sampling.troubles == ({("source", "late"): 1} if late else {})


@pytest.mark.parametrize(
    "reading", [None, 7, Reading(5.0, gpus=odd_thing((3,))), Reading(5.0, engines=odd_thing((gpu(0),)))]
)
def test_a_reading_that_is_none_counts_as_raised(reading: Reading) -> None:
    """A sampler's nonsense is its own trouble."""

    class Odd(Source):
        def sample(self, now_s: float) -> Reading:
            del now_s
            return reading

    good = chat_source()
    sampling = Sampling((Odd("odd"), good))

    assert set(sampling.take(5.0)) == {CHAT}
    assert sampling.troubles == {("odd", "raised"): 1}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, 10**400, "3", True, [1]])
def test_what_is_no_finite_number_is_missing_and_counted(odd: float) -> None:
    """It never becomes a zero, and the rest of the sample stays."""
    source = Source()
    source.gpus = (gpu(0, power_w=odd, temperature_c=40.0),)
    source.engines = (PooledEngine(CHAT, engine(requests_running=odd, requests_waiting=0.0)),)
    sampling = Sampling((source,))
    view = sampling.take(5.0)[CHAT]

    assert view.gpus == (gpu(0, temperature_c=40.0),)
    assert view.engines == (engine(requests_waiting=0.0),)
    assert sampling.troubles == {("source", "not_finite"): 2}
