"""A controller that says what a test wants: every answer, refusal and silence that an operator's tool may meet."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from flyball_proto.v1.inputs_pb2 import OverrideClear, OverrideSet, PolicyText
from flyball_proto.v1.outputs_pb2 import AuditRecord
from flyball_proto.v1.services_pb2 import (
    WRITE_OUTCOME_TAKEN,
    DecisionEntry,
    DecisionsPage,
    DecisionsRequest,
    GetPolicyRequest,
    GetPolicyResponse,
    StatusRequest,
    StatusResponse,
    WriteResponse,
)
from flyball_proto.v1.services_pb2_grpc import (
    OperatorReadServiceServicer,
    OperatorWriteServiceServicer,
    add_OperatorReadServiceServicer_to_server,
    add_OperatorWriteServiceServicer_to_server,
)

PAGE = 100
"""Entries in a page."""

_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 1_000))

Context = grpc.ServicerContext
Order = Any
"""A message of any order."""


@dataclass(slots=True)
class Script:
    """What a scripted controller answers, and what it was told."""

    status: StatusResponse
    policy: str = ""
    policy_author: str = ""
    audit: list[AuditRecord] = field(default_factory=list)
    decide: Callable[[Order], WriteResponse] | None = None
    """Answers orders; by default all are taken."""
    refuse: dict[str, tuple[grpc.StatusCode, str]] = field(default_factory=dict)
    """Calls that are refused, by their name."""
    hang: set[str] = field(default_factory=set)
    """Calls that are never answered."""
    orders: list[Order] = field(default_factory=list)
    stretches: list[tuple[int, int]] = field(default_factory=list)
    """Begin and end of what was asked for from the end."""
    followed: list[DecisionsRequest] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)
    over: threading.Event = field(default_factory=threading.Event)
    opened: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each stream that follows, when it stands at its place."""
    cut: bool = False
    """Whether streams that follow are to break off now."""

    def add(self, *records: AuditRecord) -> None:
        """Put records into the audit; those who follow get them."""
        with self.news:
            self.audit.extend(records)
            self.news.notify_all()

    def break_streams(self) -> None:
        """Break off every stream that follows; new ones live."""
        with self.news:
            self.cut = True
            self.news.notify_all()


class _Reading(OperatorReadServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def Status(self, request: StatusRequest, context: Context) -> StatusResponse:  # noqa: N802 - the contract's name
        del request
        _obstruct(self._script, "Status", context)
        return self._script.status

    def GetPolicy(self, request: GetPolicyRequest, context: Context) -> GetPolicyResponse:  # noqa: N802 - as above
        _obstruct(self._script, "GetPolicy", context)
        return GetPolicyResponse(
            pool=request.pool, text=self._script.policy, author=self._script.policy_author, owned=True
        )

    def Decisions(self, request: DecisionsRequest, context: Context) -> Iterator[DecisionsPage]:  # noqa: N802 - as above
        script = self._script
        _obstruct(script, "Decisions", context)
        end = min(request.before_offset or len(script.audit), len(script.audit))
        at = len(script.audit) if request.from_end else request.from_offset
        if request.last:
            at = max(0, end - request.last)
            script.stretches.append((at, end))
        if request.follow:
            script.cut = False
            script.followed.append(request)
            script.opened.release()
            yield DecisionsPage(next_offset=at)
        while True:
            offsets = range(at, min(at + PAGE, len(script.audit) if request.follow else end))
            told = [
                offset for offset in offsets if not (request.without_ticks and script.audit[offset].HasField("tick"))
            ]
            at += len(offsets)
            if offsets:
                entries = [DecisionEntry(offset=offset, record=script.audit[offset]) for offset in told]
                yield DecisionsPage(entries=entries, next_offset=at, from_offset=offsets.start)
                continue
            if not request.follow:
                return
            with script.news:
                while at >= len(script.audit) and not script.cut and not script.over.is_set():
                    script.news.wait()
            if script.over.is_set():
                return
            if script.cut:
                context.abort(grpc.StatusCode.UNAVAILABLE, "broken off")


class _Writing(OperatorWriteServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    def SetOverride(self, request: OverrideSet, context: Context) -> WriteResponse:  # noqa: N802 - as above
        return self._take("SetOverride", request, context)

    def ClearOverride(self, request: OverrideClear, context: Context) -> WriteResponse:  # noqa: N802 - as above
        return self._take("ClearOverride", request, context)

    def ApplyPolicy(self, request: PolicyText, context: Context) -> WriteResponse:  # noqa: N802 - as above
        return self._take("ApplyPolicy", request, context)

    def GiveOrder(self, request: Order, context: Context) -> WriteResponse:  # noqa: N802 - as above
        return self._take("GiveOrder", request, context)

    def GiveRebase(self, request: Order, context: Context) -> WriteResponse:  # noqa: N802 - as above
        return self._take("GiveRebase", request, context)

    def _take(self, call: str, request: Order, context: Context) -> WriteResponse:
        _obstruct(self._script, call, context)
        self._script.orders.append(request)
        if self._script.decide is not None:
            return self._script.decide(request)
        return WriteResponse(
            offset=700, outcome=WRITE_OUTCOME_TAKEN, summary=f"{request.author}: done", author=request.author
        )


def _obstruct(script: Script, call: str, context: Context) -> None:
    if call in script.refuse:
        context.abort(*script.refuse[call])
    if call in script.hang:
        script.over.wait()


@contextmanager
def scripted_controller(
    script: Script, credentials: grpc.ServerCredentials | None = None, *, at: str = "127.0.0.1:0"
) -> Iterator[str]:
    """Serve a script on an address of loopback until the end; gives HOST:PORT."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=_OPTIONS)
        add_OperatorReadServiceServicer_to_server(_Reading(script), server)
        add_OperatorWriteServiceServicer_to_server(_Writing(script), server)
        port = server.add_insecure_port(at) if credentials is None else server.add_secure_port(at, credentials)
        server.start()
        try:
            yield f"{at.rpartition(':')[0]}:{port}"
        finally:
            script.over.set()
            with script.news:
                script.news.notify_all()
            server.stop(None).wait()


def closed_port() -> str:
    """An address of loopback at which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
