"""A fleet in virtual time: every request ends once, nothing is random, and cutting a run changes nothing."""

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_core.knobs import BATCH_CAP, VARIANT
from flyball_twin.engine.engine import Engine
from flyball_twin.engine.scheduling import PLAIN
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.fleet.fleet import Fleet, Pool
from flyball_twin.fleet.gateway import Gateway
from flyball_twin.fleet.outcomes import Outcome, Status
from flyball_twin.fleet.scoring import Slo
from flyball_twin.fleet.tallies import Tally
from flyball_twin.physics import ENGINE_MODEL
from flyball_twin.traffic.seam import NEVER, Listed
from flyball_twin.workload import Request
from twin_parts import LANES, ask, fleet_of, with_blocks

E0, E1, E2 = EngineId("e0"), EngineId("e1"), EngineId("e2")
CHAT, CODE = PoolId("chat"), PoolId("code")

ROWS = st.lists(
    st.tuples(st.floats(0.0, 20.0), st.integers(1, 3000), st.integers(1, 80), st.sampled_from(["realtime", "bulk"])),
    min_size=1,
    max_size=30,
)

FAULTS = st.lists(
    st.builds(
        lambda kind, target, from_s, for_s: Fault(
            kind=kind, target=target, from_s=from_s, to_s=from_s + for_s, factor=0.5
        ),
        st.sampled_from([FaultKind.BANDWIDTH, FaultKind.THROTTLE, FaultKind.DEAD, FaultKind.STALLED]),
        st.sampled_from([E0, E1]),
        st.floats(0.0, 30.0),
        st.floats(0.5, 30.0),
    ),
    max_size=5,
)


def asked(rows: list[tuple[float, int, int, str]]) -> tuple[Request, ...]:
    """Requests of the rows."""
    return tuple(ask(id_, *row[:3], lane=row[3]) for id_, row in enumerate(rows))


def play(fleet: Fleet, until_s: float, *cuts: float) -> dict[int, Outcome]:
    """Run with stops at the cuts."""
    for cut in (*sorted(cuts), until_s):
        fleet.run_until(cut)

    return dict(sorted(fleet.outcomes.items()))


def prefill_s(tokens: int) -> float:
    """How long a step takes in which nothing but a prompt of that length is computed."""
    return ENGINE_MODEL.cost("graphs").step_s(0, 0, [(0, tokens)])


class Persistent:
    """A client that asks again `think_s` after each answer, `turns` times in all."""

    def __init__(self, turns: int, think_s: float) -> None:
        self._left, self._think_s = turns, think_s
        self._next: Request | None = ask(0, 1.0)
        self.heard: list[tuple[int, float]] = []

    def next_s(self) -> float:
        """When it asks next; unknown while it waits."""
        return self._next.arrival_s if self._next else NEVER

    def take(self) -> Request:
        """What it asks."""
        request, self._next = self._next, None

        assert request is not None
        return request

    def ended(self, request: Request, now_s: float) -> None:
        """It thinks, and asks again."""
        self.heard.append((request.id, now_s))
        self._left -= 1
        if self._left:
            self._next = ask(request.id + 1, now_s + self._think_s)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, cap=st.integers(0, 4), blocks=st.integers(200, 600))
def test_every_request_finishes_exactly_once(rows: list[tuple[float, int, int, str]], cap: int, blocks: int) -> None:
    """Whatever arrives, each request has one outcome, after its arrival and in the right order of times."""
    fleet = fleet_of(2, asked(rows), model=with_blocks(blocks))
    for engine in fleet.engines:
        fleet.gateway.set_cap(engine, cap)
    outcomes = play(fleet, 4000.0)

    assert list(range(len(rows))) == list(outcomes)
    assert all(rows[id_][0] < item.first_token_s <= item.finished_s for id_, item in outcomes.items())
    assert sum(row[2] for row in rows) == sum(e.counters.generation_tokens for e in fleet.engines.values())
    assert [fleet.gateway.in_flight(engine) for engine in fleet.engines] == [0, 0]
    assert [engine.batch.kv.used for engine in fleet.engines.values()] == [0, 0]
    assert (fleet.open, fleet.arrived) == (0, len(rows))


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, faults=FAULTS, cap=st.integers(0, 4), timeout_s=st.sampled_from([0.5, 5.0, NEVER]))
def test_whatever_fails_every_request_ends_once(
    rows: list[tuple[float, int, int, str]], faults: list[Fault], cap: int, timeout_s: float
) -> None:
    """Under any faults each arrival has one outcome, told in the order of time, and no place stays taken."""
    told: list[Outcome] = []
    engines = [Engine(engine, ENGINE_MODEL, "graphs") for engine in (E0, E1)]
    gateway = Gateway([E0, E1], LANES, "random(2)", seed=3, timeouts_s={"realtime": timeout_s})
    fleet = Fleet.single(engines, gateway, asked(rows), faults, record=told.append)
    gateway.set_cap(E0, cap)
    gateway.set_cap(E1, cap)
    fleet.run_until(400.0)
    fleet.close()

    assert Counter(outcome.request.id for outcome in told) == Counter(range(len(rows)))
    assert [outcome.ended_s for outcome in told] == sorted(outcome.ended_s for outcome in told)
    assert {outcome.status for outcome in told} <= {Status.FINISHED, Status.ABANDONED, Status.LOST}
    assert (fleet.open, gateway.queued, gateway.in_flight(E0), gateway.in_flight(E1)) == (0, 0, 0, 0)


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    faults=FAULTS,
    cuts=st.lists(st.floats(0.0, 60.0), max_size=12),
    cap=st.integers(0, 3),
    balance=st.sampled_from(["leastconn", "roundrobin", "random(2)", "hash"]),
)
def test_virtual_time_is_exact_however_a_run_is_cut(
    rows: list[tuple[float, int, int, str]], faults: list[Fault], cuts: list[float], cap: int, balance: str
) -> None:
    """Stopping at any times gives bit for bit the outcomes and counters of one uncut run."""
    runs = []
    for stops in ([], cuts):
        engines = [Engine(engine, ENGINE_MODEL, "graphs") for engine in (E0, E1)]
        gateway = Gateway([E0, E1], LANES, balance, seed=7, timeouts_s={"bulk": 3.0})
        fleet = Fleet.single(engines, gateway, asked(rows), faults)
        gateway.set_cap(E0, cap)
        gateway.set_cap(E1, cap)
        outcomes = play(fleet, 300.0, *stops)
        runs.append((outcomes, [engine.counters for engine in engines]))

    assert runs[0] == runs[1]


def test_a_step_that_ends_after_the_stop_has_not_happened_yet() -> None:
    """Nothing later than the time asked for shows in outcomes or counters."""
    fleet = fleet_of(1, [ask(0, 1.0, prompt=100, output=2)])
    first_s = 1.0 + ENGINE_MODEL.path_s(100) + prefill_s(100)
    last_s = first_s + ENGINE_MODEL.cost("graphs").step_s(1, 100)
    fleet.run_until(first_s - 1e-9)

    assert fleet.engines[E0].counters.steps == 0
    fleet.run_until(first_s)

    assert (fleet.engines[E0].counters.steps, fleet.outcomes) == (1, {})
    fleet.run_until(last_s * (1 - 1e-4))

    assert fleet.outcomes == {}
    fleet.run_until(last_s * (1 + 1e-4))

    assert fleet.outcomes[0].first_token_s == first_s
    assert fleet.outcomes[0].tpot_s == pytest.approx(last_s - first_s, rel=1e-3)
    assert fleet.now_s == last_s * (1 + 1e-4)


def test_time_does_not_run_backwards() -> None:
    """Asking for the past, for no time at all or for the end of all, or after the run was closed, is refused."""
    fleet = fleet_of(1, [])
    fleet.run_until(10.0)
    for wrong_s in (9.9, float("nan"), NEVER):
        with pytest.raises(Rejected, match="at 10 s already"):
            fleet.run_until(wrong_s)
    fleet.close()
    with pytest.raises(Rejected, match="closed"):
        fleet.run_until(11.0)


def test_a_live_knob_that_is_turned_between_two_runs_holds_at_once() -> None:
    """A cap of one request lets the second in no sooner than the first has ended, though a stretch was under way."""
    fleet = fleet_of(1, [ask(0, 0.0, output=400), ask(1, 0.0, output=400), ask(2, 2.0)])
    fleet.run_until(1.0)
    fleet.engines[E0].set_live(BATCH_CAP, 1)
    outcomes = play(fleet, 60.0)

    assert outcomes[2].first_token_s > max(outcomes[0].finished_s, outcomes[1].finished_s)


def test_a_raised_live_knob_is_used_at_the_next_step() -> None:
    """What waits in the engine starts soon after its cap was raised, not when what runs has ended."""
    fleet = fleet_of(1, [ask(0, 0.0, output=900), ask(1, 0.0)])
    fleet.engines[E0].set_live(BATCH_CAP, 1)
    fleet.run_until(1.0)
    fleet.engines[E0].set_live(BATCH_CAP, 2)
    outcomes = play(fleet, 60.0)

    assert 1.0 < outcomes[1].first_token_s < 1.1
    assert outcomes[0].finished_s > 5.0


def test_counters_are_those_of_the_moment_within_a_long_stretch() -> None:
    """A lone request decodes for seconds without an event; tokens are counted as the run goes on, not at its end."""
    fleet = fleet_of(1, [ask(0, 0.0, output=900)])
    counts = []
    for at_s in range(1, 6):
        fleet.run_until(float(at_s))
        counts.append(fleet.engines[E0].counters.generation_tokens)
    gains = [after - before for before, after in pairwise(counts)]

    assert min(gains) > 50
    assert max(gains) - min(gains) <= 3


def test_room_made_by_a_finish_is_used_at_that_moment() -> None:
    """With a cap of 1, the queued request is sent exactly when the one before it ends."""
    fleet = fleet_of(1, [ask(0, 0.0), ask(1, 0.0)])
    fleet.gateway.set_cap(E0, 1)
    outcomes = play(fleet, 10.0)

    assert outcomes[1].first_token_s == outcomes[0].finished_s + ENGINE_MODEL.path_s(100) + prefill_s(100)


def test_a_request_on_its_path_is_in_flight_and_not_yet_the_engines() -> None:
    """Its gateway counts it, its engine does not; its time to first token has the path, its time in the queue not."""
    fleet = fleet_of(1, [ask(0, 1.0, prompt=5000)])
    path_s = ENGINE_MODEL.path_s(5000)
    fleet.run_until(1.0 + 0.99 * path_s)
    engine = fleet.engines[E0]

    assert path_s > ENGINE_MODEL.path_s(50) > 0.0
    assert (fleet.open, fleet.gateway.in_flight(E0), len(list(engine.batch)), engine.step_end_s) == (1, 1, 0, NEVER)
    fleet.run_until(1.0 + path_s)

    assert (engine.batch.running, engine.step_end_s) == (1, 1.0 + path_s + prefill_s(5000))
    outcome = play(fleet, 10.0)[0]
    counters = engine.counters

    assert outcome.ttft_s == pytest.approx(path_s + prefill_s(5000))
    assert (counters.ttft_s_sum, counters.e2e_s_sum) == (outcome.ttft_s, outcome.e2e_s)
    assert counters.queue_s_sum == 0.0


def test_shorter_prompts_overtake_on_their_path() -> None:
    """Paths end in the order of their lengths, those of equal length in the order of arrival; and share a step."""
    model = replace(ENGINE_MODEL, fitted=replace(ENGINE_MODEL.constants, ttft_per_token_s=1e-4))
    engine = Engine(E0, model, "graphs", scheduling=PLAIN)
    requests = [ask(0, 0.0, prompt=900), ask(1, 0.0), ask(2, 0.0)]
    outcomes = play(Fleet.single([engine], Gateway([E0], LANES), requests), 10.0)

    assert outcomes[1].first_token_s == outcomes[2].first_token_s < outcomes[0].first_token_s


def test_room_made_by_a_setting_is_used_when_forwarded() -> None:
    """A raised cap lets the queue go once `forward` is called."""
    fleet = fleet_of(1, [ask(id_, 0.0, output=500) for id_ in range(3)])
    fleet.gateway.set_cap(E0, 1)
    fleet.run_until(1.0)
    fleet.gateway.set_cap(E0, 0)
    fleet.forward()

    assert (fleet.gateway.queued, fleet.gateway.in_flight(E0)) == (0, 3)


def test_a_drained_engine_is_empty_when_its_last_request_has_ended() -> None:
    """At weight 0 what it has goes on, what comes goes elsewhere, and a relaunch of the empty engine loses nothing."""
    fleet = fleet_of(2, [ask(id_, 0.1 * id_, output=300) for id_ in range(8)])
    fleet.run_until(0.35)
    fleet.gateway.set_weight(E0, 0)
    at_s = 0.35
    while fleet.gateway.in_flight(E0):
        at_s += 1.0
        fleet.run_until(at_s)
    fleet.restart(E0, {VARIANT: "splitkv"})
    outcomes = play(fleet, 200.0)

    assert Counter(item.engine for item in outcomes.values()) == {E0: 2, E1: 6}
    assert {item.status for item in outcomes.values()} == {Status.FINISHED}
    assert fleet.engines[E0].variant == "splitkv"


def two_pools(requests: Iterable[Request]) -> Fleet:
    """Chat on two engines, one of them with a small cache, and code on one of another variant."""
    small, large = with_blocks(100), ENGINE_MODEL
    chat = (Engine(E0, small, "graphs"), Engine(E1, large, "graphs"))
    code = (Engine(E2, large, "splitkv"),)
    return Fleet(
        [
            Pool(id=CHAT, engines=chat, gateway=Gateway([E0, E1], LANES)),
            Pool(id=CODE, engines=code, gateway=Gateway([E2], LANES)),
        ],
        Listed(tuple(requests)),
    )


def test_a_request_goes_to_the_pool_that_it_names() -> None:
    """Whatever the load of others; its outcome says so."""
    requests = [replace(ask(id_, 0.0), pool=CODE if id_ % 4 == 0 else CHAT) for id_ in range(12)]
    outcomes = play(two_pools(requests), 60.0)

    assert {item.engine for item in outcomes.values() if item.pool == CODE} == {E2}
    assert {item.engine for item in outcomes.values() if item.pool == CHAT} == {E0, E1}
    assert Counter(item.pool for item in outcomes.values()) == {CODE: 3, CHAT: 9}


def test_what_an_engine_cannot_hold_it_refuses_and_nobody_retries() -> None:
    """HAProxy does not know what fits where: of like long requests the one that meets the small engine is refused."""
    requests = [replace(ask(id_, 0.1 * id_, prompt=3000, output=200), pool=CHAT) for id_ in range(2)]
    fleet = two_pools(requests)
    outcomes = play(fleet, 60.0)

    assert (outcomes[0].status, outcomes[0].engine) == (Status.REFUSED, E0)
    assert outcomes[0].reason == "e0 holds 1600 tokens"
    assert (outcomes[0].ended_s, outcomes[0].attempts) == (0.0, 1)
    assert (outcomes[1].status, outcomes[1].engine) == (Status.FINISHED, E1)
    assert fleet.pools[CHAT].gateway.in_flight(E0) == 0


def test_a_chain_goes_on_when_its_answer_is_there() -> None:
    """Each turn arrives its thinking time after the answer before it, also where the run is cut in between."""
    client = Persistent(turns=5, think_s=0.5)
    told: list[Outcome] = []
    engine = Engine(E0, ENGINE_MODEL, "graphs")
    pool = Pool(id=CHAT, engines=(engine,), gateway=Gateway([E0], LANES))
    fleet = Fleet([pool], client, record=told.append)
    for at_s in range(1, 30):
        fleet.run_until(float(at_s))

    assert [outcome.request.id for outcome in told] == [0, 1, 2, 3, 4]
    assert client.heard == [(outcome.request.id, outcome.finished_s) for outcome in told]
    for before, after in pairwise(told):
        assert after.request.arrival_s == before.finished_s + 0.5
    assert fleet.outcomes == {}


def test_a_client_that_asks_at_once_is_a_closed_loop() -> None:
    """Without thinking time exactly one of its requests is under way at any time."""
    client = Persistent(turns=20, think_s=0.0)
    pool = Pool(id=CHAT, engines=(Engine(E0, ENGINE_MODEL, "graphs"),), gateway=Gateway([E0], LANES))
    fleet = Fleet([pool], client)
    outcomes = list(play(fleet, 60.0).values())

    assert len(outcomes) == 20
    one_s = outcomes[0].e2e_s
    assert outcomes[-1].finished_s == pytest.approx(1.0 + 20 * one_s)


def test_a_lane_may_wait_only_so_long() -> None:
    """With `timeout queue` a request that no engine takes in time is given up; others wait on."""
    engine = Engine(E0, ENGINE_MODEL, "graphs")
    gateway = Gateway([E0], LANES, timeouts_s={"realtime": 1.0})
    gateway.set_cap(E0, 1)
    requests = [ask(0, 0.0, output=500), ask(1, 0.5), ask(2, 0.5, lane="bulk")]
    outcomes = play(Fleet.single([engine], gateway, requests), 60.0)

    assert [outcomes[id_].status for id_ in range(3)] == [Status.FINISHED, Status.ABANDONED, Status.FINISHED]
    assert (outcomes[1].ended_s, outcomes[1].engine, outcomes[1].attempts) == (1.5, None, 0)
    assert outcomes[1].reason == "no room within 1 s"
    assert outcomes[2].first_token_s == outcomes[0].finished_s + ENGINE_MODEL.path_s(100) + prefill_s(100)
    assert gateway.queued == 0


def test_a_retried_request_waits_anew() -> None:
    """Its second wait has its own timeout: that of the first, which it did not spend in the queue, is of no account."""
    engine = Engine(E0, ENGINE_MODEL, "graphs")
    gateway = Gateway([E0], LANES, timeouts_s={"realtime": 1.0})
    fleet = Fleet.single([engine], gateway, [ask(0, 0.0, prompt=60_000)])
    fleet.run_until(0.5)
    fleet.restart(E0, {})
    outcomes = play(fleet, 60.0)

    assert (outcomes[0].status, outcomes[0].ended_s) == (Status.ABANDONED, 1.5)
    assert (outcomes[0].engine, outcomes[0].attempts) == (None, 1)


def test_what_has_not_ended_with_the_run_is_told_as_open() -> None:
    """So that every arrival is counted; what has not arrived yet is none."""
    fleet = fleet_of(1, [ask(0), ask(1, 0.0, output=5000), ask(2, 100.0)])
    fleet.run_until(5.0)
    fleet.close()

    assert {id_: item.status for id_, item in fleet.outcomes.items()} == {0: Status.FINISHED, 1: Status.OPEN}
    assert fleet.outcomes[1].ended_s == 5.0
    assert (fleet.arrived, fleet.open) == (2, 0)


class Endless:
    """Short chats, ten a second, for ever."""

    def __init__(self) -> None:
        self.asked = 0

    def next_s(self) -> float:
        """Every tenth of a second."""
        return 0.1 * self.asked

    def take(self) -> Request:
        """One like any other."""
        self.asked += 1
        return ask(self.asked, 0.1 * (self.asked - 1), prompt=50 + self.asked % 700, output=2 + self.asked % 60)

    def ended(self, request: Request, now_s: float) -> None:
        """It does not care."""


def test_memory_does_not_grow_with_the_trace() -> None:
    """After 4,000 requests a tallied fleet holds no more than after 1,000, but for a few kilobytes."""
    engines = tuple(Engine(engine, ENGINE_MODEL, "graphs") for engine in (E0, E1))
    tally = Tally([Slo(lane="realtime", ttft_s=1.0)], 400.0)
    pool = Pool(id=CHAT, engines=engines, gateway=Gateway([E0, E1], LANES, timeouts_s={"realtime": 5.0}))
    fleet = Fleet([pool], Endless(), record=tally.record)
    tracemalloc.start()
    try:
        fleet.run_until(100.0)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        fleet.run_until(400.0)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert tally.score().finished > 3900
    assert after - before < 100_000


def test_a_fleet_that_makes_no_sense_is_refused() -> None:
    """Wrong engines, no pool, the same pool or engine twice, and one gateway asked for where there are several."""
    engine = Engine(E0, ENGINE_MODEL, "graphs")
    one = Pool(id=CHAT, engines=(engine,), gateway=Gateway([E0], LANES))
    with pytest.raises(Rejected, match="not those of pool 'chat'"):
        Fleet([Pool(id=CHAT, engines=(engine,), gateway=Gateway([E0, E1], LANES))], Listed([]))
    for pools in ([], [one, one], [one, Pool(id=CODE, engines=(engine,), gateway=Gateway([E0], LANES))]):
        with pytest.raises(Rejected, match="same id"):
            Fleet(pools, Listed([]))
    with pytest.raises(Rejected, match="several gateways"):
        _ = two_pools([]).gateway


def test_traffic_that_makes_no_sense_is_refused() -> None:
    """Unknown pools and lanes, and ids that are under way already, end the run with a message."""
    with pytest.raises(Rejected, match="pool 'maths'"):
        two_pools([replace(ask(0), pool="maths")]).run_until(1.0)
    with pytest.raises(Rejected, match="pool ''"):
        two_pools([ask(0)]).run_until(1.0)
    with pytest.raises(Rejected, match="lane 'agent'"):
        fleet_of(1, [ask(0, lane="agent")]).run_until(1.0)
    with pytest.raises(Rejected, match="same id"):
        fleet_of(1, [ask(0), ask(0)]).run_until(1.0)


def test_a_request_of_the_past_is_refused() -> None:
    """A source that asks for a time gone by is a mistake, not a late arrival."""

    class Late(Listed):
        def next_s(self) -> float:
            return super().next_s() - 3.0

    late = Late([ask(0, 1.0)])
    pool = Pool(id=CHAT, engines=(Engine(E0, ENGINE_MODEL, "graphs"),), gateway=Gateway([E0], LANES))
    with pytest.raises(Rejected, match="already"):
        Fleet([pool], late).run_until(5.0)
