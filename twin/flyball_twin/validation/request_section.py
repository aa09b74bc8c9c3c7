"""Request logs as a kind of measured table: fit on the first third, score the rest, service and queueing apart.

Service is what physics has to get right: the first token after being scheduled, and the time per token. Queueing is
what follows from it, from the cap and from the cache, and nothing is fitted to it. A relative error of a wait that
was next to nothing says nothing, so those are scored in seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from flyball_core.errors import Rejected
from flyball_twin.validation.request_deployment import Known, deployment_of
from flyball_twin.validation.request_fit import Fit, fit
from flyball_twin.validation.request_logs import (
    REQUEST_COLUMNS,
    TELEMETRY_COLUMNS,
    LoggedRequest,
    LogKey,
    RequestLog,
    TelemetryPoint,
    read_request_logs,
    read_telemetry,
)
from flyball_twin.validation.request_replay import Replay, Served, replay
from flyball_twin.validation.rows import columns_of, rows_of
from flyball_twin.validation.seam import Errors, Grid, Group, Section, errors_document, errors_of

NAME = "requests"
WITHOUT_TPOT = "requests_of_one_token"
"""They have no time per token; the rest of them is scored."""
UNKNOWN = "requests_of_unknown_gpu_or_model"
LEAST_WAIT_S = 1.0
"""Waits shorter than that are scored in seconds only."""
LEAST_REQUESTS = 30
"""A log needs so many for its first third to be fitted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How far the twin is off for some requests of a log."""

    prefill: Errors
    """From being scheduled to the first token."""
    tpot: Errors
    service: Errors
    """From being scheduled to the last token."""
    e2e: Errors
    """From being queued to the last token."""
    queue: Errors
    """Of those that waited for `LEAST_WAIT_S` or longer."""
    queue_p50_s: float
    queue_p90_s: float
    """Of the absolute error of all waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """How far the twin's gauges are off, on average over the seconds of the telemetry."""

    running: float
    waiting: float
    """As shares of the most that was measured."""
    kv: float | None
    """In shares of the cache; None if the telemetry has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogResult:
    """One log, validated."""

    log: RequestLog
    known: Known
    fit: Fit
    unfitted: Part
    """The rest, with constants that nobody fitted to this GPU."""
    first_third: Part
    rest: Part
    curves: Curves | None
    replay: Replay


class RequestTables:
    """The kind: vLLM request logs and the telemetry that goes with them."""

    name = NAME
    says = (
        "vLLM request logs (queued_ts, scheduled_ts, first_token_ts, last_token_ts) with telemetry (running, waiting)"
    )

    def recognises(self, columns: frozenset[str]) -> bool:
        """Whether it is a request log, or telemetry."""
        return columns >= frozenset(REQUEST_COLUMNS) or columns >= frozenset(TELEMETRY_COLUMNS)

    def section(self, files: Sequence[Path], pictures: Path | None) -> Section:
        """Validate every log in the files. Raises `Rejected` for telemetry without a log, besides."""
        left_out: dict[str, int] = {}
        results = [validated(log) for log in _logs(files, left_out) if not _unknown(log, left_out)]
        if pictures is not None:
            from flyball_twin.validation.pictures import draw_request_log

            for result in results:
                draw_request_log(result, pictures / picture_name(result.log))
        return Section(
            kind=NAME,
            groups=[group for result in results for group in _groups(result)],
            left_out=left_out,
            details={"logs": [_details(result) for result in results]},
            grids=[_grid(results)],
            notes=(
                "Fitted on the first third of each log: shares of bandwidth and compute, and host time per step.",
                f"Queueing is never fitted; its relative errors are of waits of {LEAST_WAIT_S:g} s and more.",
            ),
        )


REQUESTS = RequestTables()


def picture_name(log: RequestLog) -> str:
    """The file that a log is drawn into."""
    return f"twin-requests-{log.gpu}-{log.model}.png".lower()


def validated(log: RequestLog) -> LogResult:
    """Fit on the first third of a log, serve all of it, and compare.

    Raises `Rejected`, naming the log, if it is too short or has a request that its engine can never hold.
    """
    try:
        return _compared(log)
    except Rejected as problem:
        raise Rejected(f"the log of {log.gpu}, {log.model}: {problem}") from problem


def _compared(log: RequestLog) -> LogResult:
    if len(log.requests) < LEAST_REQUESTS:
        raise Rejected(f"it has {len(log.requests)} requests, not {LEAST_REQUESTS} or more")
    known = deployment_of(log)
    first = log.first_third
    found = fit(log.requests, known.deployment, first)
    fitted = replace(known.deployment, engine=found.constants.on(known.deployment.engine))
    made = replay(log.requests, fitted)
    plain = replay(log.requests, known.deployment)
    return LogResult(
        log=log,
        known=known,
        fit=found,
        unfitted=part_of(log.requests[first:], plain.served[first:]),
        first_third=part_of(log.requests[:first], made.served[:first]),
        rest=part_of(log.requests[first:], made.served[first:]),
        curves=curves_of(log.telemetry, made.curve),
        replay=made,
    )


def part_of(logged: Sequence[LoggedRequest], served: Sequence[Served]) -> Part:
    """The errors of what the twin made of some requests."""
    both = list(zip(logged, served, strict=True))
    waits = np.array([abs(made.queue_s - measured.queue_s) for measured, made in both], dtype=np.float64)
    p50, p90 = np.quantile(waits, (0.5, 0.9))
    return Part(
        prefill=errors_of([made.prefill_s / one.prefill_s - 1.0 for one, made in both if one.prefill_s > 0.0]),
        tpot=errors_of([made.tpot_s / one.tpot_s - 1.0 for one, made in both if one.tpot_s and made.tpot_s]),
        service=errors_of([made.service_s / one.service_s - 1.0 for one, made in both if one.service_s > 0.0]),
        e2e=errors_of([(made.queue_s + made.service_s) / (one.queue_s + one.service_s) - 1.0 for one, made in both]),
        queue=errors_of([made.queue_s / one.queue_s - 1.0 for one, made in both if one.queue_s >= LEAST_WAIT_S]),
        queue_p50_s=float(p50),
        queue_p90_s=float(p90),
    )


def curves_of(measured: Sequence[TelemetryPoint], made: Sequence[TelemetryPoint]) -> Curves | None:
    """How far the twin's gauges are off where there is telemetry; a twin that is done has gauges of 0."""
    if not measured:
        return None
    at = np.array([point.at_s for point in measured])
    times = np.array([point.at_s for point in made])

    def off(name: str) -> float:
        values = np.array([getattr(point, name) for point in made], dtype=np.float64)
        wanted = np.array([getattr(point, name) for point in measured], dtype=np.float64)
        return float(np.abs(np.interp(at, times, values, right=0.0) - wanted).mean())

    return Curves(
        running=off("running") / max(1, *(point.running for point in measured)),
        waiting=off("waiting") / max(1, *(point.waiting for point in measured)),
        kv=off("kv_share") if any(point.kv_share for point in measured) else None,
    )


def _logs(files: Sequence[Path], left_out: dict[str, int]) -> list[RequestLog]:
    logs: list[RequestLog] = []
    telemetry: dict[LogKey, tuple[TelemetryPoint, ...]] = {}
    for path in files:
        if columns_of(path) >= frozenset(REQUEST_COLUMNS):
            logs += read_request_logs(rows_of(path, REQUEST_COLUMNS))
        else:
            telemetry.update(read_telemetry(rows_of(path, TELEMETRY_COLUMNS)))
    if not logs:
        raise Rejected(f"{files[0]} is telemetry; it needs the request log of the same engine beside it")
    for log in logs:
        if single := sum(request.output_tokens == 1 for request in log.requests):
            left_out[WITHOUT_TPOT] = left_out.get(WITHOUT_TPOT, 0) + single
    return [replace(log, telemetry=telemetry.get((log.gpu, log.model), ())) for log in logs]


def _unknown(log: RequestLog, left_out: dict[str, int]) -> bool:
    """Whether the twin does not know the log's GPU or model; then its requests are left out and counted."""
    try:
        deployment_of(log)
    except Rejected:
        left_out[UNKNOWN] = left_out.get(UNKNOWN, 0) + len(log.requests)
        return True
    return False


def _groups(result: LogResult) -> list[Group]:
    log = result.log
    return [
        Group(
            table=NAME,
            model=log.model,
            gpu=log.gpu,
            backend="vllm",
            load=load,
            rows=rows,
            tpot=part.tpot,
            ttft=part.prefill,
            e2e=part.e2e,
            moe=result.known.deployment.engine.model.experts is not None,
        )
        for load, rows, part in (
            ("first third (fitted)", log.first_third, result.first_third),
            ("rest", len(log.requests) - log.first_third, result.rest),
        )
    ]


def _details(result: LogResult) -> Mapping[str, object]:
    log = result.log
    return {
        "gpu": log.gpu,
        "model": log.model,
        "requests": len(log.requests),
        "fitted_on": log.first_third,
        "deployment": list(result.known.sources),
        "constants": asdict(result.fit.constants),
        "replays": result.fit.replays,
        "preemptions": result.replay.preemptions,
        "first_third": _part(result.first_third),
        "rest": _part(result.rest),
        "rest_unfitted": _part(result.unfitted),
        "curves": None if result.curves is None else asdict(result.curves),
    }


def _part(part: Part) -> Mapping[str, object]:
    return {
        "prefill": errors_document(part.prefill),
        "tpot": errors_document(part.tpot),
        "service": errors_document(part.service),
        "queue": errors_document(part.queue),
        "queue_p50_s": part.queue_p50_s,
        "queue_p90_s": part.queue_p90_s,
    }


def _grid(results: Sequence[LogResult]) -> Grid:
    rows: list[list[str]] = []
    for result in results:
        name = f"{result.log.gpu}, {result.log.model}"
        for part, label in ((result.unfitted, "rest, unfitted"), (result.rest, "rest"), (result.first_third, "fitted")):
            rows.append(
                [
                    f"{name}: {label}",
                    _percent(part.prefill),
                    _percent(part.tpot),
                    _percent(part.queue),
                    f"{part.queue_p50_s:.2f} / {part.queue_p90_s:.2f} s",
                ]
            )
    heads = ("log", "first token", "per token", "waits", "all waits")
    return Grid(title="Request logs: absolute error, median / 90th percentile (bias)", heads=heads, rows=rows)


def _percent(errors: Errors) -> str:
    if errors.p50_ape is None or errors.p90_ape is None or errors.bias is None:
        return "-"
    return f"{errors.p50_ape:.1%} / {errors.p90_ape:.0%} ({errors.bias:+.1%})"
