"""Ways to choose a server: round robin, random draws and hashing do what HAProxy's do, queues included."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings, strategies as st

from flyball_agents.gateway.balancing import Balancer
from flyball_agents.gateway.choosing import Server, check_balance
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule

E0, E1, E2 = EngineId("e0"), EngineId("e1"), EngineId("e2")
LANES = (LaneRule(lane="realtime", priority=0, max_wait_s=0.0), LaneRule(lane="bulk", priority=10, max_wait_s=30.0))
BALANCES = ("leastconn", "roundrobin", "random(1)", "random(2)", "hash")


@dataclass(frozen=True)
class Ask:
    """A request: who asks, and in which lane."""

    id: int
    session: str = ""
    lane: str = "realtime"


def balancer_of(balance: str, *engines: EngineId, seed: int = 0) -> Balancer[Ask]:
    """A balancer that hashes sessions."""
    return Balancer[Ask](engines, LANES, balance, key=lambda ask: ask.session, seed=seed)


def pump(balancer: Balancer[Ask]) -> list[tuple[int, EngineId]]:
    """Everything that can be forwarded now."""
    sent = []
    while (routed := balancer.forward()) is not None:
        sent.append((routed[0].id, routed[1]))

    return sent


def send(balancer: Balancer[Ask], *asks: Ask, at_s: float = 0.0, keep: bool = True) -> list[EngineId]:
    """Where each goes, one after another; they stay in flight or are answered at once."""
    went: list[EngineId] = []
    for ask in asks:
        balancer.enqueue(ask, at_s)
        for _, engine in pump(balancer):
            went.append(engine)
            if not keep:
                balancer.release(engine)

    return went


def test_round_robin_takes_servers_in_turn_whatever_they_hold() -> None:
    """Six requests over three servers go around twice, in the same order."""
    went = send(balancer_of("roundrobin", E0, E1, E2), *(Ask(id_) for id_ in range(6)))

    assert went[:3] == went[3:]
    assert set(went) == {E0, E1, E2}


def test_round_robin_spreads_a_servers_turns_evenly() -> None:
    """At weights 3 and 1 the light server has every fourth turn, never two together."""
    balancer = balancer_of("roundrobin", E0, E1)
    balancer.set_weight(E0, 75)
    balancer.set_weight(E1, 25)
    went = send(balancer, *(Ask(id_) for id_ in range(400)))

    assert Counter(went) == {E0: 300, E1: 100}
    assert all(went[at : at + 4].count(E1) == 1 for at in range(0, 400, 4))


def test_a_full_server_loses_its_turn_in_round_robin() -> None:
    """It is passed over while it is full, and gets no more than its share afterwards."""
    balancer = balancer_of("roundrobin", E0, E1)
    balancer.set_cap(E0, 2)
    went = send(balancer, *(Ask(id_) for id_ in range(20)))
    balancer.set_cap(E0, 0)

    assert Counter(went) == {E0: 2, E1: 18}
    assert Counter(send(balancer, *(Ask(id_) for id_ in range(20)))) == {E0: 10, E1: 10}


def test_looking_at_a_queue_costs_nobody_a_turn() -> None:
    """While all are full the queue is looked at often; afterwards weights hold as before."""
    balancer = balancer_of("roundrobin", E0, E1)
    balancer.set_weight(E0, 75)
    balancer.set_weight(E1, 25)
    balancer.set_cap(E0, 3)
    balancer.set_cap(E1, 1)
    send(balancer, *(Ask(id_) for id_ in range(30)))
    balancer.set_cap(E0, 0)
    balancer.set_cap(E1, 0)

    assert Counter(engine for _, engine in pump(balancer)) in ({E0: 19, E1: 7}, {E0: 20, E1: 6})


def test_a_server_that_was_away_does_not_catch_up_on_its_turns() -> None:
    """Back after a hundred requests it gets about every second one, not the next hundred."""
    balancer = balancer_of("roundrobin", E0, E1)
    balancer.set_up(E0, up=False)
    send(balancer, *(Ask(id_) for id_ in range(100)))
    balancer.set_up(E0, up=True)

    assert send(balancer, *(Ask(id_) for id_ in range(20))).count(E0) in (10, 11)


def test_random_draws_by_weight() -> None:
    """With one draw each server's share is its weight's, within what chance allows."""
    balancer = balancer_of("random(1)", E0, E1, E2)
    for engine, weight in ((E0, 10), (E1, 30), (E2, 60)):
        balancer.set_weight(engine, weight)
    went = Counter(send(balancer, *(Ask(id_) for id_ in range(4000))))

    for engine, share in ((E0, 0.1), (E1, 0.3), (E2, 0.6)):
        assert went[engine] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_two_draws_balance_far_better_than_one() -> None:
    """The fullest of 16 servers after 1,600 requests holds a few more than its hundred, where one draw gives dozens."""
    engines = [EngineId(f"e{at}") for at in range(16)]
    most = {}
    for balance in ("random(1)", "random(2)", "random(16)"):
        balancer = balancer_of(balance, *engines, seed=1)
        send(balancer, *(Ask(id_) for id_ in range(1600)))
        most[balance] = max(balancer.in_flight(engine) for engine in engines)

    assert most["random(1)"] > 115
    assert most["random(2)"] < 106
    assert most["random(16)"] <= 102


def test_of_two_drawn_the_less_loaded_for_its_weight_is_taken() -> None:
    """With as many draws as it takes to meet both, load settles in proportion to the weights."""
    balancer = balancer_of("random(12)", E0, E1)
    balancer.set_weight(E0, 200)
    balancer.set_weight(E1, 50)
    went = Counter(send(balancer, *(Ask(id_) for id_ in range(500))))

    assert went[E0] == pytest.approx(400, abs=10)


def test_idle_servers_that_tie_are_told_apart_by_their_rate() -> None:
    """Answered at once, nothing is ever in flight; the servers still get equal shares, as by turns."""
    balancer = balancer_of("random(8)", E0, E1)
    went = Counter(send(balancer, *(Ask(id_) for id_ in range(4000)), keep=False))

    assert abs(went[E0] - went[E1]) <= 6


def test_a_servers_rate_is_over_the_last_second() -> None:
    """All of the running second's requests, and of the second before as much as is left of it."""
    server = Server(E0)
    for at in range(10):
        server.count(5.0 + at / 10)

    assert server.rate(5.95) == 10.0
    assert server.rate(6.25) == 7.5
    server.count(6.5)

    assert server.rate(6.5) == pytest.approx(1 + 5.0)
    assert server.rate(8.1) == 0.0


def test_a_request_whose_draw_is_full_waits_although_another_server_has_room() -> None:
    """It goes to whichever server ends a request next, full or not before; what comes later may overtake it."""
    balancer = balancer_of("random(1)", E0, E1)
    balancer.set_weight(E1, 1)
    balancer.set_weight(E0, 256)
    balancer.set_cap(E0, 1)
    send(balancer, Ask(0))
    held = [Ask(id_) for id_ in range(1, 5)]
    went = send(balancer, *held)

    assert balancer.in_flight(E0) == 1
    assert balancer.queued == 4 - len(went) > 0
    assert balancer.forward() is None
    balancer.release(E0)

    assert [engine for _, engine in pump(balancer)] == [E0]


def test_what_waits_is_taken_up_when_the_full_server_goes_away() -> None:
    """Down or at weight 0, it ends nothing that could make room; another server takes what waits."""
    for leave in ("down", "weight"):
        balancer = balancer_of("random(1)", E0, E1)
        balancer.set_weight(E1, 0)
        balancer.set_cap(E0, 1)
        send(balancer, Ask(0), Ask(1), Ask(2))
        balancer.set_weight(E1, 100)
        if leave == "down":
            balancer.set_up(E0, up=False)
        else:
            balancer.set_weight(E0, 0)

        assert {engine for _, engine in pump(balancer)} <= {E1}
        assert balancer.queued == 0


def test_what_waits_after_a_draw_goes_in_the_queues_order() -> None:
    """Urgent lanes first, as in any queue."""
    balancer = balancer_of("random(2)", E0)
    balancer.set_cap(E0, 1)
    asks = [Ask(0), Ask(1, lane="bulk"), Ask(2), Ask(3, lane="bulk"), Ask(4)]
    send(balancer, *asks)
    balancer.set_cap(E0, 0)

    assert [id_ for id_, _ in pump(balancer)] == [2, 4, 1, 3]


def test_the_same_seed_draws_the_same() -> None:
    """And another one does not."""
    went = [send(balancer_of("random(2)", E0, E1, E2, seed=seed), *(Ask(i) for i in range(50))) for seed in (1, 1, 2)]

    assert went[0] == went[1] != went[2]


def test_a_session_stays_with_its_server() -> None:
    """However many requests it has and whatever others do; sessions spread by weight."""
    balancer = balancer_of("hash", E0, E1, E2)
    balancer.set_weight(E2, 200)
    first = dict(zip(range(2000), send(balancer, *(Ask(s, session=f"s{s}") for s in range(2000))), strict=True))
    again = dict(zip(range(2000), send(balancer, *(Ask(s, session=f"s{s}") for s in range(2000))), strict=True))

    assert first == again
    shares = Counter(first.values())
    assert shares[E0] / 2000 == pytest.approx(0.25, abs=0.04)
    assert shares[E2] / 2000 == pytest.approx(0.5, abs=0.045)


def test_only_the_sessions_of_a_lost_server_move() -> None:
    """Consistent hashing: the others stay, and all come back with the server."""
    balancer = balancer_of("hash", E0, E1, E2)
    asks = [Ask(s, session=f"s{s}") for s in range(300)]
    before = send(balancer, *asks)
    balancer.set_up(E1, up=False)
    without = send(balancer, *asks)
    balancer.set_up(E1, up=True)

    assert all(now == then for then, now in zip(before, without, strict=True) if then != E1)
    assert E1 not in without
    assert send(balancer, *asks) == before


def test_a_session_waits_for_its_own_server() -> None:
    """Although another is idle; when the server goes down it waits no more."""
    balancer = balancer_of("hash", E0, E1)
    (home,) = send(balancer, Ask(0, session="s"))
    other = E1 if home == E0 else E0
    balancer.set_cap(home, 1)

    assert send(balancer, Ask(1, session="s"), Ask(2, session="s")) == []
    assert (balancer.queued, balancer.in_flight(other)) == (2, 0)
    balancer.release(home)

    assert pump(balancer) == [(1, home)]
    balancer.set_up(home, up=False)

    assert pump(balancer) == [(2, other)]


def test_what_waits_for_a_draining_server_still_goes_there() -> None:
    """At weight 0 it takes nothing new, but what stands in its own queue."""
    balancer = balancer_of("hash", E0, E1)
    (home,) = send(balancer, Ask(0, session="s"))
    other = E1 if home == E0 else E0
    balancer.set_cap(home, 1)
    send(balancer, Ask(1, session="s"))
    balancer.set_weight(home, 0)

    assert send(balancer, Ask(2, session="s")) == [other]
    balancer.release(home)

    assert pump(balancer) == [(1, home)]


def test_what_waits_for_one_server_and_what_waits_for_any_go_in_the_order_of_the_queue() -> None:
    """A server that ends a request takes the earlier of the two, of whichever queue."""
    for mine_first in (True, False):
        balancer = balancer_of("hash", E0)
        balancer.set_cap(E0, 1)
        send(balancer, Ask(0, session="s"))
        waits = [Ask(1, session="s"), Ask(2)] if mine_first else [Ask(1), Ask(2, session="s")]
        send(balancer, *waits)
        balancer.release(E0)
        first = pump(balancer)
        balancer.release(E0)

        assert (first, pump(balancer)) == ([(1, E0)], [(2, E0)])


def test_what_waits_for_any_does_not_go_to_a_draining_server() -> None:
    """A server of weight 0 takes what waits for it alone, and leaves the rest to the others."""
    balancer = balancer_of("hash", E0, E1)
    (home,) = send(balancer, Ask(0, session="s"))
    other = E1 if home == E0 else E0
    balancer.set_cap(home, 1)
    balancer.set_cap(other, 1)
    send(balancer, Ask(1), Ask(2))
    balancer.set_weight(home, 0)
    balancer.release(home)

    assert pump(balancer) == []
    balancer.release(other)

    assert pump(balancer) == [(2, other)]


def test_requests_without_a_session_go_in_turn() -> None:
    """Where there is nothing to hash, it is round robin."""
    assert Counter(send(balancer_of("hash", E0, E1), *(Ask(id_) for id_ in range(10)))) == {E0: 5, E1: 5}


@settings(max_examples=150, deadline=None)
@given(
    balance=st.sampled_from(BALANCES),
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from(["", "s1", "s2"]), st.sampled_from(["realtime", "bulk"])),
            st.tuples(st.just("release"), st.integers(0, 99), st.just("")),
            st.tuples(st.just("withdraw"), st.integers(0, 99), st.just("")),
            st.tuples(st.just("cap"), st.sampled_from([E0, E1]), st.integers(0, 2)),
            st.tuples(st.just("weight"), st.sampled_from([E0, E1]), st.sampled_from([0, 1, 100])),
            st.tuples(st.just("up"), st.sampled_from([E0, E1]), st.booleans()),
        ),
        max_size=60,
    ),
)
def test_no_request_is_lost_doubled_or_forgotten(balance: str, moves: list[tuple[str, object, object]]) -> None:
    """Whatever happens, each is sent once or withdrawn, `queued` counts those left, and all go once there is room."""
    balancer = balancer_of(balance, E0, E1)
    waiting: dict[int, int] = {}
    flying: list[EngineId] = []
    sent: list[int] = []

    def pumped() -> None:
        for id_, engine in pump(balancer):
            sent.append(id_)
            flying.append(engine)
            del waiting[id_]

    for number, (move, first, second) in enumerate(moves):
        if move == "ask":
            waiting[number] = balancer.enqueue(Ask(number, str(first), str(second)), float(number))
        elif move == "release" and flying:
            balancer.release(flying.pop(int(str(first)) % len(flying)))
        elif move == "withdraw" and waiting:
            balancer.withdraw(waiting.pop(list(waiting)[int(str(first)) % len(waiting)]))
        elif move == "cap":
            balancer.set_cap(EngineId(str(first)), int(str(second)))
        elif move == "weight":
            balancer.set_weight(EngineId(str(first)), int(str(second)))
        elif move == "up":
            balancer.set_up(EngineId(str(first)), up=bool(second))
        pumped()

        assert balancer.queued == len(waiting)
        assert [balancer.in_flight(engine) for engine in (E0, E1)] == [flying.count(engine) for engine in (E0, E1)]
    for engine in (E0, E1):
        balancer.set_cap(engine, 0)
        balancer.set_weight(engine, 100)
        balancer.set_up(engine, up=True)
    pumped()

    assert waiting == {}
    assert len(set(sent)) == len(sent)


def test_unknown_ways_are_refused() -> None:
    """With the ways that there are in the message."""
    assert check_balance("random") == ("random", 2)
    for wrong in ("fastest", "random(0)", "random()", "random(01)", "leastconn(2)", "random(2", ""):
        with pytest.raises(Rejected, match="leastconn, roundrobin"):
            balancer_of(wrong, E0)
