"""Targets: metrics pages of engines and gateways, and the HTTP answers that they come in.

The promises: nothing of a page is taken (`PageRefused`, with a reason), or what is taken is finite, not
negative, fits a frame that the log takes, and costs no other engine its samples. Nothing else comes out.
"""

import asyncio
import math
import zlib

from flyball_agents.node.engine_page import EngineReader
from flyball_agents.node.gateway_page import GatewayReader
from flyball_agents.node.newest import NothingNew
from flyball_agents.node.pages import PageRefused
from flyball_agents.node.scraping import PageLimits, PageSampler, page_session
from flyball_agents.sampling import Reading
from flyball_core.frames import EngineSample, Frame, GatewaySample
from flyball_core.ids import AgentId, BootId, PoolId
from flyball_proto.codec import decode_input, encode_input
from flyball_service.config import ScrapedEngine, ScrapedGateway
from fuzz_bytes import says

BOOT = BootId("1-aaaa")
ENGINE = ScrapedEngine(engine="e0", metrics="http://127.0.0.1:1/metrics", pool="chat")
GATEWAY = ScrapedGateway(gateway="gw0", metrics="http://127.0.0.1:1/metrics", pool="chat")
MOST_FRAME_BYTES = 128 * 1024
"""One source's part of a frame; a record of the log has 256 KiB for all of them."""
MOST_PAGES = 4
PAGE_S = 2.0


def sound(reading: Reading) -> None:
    """What was taken is a measurement, and fits the contract."""
    engines = tuple(one.sample for one in reading.engines)
    gateways = tuple(one.sample for one in reading.gateways)
    samples: tuple[EngineSample | GatewaySample, ...] = (*engines, *gateways)
    assert samples
    for sample in samples:
        numbers = [value for value in sample if isinstance(value, float)]
        assert all(math.isfinite(number) and number >= 0.0 for number in numbers)
        assert sample.incarnation
    frame = Frame(AgentId("a"), BOOT, PoolId("chat"), 0, 1.0, 1.0, False, (), engines, gateways)  # noqa: FBT003 - a frame's fields
    raw = encode_input(frame)
    assert len(raw) <= MOST_FRAME_BYTES
    assert raw == encode_input(decode_input(0, raw).body)


def _pages(data: bytes) -> list[bytes]:
    return data.split(b"\x00", MOST_PAGES - 1)


def engine_page(data: bytes) -> None:
    """Pages of one engine, one after the other."""
    reader = EngineReader(ENGINE, BOOT)
    for number, page in enumerate(_pages(data)):
        try:
            sound(reader.read(page, float(number)))
        except PageRefused as error:
            says(error)


def gateway_page(data: bytes) -> None:
    """Pages of one gateway, one after the other."""
    reader = GatewayReader(GATEWAY, BOOT)
    for number, page in enumerate(_pages(data)):
        try:
            sound(reader.read(page, float(number)))
        except PageRefused as error:
            says(error)


class _Answering:
    """An event loop with a server that answers whatever bytes it is told to, then hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self.runner = asyncio.Runner()
        self.server = self.runner.run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/metrics"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        writer.close()

    def close(self) -> None:
        """End the server and its loop."""

        async def end() -> None:
            self.server.close()
            await self.server.wait_closed()

        self.runner.run(end())
        self.runner.close()


_answering: list[_Answering] = []


def close_server() -> None:
    """Close the server that `page_answer` keeps open between its calls, if it does."""
    while _answering:
        _answering.pop().close()


def page_answer(data: bytes) -> None:
    """A whole HTTP answer: the sampler takes its page or counts why not, and never raises."""
    if not _answering:
        _answering.append(_Answering())
    here = _answering[0]
    here.answer = data.replace(b"@gzip", zlib.compress(b"vllm:num_requests_running 1\n" * 50))
    limits = PageLimits(timeout_s=PAGE_S, most_bytes=20_000)
    sampler = PageSampler(here.url, EngineReader(ENGINE, BOOT), limits)

    async def scrape() -> None:
        async with page_session() as session:
            await sampler.scrape(session, asyncio.get_running_loop().time)

    here.runner.run(scrape())
    assert "raised" not in sampler.failures, sampler.trouble
    try:
        sound(sampler.sample(0.0))
    except NothingNew:
        assert sum(sampler.failures.values()) == 1
        assert sampler.trouble
    else:
        assert not sampler.failures
        assert sampler.page_bytes <= limits.most_bytes
