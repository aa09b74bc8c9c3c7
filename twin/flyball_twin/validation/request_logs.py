"""Real request logs of an engine, and its telemetry, as whoever ran it wrote them down.

A request log has one row per request with the engine's own stamps: queued, scheduled, first token, last token.
Telemetry has one row per second. Both name the GPU and the model, so a file may hold several logs. What is read
here is what was measured; nothing is repaired. A row that makes no sense is an error with its number, because a
log in which one row is wrong is rarely right in the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import attrgetter

from flyball_core.errors import Rejected
from flyball_twin.validation.rows import Row

STAMPS = ("queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
REQUEST_COLUMNS = ("input_toks", "output_toks", *STAMPS, "gpu", "model")
TELEMETRY_COLUMNS = ("t", "running", "waiting", "kv_cache_pct", "gpu", "model")

LogKey = tuple[str, str]
"""GPU and model, which tell the logs of a file apart."""

LONGEST_LOG_S = 86_400.0
"""From the first request to the last: a replay samples its gauges every second, and a fit makes many replays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """One request as the engine stamped it, in seconds since the first of its log was queued."""

    queued_s: float
    """When the engine's loop took it in, between two steps: not when the client sent it."""
    scheduled_s: float
    first_token_s: float
    last_token_s: float
    prompt_tokens: int
    output_tokens: int

    @property
    def queue_s(self) -> float:
        """From being queued to being scheduled."""
        return self.scheduled_s - self.queued_s

    @property
    def prefill_s(self) -> float:
        """From being scheduled to the first token."""
        return self.first_token_s - self.scheduled_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; None if there is only one."""
        later = self.output_tokens - 1
        return (self.last_token_s - self.first_token_s) / later if later else None

    @property
    def service_s(self) -> float:
        """From being scheduled to the last token."""
        return self.last_token_s - self.scheduled_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryPoint:
    """The engine's gauges at one time of its log."""

    at_s: float
    running: int
    waiting: int
    kv_share: float
    """Of the KV cache in use, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLog:
    """One engine's log: requests in the order of their arrival, and telemetry where there is any."""

    gpu: str
    model: str
    requests: tuple[LoggedRequest, ...]
    telemetry: tuple[TelemetryPoint, ...] = ()

    @property
    def first_third(self) -> int:
        """How many of the requests, from the first on, a fit may look at."""
        return len(self.requests) // 3


def read_request_logs(rows: Iterable[Row]) -> list[RequestLog]:
    """The logs of a request table, one for each GPU and model.

    Raises `InvalidDocument` for a wrong row, `Rejected` for a log that goes on for longer than `LONGEST_LOG_S`.
    """
    found: dict[LogKey, list[LoggedRequest]] = {}
    for row in rows:
        found.setdefault((row.name("gpu"), row.name("model")), []).append(_request(row))
    return [
        RequestLog(gpu=gpu, model=model, requests=_from_zero(gpu, model, requests))
        for (gpu, model), requests in sorted(found.items())
    ]


def read_telemetry(rows: Iterable[Row]) -> dict[LogKey, tuple[TelemetryPoint, ...]]:
    """The telemetry of each GPU and model, in the order of time. Raises `InvalidDocument` for a row that is none."""
    found: dict[LogKey, list[TelemetryPoint]] = {}
    for row in rows:
        point = TelemetryPoint(
            at_s=row.real("t", least=0.0),
            running=row.count("running"),
            waiting=row.count("waiting"),
            kv_share=row.real("kv_cache_pct", least=0.0) / 100.0,
        )
        if point.kv_share > 1.0:
            raise row.problem(f"a KV cache is at most full, not {row.cells['kv_cache_pct']!r} %")
        found.setdefault((row.name("gpu"), row.name("model")), []).append(point)
    return {key: tuple(sorted(points, key=attrgetter("at_s"))) for key, points in found.items()}


def _request(row: Row) -> LoggedRequest:
    stamps = [row.real(name) for name in STAMPS]
    if stamps != sorted(stamps):
        raise row.problem("a request is queued, scheduled, answered and finished in this order", ", ".join(STAMPS))
    queued_s, scheduled_s, first_token_s, last_token_s = stamps
    return LoggedRequest(
        queued_s=queued_s,
        scheduled_s=scheduled_s,
        first_token_s=first_token_s,
        last_token_s=last_token_s,
        prompt_tokens=row.count("input_toks", least=1),
        output_tokens=row.count("output_toks", least=1),
    )


def _from_zero(gpu: str, model: str, requests: list[LoggedRequest]) -> tuple[LoggedRequest, ...]:
    requests.sort(key=attrgetter("queued_s", "scheduled_s"))
    start_s = requests[0].queued_s
    if (length_s := requests[-1].queued_s - start_s) > LONGEST_LOG_S:
        raise Rejected(f"the log of {gpu}, {model} goes on for {length_s:g} s, longer than {LONGEST_LOG_S:g} s")
    return tuple(
        replace(
            request,
            queued_s=request.queued_s - start_s,
            scheduled_s=request.scheduled_s - start_s,
            first_token_s=request.first_token_s - start_s,
            last_token_s=request.last_token_s - start_s,
        )
        for request in requests
    )
