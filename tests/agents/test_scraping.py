"""Pages over HTTP: every way in which a server can fail to give one is bounded, counted and named."""

import asyncio
import gzip
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.pages import PageRefused
from flyball_agents.node.reading_thread import ReadingThread
from flyball_agents.node.scraping import (
    MOST_PAGE_BYTES,
    PageLimits,
    PageSampler,
    fetch_page,
    keep_scraping,
    page_session,
)
from flyball_core.errors import Rejected
from flyball_core.ids import BootId
from flyball_service.config import ScrapedEngine
from flyball_twin.stand_ins.pages import VllmPage
from served_pages import serving

LIMITS = PageLimits(timeout_s=0.3)


@asynccontextmanager
async def answering(answer: bytes, *, then: bool = False) -> AsyncIterator[str]:
    """The URL of a server that sends these bytes whatever it is asked, and closes, or `then` says no more."""
    open_ones: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if then:
            open_ones.append(writer)
        else:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/metrics"
    finally:
        server.close()
        for writer in open_ones:
            writer.close()
        await server.wait_closed()


def sampler_of(url: str, limits: PageLimits = LIMITS) -> PageSampler:
    """A sampler of an engine with its page there."""
    return PageSampler(url, EngineReader(ScrapedEngine(engine="e1", pool="chat", metrics=url), BootId("b")), limits)


async def refusal(url: str, limits: PageLimits = LIMITS) -> PageRefused:
    """Why the page there is refused; in time, and counted by the sampler as well."""
    sampler = sampler_of(url, limits)
    async with page_session() as session:
        began_s = time.monotonic()
        await sampler.scrape(session, time.monotonic)
        assert time.monotonic() - began_s < limits.timeout_s + 2.0
        with pytest.raises(PageRefused) as refused:
            await fetch_page(session, url, limits)
    assert sampler.failures == {refused.value.reason: 1}
    assert sampler.trouble == str(refused.value)
    return refused.value


async def stream(request: web.Request, chunk: bytes, pause_s: float, chunks: int = 1_000_000) -> web.StreamResponse:
    """Answer with so many chunks, a pause after each."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(chunks):
        await response.write(chunk)
        await asyncio.sleep(pause_s)
    return response


async def test_a_page_is_fetched_and_read() -> None:
    """The ordinary case, over a connection that is kept."""
    page = VllmPage()
    page.serve(3)
    asked: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(body=page.text())

    took: list[float] = []
    async with serving(handler) as url, page_session() as session:
        reader = EngineReader(ScrapedEngine(engine="e1", pool="chat", metrics=url), BootId("b"))
        sampler = PageSampler(url, reader, PageLimits(timeout_s=5.0), took=took.append)
        await sampler.scrape(session, time.monotonic)
        await sampler.scrape(session, time.monotonic)

    assert sampler.sample(0.0).engines[0].sample.requests_finished_total == 3.0
    assert (sampler.trouble, sampler.page_bytes, sampler.scrapes) == ("", len(page.text()), 2)
    assert len(took) == 2
    assert asked[0].transport is asked[1].transport
    assert asked[0].headers["Accept-Encoding"] == "identity"


async def test_a_page_over_the_bound_is_refused_before_it_is_read() -> None:
    """Two megabytes and a byte, announced: nothing of it is taken."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"#" * MOST_PAGE_BYTES + b"\n")

    async with serving(handler) as url:
        refused = await refusal(url, PageLimits(timeout_s=5.0))

    assert str(refused) == f"too_large: is larger than {MOST_PAGE_BYTES} bytes"


async def test_a_page_at_the_bound_is_taken() -> None:
    """The bound itself is allowed."""
    page = VllmPage().text()
    page = b"#" * (MOST_PAGE_BYTES - len(page) - 1) + b"\n" + page

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=page)

    async with serving(handler) as url, page_session() as session:
        sampler = sampler_of(url, PageLimits(timeout_s=5.0))
        await sampler.scrape(session, time.monotonic)

    assert (sampler.trouble, sampler.page_bytes) == ("", MOST_PAGE_BYTES)


async def test_an_endless_fast_page_ends_at_the_bound_of_size() -> None:
    """A page without an end and without a length is given up when it is too large."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, b"vllm:num_requests_running 1.0\n" * 2000, 0.0)

    async with serving(handler) as url:
        assert (await refusal(url, PageLimits(timeout_s=5.0))).reason == "too_large"


async def test_an_endless_slow_page_ends_at_the_bound_of_time() -> None:
    """A page that comes drop by drop counts as missing: each byte in time makes no page in time."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return await stream(request, b"vllm:num_requests_running 1.0\n", 0.02)

    async with serving(handler) as url:
        assert str(await refusal(url)) == "timeout: not there after 0.3 s"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
async def test_a_server_that_says_no_more_ends_at_the_bound_of_time(answer: bytes) -> None:
    """Connected and silent: before the answer, within its head, within its body."""
    async with answering(answer, then=True) as url:
        assert (await refusal(url)).reason == "timeout"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "unreachable"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nvllm:num_requests_running 1.0\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nvll", "malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nvll", "malformed"),
        (b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n", "malformed"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "status"),
    ],
)
async def test_an_answer_that_is_no_page_is_named(answer: bytes, reason: str) -> None:
    """Closed at once, no HTTP, cut off, a wrong status, a redirect that is not followed."""
    async with answering(answer) as url:
        assert (await refusal(url)).reason == reason


async def test_a_page_that_nobody_said_the_end_of_is_malformed() -> None:
    """It may be cut off between two lines, and nobody could tell."""
    async with answering(b"HTTP/1.0 200 OK\r\n\r\n" + VllmPage().text()) as url, page_session() as session:
        sampler = sampler_of(url)
        await sampler.scrape(session, time.monotonic)

    assert sampler.failures == {"malformed": 1}


async def test_a_compressed_page_is_refused_unread() -> None:
    """Two kilobytes that would grow to megabytes cost two kilobytes."""
    bomb = gzip.compress(b"vllm:num_requests_running 1.0\n" * 400_000)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as url:
        assert (await refusal(url, PageLimits(timeout_s=5.0))).reason == "encoded"


async def test_nobody_there_is_unreachable() -> None:
    """A refused connection, and a name that nobody knows."""
    async with answering(b"") as url:
        pass

    assert str(await refusal(url)) == "unreachable: Connection refused"
    assert (await refusal("http://no-such-host.invalid/metrics", PageLimits(timeout_s=5.0))).reason == "unreachable"


async def test_a_url_that_is_none_is_the_operators_to_mend() -> None:
    """It is rejected, and a sampler counts it as what its source raised."""
    sampler = sampler_of("nonsense")
    async with page_session() as session:
        with pytest.raises(Rejected, match="no URL"):
            await fetch_page(session, "nonsense", LIMITS)
        await sampler.scrape(session, time.monotonic)

    assert sampler.failures == {"raised": 1}


async def test_scraping_goes_on_while_pages_fail_and_ends_when_told() -> None:
    """A slow engine skips beats and makes up for none; the next page is taken when there is one."""
    page = VllmPage().text()
    asked = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.Response(body=page) if asked > 2 else await stream(request, b"#", 0.05)

    stop = asyncio.Event()
    async with serving(handler) as url, page_session() as session:
        sampler = sampler_of(url, PageLimits(timeout_s=0.2))
        task = asyncio.create_task(keep_scraping(sampler, session, stop=stop, clock=time.monotonic, period_s=0.05))
        async with asyncio.timeout(5.0):
            while sampler.trouble:
                await asyncio.sleep(0.01)
        stop.set()
        async with asyncio.timeout(1.0):
            await task

    assert sampler.failures == {"timeout": 2}
    assert sampler.sample(0.0).engines


class _Source:
    """Counts its readings, and raises in one."""

    name = "driver"

    def __init__(self) -> None:
        self.reads = 0
        self.closed = False

    def read(self, _now_s: float) -> None:
        """The second reading raises."""
        self.reads += 1
        if self.reads == 2:
            raise RuntimeError("broken")

    def close(self) -> None:
        """Nothing to give back."""
        self.closed = True


def test_a_reading_thread_survives_what_its_source_raises() -> None:
    """The error is counted, the beat goes on, and stopping closes the source."""
    source = _Source()
    thread = ReadingThread(source, clock=time.monotonic, period_s=0.005)
    thread.start()
    until_s = time.monotonic() + 5.0
    while source.reads < 5 and time.monotonic() < until_s:
        time.sleep(0.005)

    assert thread.stop(2.0)
    assert (thread.raised, source.closed) == (1, True)
    assert source.reads >= 5


def test_a_reading_that_hangs_does_not_keep_the_process() -> None:
    """Stopping waits as long as it was told and says that the thread did not end."""
    hanging, go_on = threading.Event(), threading.Event()

    class Hanging(_Source):
        def read(self, _now_s: float) -> None:
            """Hang until the test is over."""
            hanging.set()
            go_on.wait(10.0)

    thread = ReadingThread(Hanging(), clock=time.monotonic, period_s=0.005)
    thread.start()
    assert hanging.wait(5.0)

    assert not thread.stop(0.05)
    go_on.set()
    assert thread.stop(5.0)
