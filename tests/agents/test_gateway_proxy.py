"""The small gateway on real sockets: it streams, balances, queues, sheds and survives what engines and clients do."""

import asyncio
import contextlib
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from flyball_agents.gateway.serving import RoutedTo, SmallGateway
from flyball_core.errors import Fatal, Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from small_pool import LANES, forwarding, small_pool


async def until(what: Callable[[], object], within_s: float = 5.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.005)


async def test_an_answer_is_passed_on_as_it_comes() -> None:
    """Its first piece arrives while the engine still works on the second; status and headers are the engine's."""
    async with small_pool(("a",)) as pool, pool.ask(stream=True) as answer:
        pieces = answer.content.iter_any()

        assert (200, "text/event-stream", "a") == (answer.status, answer.content_type, answer.headers["X-Engine"])
        assert b"data: a\n\n" == await anext(pieces)
        pool.engines[0].gate.set()
        assert b"data: [DONE]\n\n" == await anext(pieces)


async def test_a_request_arrives_as_it_was_sent() -> None:
    """Path, query, body and headers, but not those of the connection; an error of the engine is its own to tell."""
    async with small_pool(("a",)) as pool:
        sent = {"Authorization": "Bearer x", "Connection": "close, X-Private", "X-Private": "1", "User-Agent": "me"}
        async with pool.client.put(f"{pool.url}/v1/models?a=%20b&c", data=b"\x00\xff", headers=sent) as answer:
            assert (418, {"engine": "a"}) == (answer.status, await answer.json())
        got = pool.engines[0].headers[0]

        assert (["/v1/models?a=%20b&c"], [b"\x00\xff"]) == (pool.engines[0].asked, pool.engines[0].bodies)
        assert ("Bearer x", "me") == (got["Authorization"], got["User-Agent"])
        assert {"X-Private", "Accept-Encoding"} & got.keys() == {"Accept-Encoding"}


async def test_load_is_shared_and_weight_0_drains() -> None:
    """Ten requests over two engines are five each; at weight 0 an engine gets none, and keeps what it has."""
    async with small_pool() as pool:
        first = [asyncio.create_task(pool.answered()) for _ in range(10)]
        await until(lambda: sum(len(engine.asked) for engine in pool.engines) == 10)
        assert [5, 5] == [len(engine.asked) for engine in pool.engines]
        pool.gateway.admission.set_weight("a", 0)
        later = [asyncio.create_task(pool.answered()) for _ in range(4)]
        await until(lambda: len(pool.engines[1].asked) == 9)
        for engine in pool.engines:
            engine.gate.set()
        done = await asyncio.gather(*first, *later)

        assert Counter({(200, "b"): 9, (200, "a"): 5}) == Counter(done)


async def test_caps_queue_and_urgent_lanes_go_first() -> None:
    """With one place, bulk requests wait, and realtime ones that come later overtake them."""
    async with small_pool(("a",)) as pool:
        pool.gateway.admission.set_cap("a", 1)
        order: list[str] = []

        async def ask(lane: str) -> None:
            await pool.answered(lane)
            order.append(lane)

        async with asyncio.TaskGroup() as tasks:
            for came, lane in enumerate(("bulk", "bulk", "bulk", "realtime", "realtime"), start=1):
                tasks.create_task(ask(lane))
                await until(lambda: pool.gateway.admission.balancer.entered == came)  # noqa: B023 - it is awaited here
            await until(lambda: pool.gateway.admission.balancer.queued == 4)
            assert 1 == len(pool.engines[0].asked)
            pool.engines[0].gate.set()

        assert ["bulk", "realtime", "realtime", "bulk", "bulk"] == order


async def test_who_waits_too_long_is_told_when_to_come_back() -> None:
    """503 with a Retry-After, and the queue is as it was."""
    lanes = (LaneRule(lane="realtime", priority=0, max_wait_s=0.2),)
    async with small_pool(("a",), lanes=lanes) as pool:
        pool.gateway.admission.set_weight("a", 0)
        async with pool.ask() as answer:
            said = await answer.json()

        assert (503, "waited_too_long") == (answer.status, said["error"]["code"])
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert 0 == pool.gateway.admission.balancer.queued


async def test_a_full_queue_refuses_at_once() -> None:
    """429 for what is one too many."""
    async with small_pool(("a",)) as pool:
        pool.gateway.admission.most_queued = 1
        pool.gateway.admission.set_cap("a", 1)
        tasks = [asyncio.create_task(pool.answered()) for _ in range(2)]
        await until(lambda: pool.gateway.admission.balancer.queued == 1)
        async with pool.ask() as answer:
            assert 429 == answer.status
        pool.engines[0].gate.set()

        assert [(200, "a")] * 2 == await asyncio.gather(*tasks)


async def test_a_client_that_leaves_frees_its_place_and_its_engine() -> None:
    """Within an answer the engine's work is cut off and the next gets the place; in the queue it is just gone."""
    async with small_pool(("a",)) as pool:
        admission = pool.gateway.admission
        admission.set_cap("a", 1)
        streaming, waiting, stays = (asyncio.create_task(pool.answered()) for _ in range(3))
        await until(lambda: admission.balancer.queued == 2 and pool.engines[0].asked)
        waiting.cancel()
        await until(lambda: admission.balancer.queued == 1)
        streaming.cancel()
        await until(lambda: pool.engines[0].aborted == 1)
        await until(lambda: len(pool.engines[0].asked) == 2)
        pool.engines[0].gate.set()

        assert (200, "a") == await stays
        assert 2 == pool.proxy.counts.clients_gone
        assert 0 == admission.balancer.in_flight(EngineId("a")) == admission.lanes["realtime"].in_flight


async def test_an_engine_that_is_gone_is_gone_around() -> None:
    """A refused connection costs its request nothing but a second try, and its engine all further ones."""
    async with small_pool() as pool:
        for engine in pool.engines:
            engine.gate.set()
        await pool.engines[0].stop()
        done = [await pool.answered() for _ in range(4)]

        assert [(200, "b")] * 4 == done
        assert not pool.gateway.admission.balancer.is_up(EngineId("a"))
        await pool.engines[0].start(pool.engines[0].port)
        await until(lambda: pool.gateway.admission.balancer.is_up(EngineId("a")))
        assert {"a", "b"} == {engine for _, engine in [await pool.answered() for _ in range(4)]}


async def test_an_engine_that_dies_before_its_answer_costs_one_retry() -> None:
    """Tried once more elsewhere; if that one dies as well, 502 and no third try."""
    async with small_pool(("a", "b", "c")) as pool:
        for engine in pool.engines:
            engine.gate.set()
        pool.engines[0].dies_before = True
        for _ in range(3):
            assert 200 == (await pool.answered())[0]
        retried = pool.proxy.counts.retried
        assert 1 <= retried == len(pool.engines[0].asked)
        for engine in pool.engines:
            engine.dies_before = True
        await until(lambda: pool.gateway.up == 3)
        asked = sum(len(engine.asked) for engine in pool.engines)
        async with pool.ask() as answer:
            assert 502 == answer.status

        assert asked + 2 == sum(len(engine.asked) for engine in pool.engines)


async def test_an_engine_that_dies_within_its_answer_breaks_it_off() -> None:
    """The client sees an answer that is not complete, never one that looks so; nothing is tried twice."""
    async with small_pool() as pool:
        for engine in pool.engines:
            engine.dies_within = True
            engine.gate.set()
        with pytest.raises(aiohttp.ClientError):
            await pool.answered()
        await until(lambda: pool.proxy.counts.broken_off == 1)

        assert 1 == sum(len(engine.asked) for engine in pool.engines)
        assert 0 == pool.gateway.admission.lanes["realtime"].in_flight


async def test_a_probe_takes_an_ailing_engine_out_and_brings_it_back() -> None:
    """Three answers of 503 in a row, and one of 200."""
    async with small_pool() as pool:
        up = pool.gateway.admission.balancer.is_up
        pool.engines[0].health = 503
        await until(lambda: not up(EngineId("a")))
        pool.engines[0].health = 404  # no such page is an answer too
        await until(lambda: up(EngineId("a")))


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_too_large_is_refused(declared: bool) -> None:  # noqa: FBT001 - parametrised
    """Ten megabytes against one: 413, whether declared or found out on the way, and no engine is asked."""
    async with small_pool(("a",)) as pool:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(160):
                yield b"x" * 65_536

        data = io.BytesIO(b"x" * (10 << 20)) if declared else pieces()
        with contextlib.suppress(aiohttp.ClientConnectionError):  # it may be closed before all of it was sent
            async with pool.client.post(f"{pool.url}/v1/completions", data=data) as answer:
                assert (413, "body_too_large") == (answer.status, (await answer.json())["error"]["code"])
        assert {"body_too_large": 1} == pool.proxy.counts.refused
        assert [] == pool.engines[0].asked


async def test_bodies_held_and_requests_open_are_bounded() -> None:
    """Too much in all is 429, whatever each is by itself; what was held is let go."""
    async with small_pool(("a",), limits=forwarding(held_bytes=1000, most_open=2)) as pool:
        pool.gateway.admission.set_weight("a", 0)
        first = asyncio.create_task(pool.client.post(f"{pool.url}/x", data=b"x" * 600))
        await until(lambda: pool.gateway.admission.balancer.queued == 1)
        async with pool.client.post(f"{pool.url}/x", data=b"x" * 600) as answer:
            assert (429, "memory_full") == (answer.status, (await answer.json())["error"]["code"])
        second = asyncio.create_task(pool.client.post(f"{pool.url}/x", data=b"x" * 300))
        await until(lambda: pool.gateway.admission.balancer.queued == 2)
        async with pool.client.get(f"{pool.url}/x") as answer:
            assert (429, "too_many_requests") == (answer.status, (await answer.json())["error"]["code"])
        pool.engines[0].gate.set()
        pool.gateway.admission.set_weight("a", 1)
        for task in (first, second):
            async with await task as answer:
                assert 200 == answer.status
        async with pool.client.post(f"{pool.url}/x", data=b"x" * 900) as answer:
            assert 200 == answer.status


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    """408 after its time, without a place taken meanwhile."""
    async with small_pool(("a",), limits=forwarding(body_s=0.2)) as pool:
        reader, writer = await asyncio.open_connection("127.0.0.1", pool.gateway.port)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nslow")
        status = await asyncio.wait_for(reader.readline(), 5.0)
        writer.close()
        await writer.wait_closed()

        assert b"HTTP/1.1 408" == status[:12]
        assert 0 == pool.gateway.admission.balancer.entered


async def test_headers_too_large_are_refused() -> None:
    """A header beyond 8 KiB is a 400, not a request."""
    async with small_pool(("a",)) as pool:
        async with pool.client.get(f"{pool.url}/v1/models", headers={"X-Big": "x" * 20_000}) as answer:
            assert 400 == answer.status
        assert [] == pool.engines[0].asked


async def test_an_engine_that_falls_silent_ends_in_504_or_breaks_off() -> None:
    """No answer within its bound is a 504; an answer that stops is broken off."""
    async with small_pool(("a",), limits=forwarding(silent_s=0.3)) as pool:
        with pytest.raises(aiohttp.ClientError):
            await pool.answered()

        assert 1 == pool.proxy.counts.broken_off


async def test_waiting_requests_are_served_when_engines_come_back() -> None:
    """With every engine down requests wait, as a client that tries again would."""
    async with small_pool(("a",)) as pool:
        pool.engines[0].gate.set()
        await pool.engines[0].stop()
        await until(lambda: pool.gateway.up == 0)
        waiting = [asyncio.create_task(pool.answered()) for _ in range(5)]
        await until(lambda: pool.gateway.admission.balancer.queued == 5)
        await pool.engines[0].start(pool.engines[0].port)

        assert [(200, "a")] * 5 == await asyncio.gather(*waiting)


async def test_many_requests_leave_nothing_behind() -> None:
    """Ninety, a third of which leave early: every count is back at zero."""
    async with small_pool() as pool:
        admission = pool.gateway.admission
        for engine in ("a", "b"):
            admission.set_cap(engine, 8)
        tasks = [asyncio.create_task(pool.answered("bulk" if n % 2 else "realtime")) for n in range(90)]
        await until(lambda: admission.balancer.queued >= 60)
        for task in tasks[::3]:
            task.cancel()
        start_s = time.monotonic()
        for engine_ in pool.engines:
            engine_.gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)

        assert 60 == sum(isinstance(one, tuple) and one[0] == 200 for one in done)
        await until(lambda: all((lane.queued, lane.in_flight) == (0, 0) for lane in admission.lanes.values()))
        assert 90 == sum(lane.waits for lane in admission.lanes.values())
        assert time.monotonic() - start_s < 5.0


def test_wrong_engines_and_lanes_are_refused() -> None:
    """No engine, an engine twice, a lane twice, a URL that is none."""
    a = RoutedTo(EngineId("a"), "http://127.0.0.1:1")
    for engines, lanes, why in (
        ([], LANES, "at least one engine"),
        ([a, a], LANES, "engine a is there more than once"),
        ([a], [*LANES, *LANES], "lane bulk, realtime is there more than once"),
        ([a._replace(url="127.0.0.1:1")], LANES, "begins with http"),
    ):
        with pytest.raises(Rejected, match=why):
            SmallGateway(engines, lanes)


async def test_an_address_in_use_is_said() -> None:
    """A gateway that cannot listen ends with one sentence and leaves nothing open."""
    async with small_pool(("a",)) as pool:
        other = SmallGateway([RoutedTo(EngineId("a"), "http://127.0.0.1:1")], LANES)
        with pytest.raises(Fatal, match="cannot listen on"):
            await other.open(f"127.0.0.1:{pool.gateway.port}")
