"""The small engine's HTTP door: OpenAI's completions, streamed or whole, and what vLLM's server has beside them.

Thin: it reads, hands over and writes down. Bodies are bounded in size and time, a reader that stops
reading is let go, and a request whose client has gone is aborted in the engine. It keeps no queue of
its own, and it is plain HTTP: as in front of any engine, whoever wants TLS here puts a proxy before it.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from flyball_core.errors import Rejected, Retryable
from flyball_core.version import __version__
from flyball_twin.serving.answers import Answer, error_event
from flyball_twin.serving.asking import Asked, RefusedRequest, error_body, read_request
from flyball_twin.serving.paced import PacedEngine
from flyball_twin.serving.page import CONTENT_TYPE, EnginePage
from flyball_twin.serving.streams import Stream

MOST_BODY_BYTES = 4 * 1024 * 1024
"""Largest body taken; the longest context as token ids is under a megabyte."""
BODY_S = 30.0
"""Longest time a body may take to come in."""
STALL_S = 30.0
"""A reader that takes nothing for so long is let go."""

_AT_ONCE_BYTES = 32 * 1024
"""What an empty buffer takes without waiting."""
_DOWN = 503
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_EVENTS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}


class HttpDoor:
    """The door of one engine; `model` is the name that its model goes by, `wall_clock` gives Unix seconds."""

    def __init__(self, paced: PacedEngine, page: EnginePage, model: str, wall_clock: Callable[[], float]) -> None:
        self._paced, self._page, self._model, self._wall_clock = paced, page, model, wall_clock

    def application(self) -> web.Application:
        """The routes, as aiohttp serves them."""
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[_in_openai_shape])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completion),
                web.get("/v1/models", self._models),
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/version", self._version),
            ]
        )
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, chat=False)

    async def _complete(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
        except TimeoutError:
            raise RefusedRequest(f"the body took longer than {BODY_S:g} s", status=408) from None
        asked = read_request(
            body, chat=chat, model=self._model, longest_tokens=self._paced.engine.longest_request_tokens()
        )
        name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        answer = Answer(asked, name, self._model, int(self._wall_clock()))
        stream = self._paced.submit(asked.prompt_tokens, asked.output_tokens, asked.finish)
        try:
            if asked.stream:
                return await _streamed(request, stream, answer)
            return await _whole(stream, answer, asked)
        finally:
            self._paced.abort(stream)  # which does nothing to a request that is over

    async def _models(self, _: web.Request) -> web.Response:
        longest = self._paced.engine.longest_request_tokens()
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": "flyball", "max_model_len": longest}
        return web.json_response({"object": "list", "data": [model]})

    async def _health(self, _: web.Request) -> web.Response:
        self._refuse_if_down()
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        self._refuse_if_down()
        return web.Response(body=self._page.render(), headers={"Content-Type": CONTENT_TYPE})

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": __version__})

    def _refuse_if_down(self) -> None:
        self._paced.advance()
        if not self._paced.ready:
            raise Retryable(f"{self._paced.engine.id} is being relaunched")


async def _whole(stream: Stream, answer: Answer, asked: Asked) -> web.Response:
    while not stream.ended:
        await stream.news.wait()
        stream.news.clear()
    if stream.failure:
        raise Retryable(stream.failure)
    assert stream.delivered == asked.output_tokens
    return web.json_response(answer.whole())


async def _streamed(request: web.Request, stream: Stream, answer: Answer) -> web.StreamResponse:
    """Write the tokens down as they come. The status goes with the first: what fails before can still say so."""
    response = web.StreamResponse(headers=_EVENTS)
    written = 0
    while not stream.failure:
        await stream.news.wait()
        stream.news.clear()
        if (delivered := stream.delivered) == written:
            continue
        if not written:
            await response.prepare(request)
        data = answer.events(written, delivered)
        written = delivered
        await _write(request, response, data)
        if stream.ended and not stream.failure:
            await response.write_eof()
            return response
    if not written:
        raise Retryable(stream.failure)
    await _write(request, response, error_event(error_body(stream.failure, status=_DOWN)))
    await response.write_eof()
    return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Write; only where the reader is behind is there something to wait for, and then not for ever."""
    transport = request.transport
    if transport is not None and not transport.get_write_buffer_size() and len(data) < _AT_ONCE_BYTES:
        await response.write(data)
        return
    try:
        async with asyncio.timeout(STALL_S):
            await response.write(data)
    except TimeoutError:
        if transport is not None:
            transport.abort()
        raise


@web.middleware
async def _in_openai_shape(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Say every error as OpenAI's servers do."""
    try:
        return await handler(request)
    except RefusedRequest as error:
        return _error(str(error), error.status, error.param, error.code)
    except Rejected as error:
        return _error(str(error), 400)
    except Retryable as error:
        return _error(str(error), _DOWN, code="engine_unavailable")
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _error(error.text or error.reason, error.status)


def _error(message: str, status: int, param: str | None = None, code: str | None = None) -> web.Response:
    return web.json_response(error_body(message, status=status, param=param, code=code), status=status)
