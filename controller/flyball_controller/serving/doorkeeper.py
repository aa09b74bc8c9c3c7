"""Who may call what: the roles of every RPC in one table, held to before any handler is reached.

An RPC without a row is refused to everybody. Names are the doors' to check, against what a call says; what they
refuse for them goes on record here too. Of a handshake that fails gRPC tells nobody more than that it began.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import grpc
import structlog

from flyball_controller.serving.refusals import Refusal, refusing
from flyball_service.rates import Bucket
from flyball_service.tls import Tls

FORBIDDEN = "role"
LINES_PER_S, LINES_AT_ONCE = 10.0, 100
"""Refused callers that get a line each in the log; what comes faster is counted and told by number."""

MOST_PEERS = 8_192
"""Connections that are known again."""

_READERS = frozenset({"viewer", "operator"})
_WRITERS = frozenset({"operator"})
ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "/flyball.v1.AppendService/Append": frozenset({"agent"}),
        "/flyball.v1.AttachService/Attach": frozenset({"engine", "gateway"}),
        "/flyball.v1.OperatorReadService/Status": _READERS,
        "/flyball.v1.OperatorReadService/GetPolicy": _READERS,
        "/flyball.v1.OperatorReadService/Decisions": _READERS,
        "/flyball.v1.OperatorWriteService/SetOverride": _WRITERS,
        "/flyball.v1.OperatorWriteService/ClearOverride": _WRITERS,
        "/flyball.v1.OperatorWriteService/ApplyPolicy": _WRITERS,
        "/flyball.v1.OperatorWriteService/GiveOrder": _WRITERS,
        "/flyball.v1.OperatorWriteService/GiveRebase": _WRITERS,
    }
)
"""The roles that may call each RPC."""

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
log = structlog.get_logger()


class RefusalLog:
    """Puts refused callers on record: `count` hears each with its reason, and each has a line unless they are too many.

    `clock` gives monotonic seconds.
    """

    def __init__(self, count: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._clock = clock
        self._lines = Bucket(per_s=LINES_PER_S, at_once=LINES_AT_ONCE)
        self._untold = 0

    def refused(self, context: Context, refusal: Refusal, method: str = "") -> None:
        """Note a refusal, if it is for who calls."""
        if refusal.code is not grpc.StatusCode.PERMISSION_DENIED:
            return
        self._count(refusal.reason)
        if not self._lines.take(1, self._clock()):
            self._untold += 1
            return
        told: dict[str, object] = {"method": method} if method else {}
        if self._untold:
            told["refused_meanwhile"], self._untold = self._untold, 0
        log.warning(
            "caller_refused",
            peer=context.peer(),
            certificate=certificate_of(context),
            reason=refusal.reason,
            why=str(refusal),
            **told,
        )


def certificate_of(context: Context) -> str:
    """Whose certificate a caller showed, by its own words: its ids, or its common name if it has none."""
    shown = context.auth_context()
    names = [str(name, "utf-8", "replace")[:300] for name in shown.get("peer_uri") or shown.get("x509_common_name", ())]
    return ", ".join(names[:4]) or "none"


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Lets through to its handler what a certificate's role allows. On plaintext everybody is let through."""

    def __init__(self, tls: Tls | None, refusals: RefusalLog) -> None:
        self.connections = 0
        """Connections that came to a call. Over TLS, those that began and did not are strangers', or still idle."""
        self._tls = tls
        self._refusals = refusals
        self._peers: OrderedDict[str, None] = OrderedDict()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The handler of a call behind its check; None if there is none."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method

        async def check(context: Context) -> None:
            self._know(context.peer())
            async with refusing(context, lambda refusal: self._refusals.refused(context, refusal, method)):
                self._must_be_allowed(method, context)

        return _behind(handler, check)

    def _know(self, peer: str) -> None:
        """Count a connection at its first call; one that was forgotten among too many others is counted again."""
        if peer in self._peers:
            self._peers.move_to_end(peer)
            return
        self.connections += 1
        self._peers[peer] = None
        if len(self._peers) > MOST_PEERS:
            self._peers.popitem(last=False)

    def _must_be_allowed(self, method: str, context: Context) -> None:
        roles = ROLES.get(method, frozenset())
        who = self._tls.peer(context) if self._tls is not None else None
        if who is None and roles:
            return
        if who is None or who.role not in roles:
            role = (who.role if who is not None else "") or "no role of this trust domain"
            said = f"this takes role {' or '.join(sorted(roles)) or 'none'}; the certificate says {role}"
            raise Refusal(grpc.StatusCode.PERMISSION_DENIED, FORBIDDEN, said)


def _behind(handler: Handler, check: Callable[[Context], Awaitable[None]]) -> Handler:
    """A handler that is reached after `check` only; None for none, and for a kind that no service of ours has."""
    if handler is None:
        return None
    coders = handler.request_deserializer, handler.response_serializer
    # The stubs' types are of the blocking kind; an aio server calls with aio contexts and awaits.
    if handler.unary_unary is not None:
        answer = cast("Callable[[Any, Context], Awaitable[Any]]", handler.unary_unary)

        async def unary(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message
            await check(context)
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(unary, *coders)
    if handler.unary_stream is not None:
        pages = cast("Callable[[Any, Context], Any]", handler.unary_stream)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401 - any message
            await check(context)
            async with aclosing(pages(request, context)) as found:
                async for page in found:
                    yield page

        return grpc.unary_stream_rpc_method_handler(stream, *coders)
    if handler.stream_stream is not None:
        converse = cast("Callable[[Any, Context], Awaitable[None]]", handler.stream_stream)

        async def conversation(requests: Any, context: Context) -> None:  # noqa: ANN401 - any iterator
            await check(context)
            await converse(requests, context)

        return grpc.stream_stream_rpc_method_handler(conversation, *coders)
    return None
