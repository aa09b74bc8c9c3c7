"""Targets: what clients send over HTTP: to the small gateway, and to the twin's engines.

The promises: a request's lane is one of those there are; a body that cannot be served is refused in one
sentence; whatever bytes a connection carries, the gateway answers properly or hangs up, frees what it held,
and serves the next client.
"""

import asyncio
import json

import aiohttp
from aiohttp import web

from flyball_agents.gateway.lanes import lane_of, service_tier
from flyball_agents.gateway.serving import RoutedTo, SmallGateway
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.serving.asking import RefusedRequest, error_body, read_request
from fuzz_bytes import Draw

LANES = (
    LaneRule(lane="chat", priority=0, max_wait_s=1.0),
    LaneRule(lane="bulk", priority=9, max_wait_s=1.0),
    LaneRule(lane="ödd", priority=-3, max_wait_s=1.0),
)
ANSWER_S = 5.0
LONGEST_TOKENS = 4096


def lanes(data: bytes) -> None:
    """The header and the body that tell a request's lane."""
    draw = Draw(data)
    header = draw.piece().decode("utf-8", "surrogateescape") if draw.byte() % 2 else None
    body = draw.rest()
    lane = lane_of(header, body, LANES)
    assert lane in {rule.lane for rule in LANES}
    tier = service_tier(body)
    try:
        told = json.loads(body.decode())
    except (ValueError, RecursionError):
        return
    plain = isinstance(told, dict) and body.count(b"service_tier") == 1 and b"\\u" not in body
    if plain and isinstance(told.get("service_tier"), str):
        assert tier == told["service_tier"]


def twin_request(data: bytes) -> None:
    """The body of a completion: what it asks for is within bounds, or it is refused."""
    chat = data[:1] < b"\x80"
    try:
        asked = read_request(data[1:], chat=chat, model="m", longest_tokens=LONGEST_TOKENS)
    except RefusedRequest as error:
        status, said = error.status, error_body(str(error), status=error.status, param=error.param, code=error.code)
        assert json.dumps(said).encode()
    else:
        status = 200
        assert asked.prompt_tokens >= 1
        assert asked.output_tokens >= 1
        assert asked.prompt_tokens + asked.output_tokens <= LONGEST_TOKENS
        assert 0 <= asked.checksum < 2**32
    assert 200 <= status < 500


class _Served:
    """A small gateway before one engine that answers everything, on a loop that stands still between calls."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.runner.run(self._open())

    async def _open(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._engine)
        self.engine = web.AppRunner(app, access_log=None)
        await self.engine.setup()
        await web.TCPSite(self.engine, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{self.engine.addresses[0][1]}"
        self.gateway = SmallGateway([RoutedTo(EngineId("e0"), url)], LANES)
        await self.gateway.open("127.0.0.1:0")

    async def _engine(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def send(self, data: bytes) -> bytes:
        """What comes back for these bytes on a connection of their own, until it falls silent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.port)
        try:
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(ANSWER_S):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def serves(self) -> None:
        """The next client is served, and nobody else holds a place."""
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{self.gateway.port}/v1/completions"
            async with session.post(address, data=b"{}", headers={"x-flyball-lane": "bulk"}) as answer:
                assert answer.status == 200
                assert await answer.read() == b"{}"

    async def _close(self) -> None:
        await self.gateway.close()
        await self.engine.cleanup()

    def close(self) -> None:
        """End it all."""
        self.runner.run(self._close())
        self.runner.close()


_served: list[_Served] = []


def close_gateway() -> None:
    """Close the gateway that `gateway_door` keeps open between its calls, if it does."""
    while _served:
        _served.pop().close()


def gateway_door(data: bytes) -> None:
    """The bytes of a connection to the small gateway."""
    if not _served:
        _served.append(_Served())
    here = _served[0]
    answer = here.runner.run(here.send(data))
    assert b" 500 " not in answer.partition(b"\r\n")[0], answer[:200]
    here.runner.run(here.serves())
