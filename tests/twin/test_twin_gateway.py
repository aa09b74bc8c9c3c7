"""The gateway routes by weight, holds back by cap, and queues by lane: HAProxy's rules and no others."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.fleet.gateway import START_WEIGHT, Gateway
from twin_parts import LANES, ask

E0, E1, E2 = EngineId("e0"), EngineId("e1"), EngineId("e2")


def gateway_of(*engines: EngineId) -> Gateway:
    """A gateway with lanes realtime (urgent) and bulk (waits 30 s at most)."""
    return Gateway(engines, LANES)


def send(gateway: Gateway, count: int) -> Counter[EngineId]:
    """Where `count` requests go that all stay in flight."""
    went: Counter[EngineId] = Counter()
    for id_ in range(count):
        gateway.enqueue(ask(id_), 0.0)
        if (routed := gateway.forward()) is not None:
            went[routed[1]] += 1

    return went


def order(gateway: Gateway) -> list[int]:
    """Ids in the order in which the queue gives them out, given room."""
    ids = []
    for engine in gateway.engines:
        gateway.set_cap(engine, 0)
    while (routed := gateway.forward()) is not None:
        ids.append(routed[0].id)

    return ids


def block(gateway: Gateway) -> None:
    """Fill the only engine, so that everything queues."""
    gateway.set_cap(E0, 1)
    gateway.enqueue(ask(-1), 0.0)

    assert gateway.forward() is not None


def test_equal_weights_share_evenly() -> None:
    """Thirty requests over three engines are ten each."""
    assert send(gateway_of(E0, E1, E2), 30) == {E0: 10, E1: 10, E2: 10}


@given(weights=st.tuples(st.integers(1, 256), st.integers(1, 256)))
def test_load_settles_in_proportion_to_weights(weights: tuple[int, int]) -> None:
    """With many in flight, engines hold requests as their weights stand to each other."""
    gateway = gateway_of(E0, E1)
    gateway.set_weight(E0, weights[0])
    gateway.set_weight(E1, weights[1])
    went = send(gateway, 600)

    assert went[E0] == pytest.approx(600 * weights[0] / sum(weights), abs=2)


def test_weight_0_gets_no_new_work_and_keeps_its_old() -> None:
    """A drained engine is passed over; what it has stays in flight."""
    gateway = gateway_of(E0, E1)
    send(gateway, 4)
    gateway.set_weight(E0, 0)

    assert send(gateway, 6) == {E1: 6}
    assert gateway.in_flight(E0) == 2


def test_an_engine_that_is_down_gets_nothing() -> None:
    """Its weight stands, but the health check decides."""
    gateway = gateway_of(E0, E1)
    gateway.set_up(E1, up=False)

    assert send(gateway, 5) == {E0: 5}
    assert gateway.weight(E1) == START_WEIGHT


@given(caps=st.tuples(st.integers(1, 9), st.integers(1, 9)), count=st.integers(1, 40))
def test_caps_hold_back_what_is_too_much(caps: tuple[int, int], count: int) -> None:
    """No engine ever has more in flight than its cap; the rest waits in the queue."""
    gateway = gateway_of(E0, E1)
    gateway.set_cap(E0, caps[0])
    gateway.set_cap(E1, caps[1])
    went = send(gateway, count)

    assert went[E0] <= caps[0]
    assert went[E1] <= caps[1]
    assert gateway.queued == max(0, count - sum(caps))


def test_a_lowered_cap_lets_out_and_nothing_in() -> None:
    """Those above the new cap stay; only below it is there room again."""
    gateway = gateway_of(E0)
    send(gateway, 3)
    gateway.set_cap(E0, 2)
    gateway.enqueue(ask(9), 0.0)
    gateway.release(E0)

    assert gateway.forward() is None
    gateway.release(E0)

    assert gateway.forward() is not None


def test_without_caps_nothing_queues() -> None:
    """Everything is forwarded at once, whatever its lane."""
    gateway = gateway_of(E0)
    send(gateway, 500)

    assert (gateway.queued, gateway.in_flight(E0)) == (0, 500)


def test_urgent_lanes_go_first() -> None:
    """Realtime requests overtake bulk ones that came before them, each lane in its own order."""
    gateway = gateway_of(E0)
    block(gateway)
    for id_, lane in enumerate(("bulk", "bulk", "realtime", "bulk", "realtime")):
        gateway.enqueue(ask(id_, lane=lane), float(id_))

    assert order(gateway) == [2, 4, 0, 1, 3]


def test_what_has_waited_longest_is_promoted() -> None:
    """A bulk request that has waited its 30 s goes before realtime work arriving from then on."""
    gateway = gateway_of(E0)
    block(gateway)
    gateway.enqueue(ask(0, lane="bulk"), 0.0)
    gateway.enqueue(ask(1), 29.9)
    gateway.enqueue(ask(2), 30.1)

    assert order(gateway) == [1, 0, 2]


def test_equal_priorities_are_served_in_order_of_arrival() -> None:
    """With one priority for all, lanes do not matter, nor do their longest waits."""
    rules = [LaneRule(lane=lane, priority=0, max_wait_s=wait) for lane, wait in (("realtime", 1.0), ("bulk", 99.0))]
    gateway = Gateway([E0], rules)
    block(gateway)
    for id_, lane in enumerate(("bulk", "realtime", "bulk", "realtime")):
        gateway.enqueue(ask(id_, lane=lane), float(id_))

    assert order(gateway) == [0, 1, 2, 3]


def test_a_new_rule_holds_for_what_queues_from_then_on() -> None:
    """As in HAProxy, the place in the queue is fixed at entry."""
    gateway = gateway_of(E0)
    block(gateway)
    gateway.enqueue(ask(0, lane="bulk"), 0.0)
    gateway.enqueue(ask(1), 1.0)
    gateway.set_lane("bulk", 0, 30.0)
    gateway.enqueue(ask(2, lane="bulk"), 2.0)
    gateway.enqueue(ask(3), 3.0)

    assert order(gateway) == [1, 2, 3, 0]


def test_values_outside_haproxys_bounds_are_refused() -> None:
    """Weights, caps, priorities and waits beyond what HAProxy takes, or for what there is not."""
    gateway = gateway_of(E0)
    for weight in (-1, 257, True):
        with pytest.raises(Rejected, match="weight of e0"):
            gateway.set_weight(E0, weight)
    with pytest.raises(Rejected, match="cap of e0"):
        gateway.set_cap(E0, -1)
    for wait in (-0.1, 525.0, float("nan")):
        with pytest.raises(Rejected, match="longest wait"):
            gateway.set_lane("bulk", 0, wait)
    with pytest.raises(Rejected, match="priority"):
        gateway.set_lane("bulk", 3000, 1.0)
    with pytest.raises(Rejected, match="no lane 'agent'"):
        gateway.set_lane("agent", 0, 1.0)
    with pytest.raises(Rejected, match="no engine 'e9'"):
        gateway.set_weight(EngineId("e9"), 1)
    with pytest.raises(Rejected, match="no lane 'agent'"):
        gateway.enqueue(ask(0, lane="agent"), 0.0)


def test_a_gateway_needs_an_engine_and_a_lane() -> None:
    """One without either can do nothing and is refused."""
    with pytest.raises(Rejected):
        Gateway([], LANES)
    with pytest.raises(Rejected):
        Gateway([E0], [])


def test_a_lane_waits_for_good_unless_it_has_a_timeout() -> None:
    """And one that is no length of time, or of no lane, is refused."""
    gateway = Gateway([E0], LANES, timeouts_s={"bulk": 30.0})

    assert (gateway.timeout_s("bulk"), gateway.timeout_s("realtime")) == (30.0, float("inf"))
    for wrong in ({"bulk": 0.0}, {"bulk": float("nan")}, {"agent": 1.0}):
        with pytest.raises(Rejected):
            Gateway([E0], LANES, timeouts_s=wrong)


def test_a_session_is_what_is_hashed() -> None:
    """Requests of one session meet one engine; those of none go in turn."""
    gateway = Gateway([E0, E1, E2], LANES, "hash")
    went: dict[str, set[EngineId]] = {}
    for id_ in range(60):
        session = f"s{id_ % 12}"
        gateway.enqueue(replace(ask(id_), session=session), 0.0)
        routed = gateway.forward()

        assert routed is not None
        went.setdefault(session, set()).add(routed[1])

    assert {len(engines) for engines in went.values()} == {1}
    assert set().union(*went.values()) == {E0, E1, E2}
    assert send(gateway, 9) == {E0: 3, E1: 3, E2: 3}
