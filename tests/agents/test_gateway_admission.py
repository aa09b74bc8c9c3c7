"""Requests wait their turn by lane, give up in time, leave without a trace, and never wait beside room."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, strategies as st

from flyball_agents.gateway.admission import Admission, QueueFull, WaitedTooLong, Waiter
from flyball_agents.gateway.balancing import MAX_WAIT_S, Balancer
from flyball_agents.gateway.lanes import BODY_BYTES, lane_of, service_tier
from flyball_agents.gateway_adapter import LanePlace
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from harness.virtual_time import in_virtual_time

E0, E1 = EngineId("e0"), EngineId("e1")
LANES = (LaneRule(lane="realtime", priority=0, max_wait_s=10.0), LaneRule(lane="bulk", priority=10, max_wait_s=30.0))
Clock = Callable[[], float]


def admission_of(clock: Clock, *engines: EngineId, cap: int = 1, most_queued: int = 1000) -> Admission:
    """Engines with one place each."""
    made = Admission(Balancer[Waiter](engines, LANES), clock, most_queued)
    for engine in engines:
        made.set_cap(engine, cap)
    return made


def numbers(admission: Admission, lane: str) -> tuple[int, int]:
    """Queued and in flight."""
    return admission.lanes[lane].queued, admission.lanes[lane].in_flight


def test_a_place_is_given_at_once_or_when_one_is_left() -> None:
    """The second request waits for the first one's place, and how long is counted."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0)
        assert E0 == await admission.enter("bulk")
        second = asyncio.create_task(admission.enter("bulk"))
        await asyncio.sleep(3.0)
        assert (1, 1) == numbers(admission, "bulk")
        admission.leave("bulk", E0)
        await second

        assert (0, 1) == numbers(admission, "bulk")
        assert 2 == admission.lanes["bulk"].waits
        assert pytest.approx(3.0) == admission.lanes["bulk"].waited_s

    in_virtual_time(main)


def test_urgent_requests_overtake() -> None:
    """Bulk came first, realtime goes first; each lane in its own order."""

    async def main(clock: Clock) -> None:
        admission, went = admission_of(clock, E0), []

        async def ask(name: str, lane: str) -> None:
            engine = await admission.enter(lane)
            went.append(name)
            await asyncio.sleep(0.5)
            admission.leave(lane, engine)

        async with asyncio.TaskGroup() as tasks:
            for name, lane in (("a", "bulk"), ("b", "bulk"), ("c", "bulk"), ("d", "realtime"), ("e", "realtime")):
                tasks.create_task(ask(name, lane))
                await asyncio.sleep(0.01)

        assert ["a", "d", "e", "b", "c"] == went

    in_virtual_time(main)


@pytest.mark.parametrize(("lane", "most_s"), [("realtime", 10.0), ("bulk", 40.0)])
def test_a_wait_ends_with_the_lanes_longest(lane: str, most_s: float) -> None:
    """Urgent work its own longest wait; other work its own, and then as long as urgent work does."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0)
        await admission.enter("realtime")
        start_s = clock()
        with pytest.raises(WaitedTooLong, match=f"within {most_s:g} s"):
            await admission.enter(lane)

        assert most_s == pytest.approx(clock() - start_s)
        assert 0 == admission.lanes[lane].queued == admission.balancer.queued

    in_virtual_time(main)


def test_a_longest_wait_of_0_bounds_nothing() -> None:
    """As a cap of 0 is none: the gateway's own bound holds."""
    admission = admission_of(lambda: 0.0, E0)
    admission.set_lane("realtime", 0, 0.0)

    assert MAX_WAIT_S == admission.patience_s("realtime")
    assert 30.0 + MAX_WAIT_S == admission.patience_s("bulk")


def test_what_may_wait_is_bounded() -> None:
    """One more than may wait is refused at once."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0, most_queued=2)
        waiting = [asyncio.create_task(admission.enter("bulk")) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(QueueFull):
            await admission.enter("realtime")
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    in_virtual_time(main)


def test_whoever_leaves_the_queue_leaves_no_trace() -> None:
    """Cancelled while waiting, or in the very moment of getting a place: the place goes to the next."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0)
        await admission.enter("bulk")
        gone, late, stays = (asyncio.create_task(admission.enter("bulk")) for _ in range(3))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0.1)
        assert (2, 1) == numbers(admission, "bulk")
        admission.leave("bulk", E0)  # late has its place now
        late.cancel()
        await asyncio.gather(gone, late, return_exceptions=True)

        assert E0 == await stays
        assert (0, 1) == numbers(admission, "bulk")
        assert 1 == admission.balancer.in_flight(E0)

    in_virtual_time(main)


def test_a_place_given_to_one_just_cancelled_goes_on_to_the_next() -> None:
    """Its task has not run since: the place passes by, and is counted once."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0)
        await admission.enter("bulk")
        gone, stays = (asyncio.create_task(admission.enter("bulk")) for _ in range(2))
        await asyncio.sleep(0.1)
        gone.cancel()
        admission.leave("bulk", E0)
        await asyncio.gather(gone, return_exceptions=True)

        assert E0 == await stays
        assert (0, 1) == numbers(admission, "bulk")
        assert (0, 1) == (admission.balancer.queued, admission.balancer.in_flight(E0))

    in_virtual_time(main)


@given(st.lists(st.sampled_from(["enter", "leave", "cancel", "cap", "down", "up", "settle"]), max_size=60))
def test_nobody_waits_beside_room(steps: list[str]) -> None:
    """Whatever comes and goes: no cap is exceeded, the counts agree, and nothing waits while there is room."""

    async def main(clock: Clock) -> None:
        admission = admission_of(clock, E0, E1, cap=2)
        asked: list[asyncio.Task[EngineId]] = []
        for step in steps:
            done = [task for task in asked if task.done() and not task.cancelled()]
            waiting = [task for task in asked if not task.done() and not task.cancelling()]
            if step == "enter":
                asked.append(asyncio.create_task(admission.enter("bulk")))
            elif step == "leave" and done:
                asked.remove(done[0])
                admission.leave("bulk", done[0].result())
            elif step == "cancel" and waiting:
                waiting[0].cancel()
            elif step == "cap":
                admission.set_cap(E0, 3)
            elif step in ("down", "up"):
                admission.set_up(E1, up=step == "up")
            if step != "settle":
                continue  # what follows comes in the same moment
            for _ in range(5):
                await asyncio.sleep(0)
            asked = [task for task in asked if not task.cancelled()]
            balancer = admission.balancer
            flying = sum(task.done() for task in asked)
            assert (len(asked) - flying, flying) == numbers(admission, "bulk")
            room = any(balancer.is_up(e) and balancer.in_flight(e) < balancer.cap(e) for e in balancer.engines)
            assert not (room and balancer.queued)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    in_virtual_time(main)


def test_withdrawn_requests_cost_no_room() -> None:
    """A queue that many left is not longer than twice what still waits."""
    balancer = Balancer[Waiter]([E0], LANES)
    balancer.set_weight(E0, 0)
    loop = asyncio.new_event_loop()
    tickets = [balancer.enqueue(Waiter("bulk", loop.create_future()), 0.0) for _ in range(100)]
    for ticket in tickets[:90]:
        balancer.withdraw(ticket)
    loop.close()

    assert 10 == balancer.queued
    assert len(balancer._queue) <= 20  # noqa: SLF001 - the room that it takes is the claim
    balancer.set_weight(E0, 1)
    assert 10 == sum(balancer.forward() is not None for _ in range(20))


def test_the_table_reads_back_as_it_was_set() -> None:
    """The routing table's controls are the admission's own."""
    admission = admission_of(lambda: 0.0, E0, E1, cap=0)
    admission.set_weight("e0", 7)
    admission.set_cap("e1", 9)
    admission.set_lane("bulk", 3, 5.0)
    reading = admission.read()

    assert ({"e0": 7, "e1": 100}, {"e0": 0, "e1": 9}) == (reading.weights, reading.caps)
    assert LanePlace(3, 5.0) == reading.lanes["bulk"]


@pytest.mark.parametrize(
    ("header", "body", "lane"),
    [
        (None, b"", "realtime"),
        ("bulk", b"", "bulk"),
        (" bulk ", b'{"service_tier": "realtime"}', "bulk"),
        ("unheard-of", b'{"service_tier": "bulk"}', "bulk"),
        (None, b'{"model": "m", "service_tier": "flex"}', "bulk"),
        (None, b'{"model": "m", "service_tier": "priority"}', "realtime"),
        (None, b'{"service_tier": "auto"}', "realtime"),
        (None, b'{"service_tier": 7}', "realtime"),
        (None, b'{"messages": [{"content": "\\"service_tier\\": \\"bulk\\""}]}', "realtime"),
        (None, b'{"metadata": {"service_tier": "bulk"}}', "realtime"),
        (None, b'{"service_tier": "bulk", "messages": [{"content": "cut he', "bulk"),
        (None, b'{"messages": [{"content": "cut he', "realtime"),
        (None, b'[{"service_tier": "bulk"}]', "realtime"),
        (None, b"\xff\xfe{", "realtime"),
        (None, b'{"a":' + b"[" * 60_000, "realtime"),
        (None, b'{"a": "' + b"x" * BODY_BYTES + b'", "service_tier": "bulk"}', "realtime"),
    ],
)
def test_the_lane_of_a_request(header: str | None, body: bytes, lane: str) -> None:
    """The header first, then the body's top-level tier within its beginning, else the first lane."""
    assert lane == lane_of(header, body, LANES)


@given(st.binary(max_size=200))
def test_no_body_upsets_the_search_for_a_tier(body: bytes) -> None:
    """Whatever bytes a client sends, the answer is a text."""
    assert isinstance(service_tier(b"{" + body), str)
