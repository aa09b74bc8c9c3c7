"""The reverse proxy: takes a request whole, waits for a place, and passes the answer through as it comes.

A request's body is held until its answer begins, within bounds per request and in all, so that
a failed connection can be tried once more elsewhere. An answer is never held: each piece goes on
before the next is read. A client that leaves frees its place and ends the engine's work on it at once. An
engine that dies within an answer breaks the client's connection off, so that no answer looks
complete that is not. It judges neither who asks nor what is asked.
"""

import asyncio
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from flyball_agents.gateway.admission import Admission, QueueFull, WaitedTooLong
from flyball_agents.gateway.lanes import LANE_HEADER, lane_of
from flyball_agents.gateway.probing import Probing
from flyball_core.ids import EngineId

_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_NOT_ASKED_ON = _HOP | {"content-length", "expect", "host"}
_TRIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardLimits:
    """What clients may cost."""

    most_open: int = 4096
    """Requests at any time, waiting or in flight. Each takes up to two sockets."""
    body_bytes: int = 8 << 20
    """Largest body of a request."""
    held_bytes: int = 256 << 20
    """Bodies held at any time, of all requests together."""
    body_s: float = 60.0
    """Longest time for a body to arrive."""
    connect_s: float = 2.0
    silent_s: float = 600.0
    """Longest silence of an engine, before or within its answer."""
    stalled_s: float = 60.0
    """Longest time for a client to take a piece of its answer."""


@dataclass(slots=True)
class ForwardCounts:
    """What became of requests since the gateway started."""

    responses: dict[tuple[str, str], int] = field(default_factory=dict)
    """Answers begun, by engine and class of status (`2xx`)."""
    refused: dict[str, int] = field(default_factory=dict)
    """Requests that no engine answered, by reason."""
    retried: int = 0
    broken_off: int = 0
    """Answers that ended before they were complete, because the engine did."""
    clients_gone: int = 0


class Refusal(Exception):
    """The gateway answers by itself: with this status, and why."""

    def __init__(self, status: int, reason: str, why: str) -> None:
        self.status, self.reason = status, reason
        super().__init__(why)


@dataclass(slots=True)
class _Body:
    """A request's body while it is held."""

    data: bytes = b""
    size: int = 0


class Proxy:
    """Forwards requests to the engines that `admission` gives places at; `handle` is an aiohttp handler."""

    def __init__(
        self,
        admission: Admission,
        engines: Mapping[EngineId, Probing],
        session: aiohttp.ClientSession,
        rng: random.Random,
        limits: ForwardLimits | None = None,
    ) -> None:
        self.counts = ForwardCounts()
        self._admission = admission
        self._engines = engines
        self._session = session
        self._rng = rng
        self._limits = limits or ForwardLimits()
        self._open = 0
        self._held_bytes = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request. Where the client is gone, cancellation passes through."""
        body = _Body()
        self._open += 1
        try:
            if self._open > self._limits.most_open:
                raise Refusal(429, "too_many_requests", "too many requests at once")
            await self._take(request, body)
            return await self._serve(request, body)
        except Refusal as refusal:
            self.counts.refused[refusal.reason] = self.counts.refused.get(refusal.reason, 0) + 1
            return self._say(refusal)
        except asyncio.CancelledError:
            self.counts.clients_gone += 1
            raise
        finally:
            self._open -= 1
            self._drop(body)

    async def _take(self, request: web.Request, body: _Body) -> None:
        most, pieces = self._limits.body_bytes, []
        if (request.content_length or 0) > most:
            raise Refusal(413, "body_too_large", f"a body has {most} bytes at most")
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for piece in request.content.iter_any():
                    pieces.append(piece)
                    body.size += len(piece)
                    self._held_bytes += len(piece)
                    if body.size > most:
                        raise Refusal(413, "body_too_large", f"a body has {most} bytes at most")
                    if self._held_bytes > self._limits.held_bytes:
                        raise Refusal(429, "memory_full", "too many large requests at once")
        except TimeoutError:
            raise Refusal(408, "body_too_slow", f"a body arrives within {self._limits.body_s:g} s") from None
        body.data = b"".join(pieces)

    def _drop(self, body: _Body) -> None:
        self._held_bytes -= body.size
        body.data, body.size = b"", 0

    async def _serve(self, request: web.Request, body: _Body) -> web.StreamResponse:
        balancer = self._admission.balancer
        lane = lane_of(request.headers.get(LANE_HEADER), body.data, [balancer.rule(name) for name in balancer.lanes])
        self._admission.lanes[lane].requests += 1
        for tried in range(1, _TRIES + 1):
            engine = await self._place(lane)
            try:
                answer = await self._ask(engine, request, body)
                if answer is not None:
                    self._drop(body)
                    return await self._pass_on(request, engine, answer)
            finally:
                self._admission.leave(lane, engine)
            self.counts.retried += tried < _TRIES
        raise Refusal(502, "engine_lost", "two engines in a row broke off before they answered")

    async def _place(self, lane: str) -> EngineId:
        try:
            return await self._admission.enter(lane)
        except QueueFull as error:
            raise Refusal(429, "queue_full", str(error)) from None
        except WaitedTooLong as error:
            raise Refusal(503, "waited_too_long", str(error)) from None

    async def _ask(self, engine: EngineId, request: web.Request, body: _Body) -> aiohttp.ClientResponse | None:
        """The engine's answer, its body still to come; None if the engine was lost before it began one."""
        probing = self._engines[engine]
        try:
            return await self._session.request(
                request.method,
                URL(probing.url + request.rel_url.raw_path_qs, encoded=True),
                headers=_passed(request.headers, _NOT_ASKED_ON),
                data=io.BytesIO(body.data) if body.data else None,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._limits.connect_s, sock_read=self._limits.silent_s
                ),
            )
        except aiohttp.SocketTimeoutError:
            raise Refusal(
                504, "engine_silent", f"the engine did not answer within {self._limits.silent_s:g} s"
            ) from None
        except aiohttp.ClientConnectionError as error:
            probing.failed(str(error) or type(error).__name__)
            return None
        except aiohttp.ClientError as error:
            raise Refusal(502, "engine_answer_wrong", f"the engine's answer cannot be read: {error}") from None

    async def _pass_on(
        self, request: web.Request, engine: EngineId, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        key = (engine, f"{answer.status // 100}xx")
        self.counts.responses[key] = self.counts.responses.get(key, 0) + 1
        out = web.StreamResponse(status=answer.status, reason=answer.reason, headers=_passed(answer.headers, _HOP))
        try:
            await out.prepare(request)
            async for piece in answer.content.iter_any():
                async with asyncio.timeout(self._limits.stalled_s):
                    await out.write(piece)
            await out.write_eof()
        except (ConnectionError, TimeoutError) as error:
            if isinstance(error, aiohttp.ServerConnectionError):  # also an engine that fell silent
                self._break_off(request)
            elif request.transport is not None:  # the client is gone, or takes nothing any more
                self.counts.clients_gone += 1
                request.transport.abort()
        except aiohttp.ClientError:
            self._break_off(request)
        finally:
            answer.close()  # gives a complete answer's connection back, and breaks off any other
        return out

    def _break_off(self, request: web.Request) -> None:
        """Close the client's connection before its answer's end, after what of it is on its way."""
        self.counts.broken_off += 1
        if request.transport is not None:
            request.transport.close()

    def _say(self, refusal: Refusal) -> web.Response:
        said = {"error": {"message": str(refusal), "type": "flyball_gateway", "code": refusal.reason}}
        response = web.json_response(said, status=refusal.status)
        if refusal.status in (429, 503):
            # Clients refused together shall not come back together.
            response.headers["Retry-After"] = str(self._rng.randint(1, 5))
        if refusal.status in (408, 413, 429):
            response.force_close()  # what is left of its body is not waited for
        return response


def _passed(headers: CIMultiDictProxy[str], but: frozenset[str]) -> CIMultiDict[str]:
    """The headers that a proxy hands on."""
    named = {name.strip().lower() for value in headers.getall("connection", ()) for name in value.split(",")}
    kept = CIMultiDict[str]()
    for name, value in headers.items():
        if name.lower() not in but and name.lower() not in named:
            kept.add(name, value)
    return kept
