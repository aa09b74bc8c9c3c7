"""Fleet logs as a kind of measured table: whether the twin's fleet saturates where the real one did.

The knee is the lowest offered rate whose median time to first token is above 1.5 times the unloaded one. It is
predicted for the ways of routing that a front of HAProxy has; the others are named, with the reason, and left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball_twin.validation.fleet_logs import COLUMNS, OPTIONAL, FleetLog, knee_rps, read_fleet_logs, steps_apart
from flyball_twin.validation.fleet_replay import BEYOND, MODEL, NOT_EXPLAINED, ROUTES, Predicted, Route, predict
from flyball_twin.validation.rows import rows_of
from flyball_twin.validation.seam import Grid, Group, Section, errors_of

NAME = "fleet"
SEEDS = (0, 1, 2)
PICTURE = "twin-fleet-knees.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """One variant that the twin could predict."""

    log: FleetLog
    route: Route
    measured_s: Mapping[float, float]
    """Median time to first token by offered rate."""
    measured_knee_rps: float | None
    predicted: Predicted
    steps_apart: int
    """Measured rate steps between the two knees."""
    completed: Mapping[float, float]
    """Share of the requests that are in the log, by offered rate, of those in the variant that has the most."""


class FleetTables:
    """The kind: logs of a fleet under several offered rates and ways of routing."""

    name = NAME
    says = "fleet logs (variant, target_qps, user_id, launch_time, ttft)"

    def recognises(self, columns: frozenset[str]) -> bool:
        """Whether it is a fleet log."""
        return columns >= frozenset(COLUMNS)

    def section(self, files: Sequence[Path], pictures: Path | None) -> Section:
        """Predict the knee of each variant that HAProxy could route like."""
        logs = read_fleet_logs(row for path in files for row in rows_of(path, COLUMNS, OPTIONAL))
        left_out: dict[str, int] = {}
        for log in logs:
            if log.variant not in ROUTES:
                reason = BEYOND.get(log.variant, NOT_EXPLAINED).reason
                left_out[reason] = left_out.get(reason, 0) + len(log.requests)
        results = [validated(log, logs) for log in logs if log.variant in ROUTES]
        if pictures is not None:
            from flyball_twin.validation.pictures import draw_knees

            draw_knees(results, pictures / PICTURE)
        return Section(
            kind=NAME,
            groups=[_group(result) for result in results],
            left_out=left_out,
            details={
                "knee": "lowest rate whose median is above 1.5 times that of the lowest",
                **_details(results, logs),
            },
            grids=[_grid(results)],
            notes=("Nothing is fitted to fleet logs on GPUs with kernel tables. Only completed requests are in them.",),
        )


FLEETS = FleetTables()


def validated(log: FleetLog, logs: Sequence[FleetLog]) -> VariantResult:
    """Predict one variant; `logs` are all of its file, which tell how many requests there should be."""
    route = ROUTES[log.variant]
    measured_s = log.median_ttfts()
    knee = knee_rps(measured_s)
    predicted = predict(log, route, SEEDS)
    return VariantResult(
        log=log,
        route=route,
        measured_s=measured_s,
        measured_knee_rps=knee,
        predicted=predicted,
        steps_apart=steps_apart(log.rates_rps, knee, predicted.knee_rps),
        completed=completed_of(log, logs),
    )


def completed_of(log: FleetLog, logs: Sequence[FleetLog]) -> dict[float, float]:
    """Share of requests that a variant completed, by offered rate, taking the most that any completed for all."""
    most: dict[float, int] = {}
    for other in (one for one in logs if one.release == log.release):
        for rate, count in other.counts().items():
            most[rate] = max(most.get(rate, 0), count)
    return {rate: count / most[rate] for rate, count in log.counts().items()}


def _group(result: VariantResult) -> Group:
    predicted = result.predicted.ttft_s
    return Group(
        table=NAME,
        model=MODEL.name,
        gpu=result.predicted.gpu,
        backend="vllm",
        load=f"{result.log.name}, medians by offered rate",
        rows=len(result.log.requests),
        tpot=errors_of([]),
        ttft=errors_of([predicted[rate] / measured - 1.0 for rate, measured in result.measured_s.items()]),
    )


def _details(results: Sequence[VariantResult], logs: Sequence[FleetLog]) -> dict[str, object]:
    return {
        "variants": [
            {
                "variant": result.log.variant,
                "release": result.log.release,
                "gpu": result.predicted.gpu,
                "compute": result.predicted.compute,
                "balance": result.route.balance,
                "haproxy": result.route.haproxy,
                "because": result.route.because,
                "knee_measured_rps": result.measured_knee_rps,
                "knee_predicted_rps": result.predicted.knee_rps,
                "knees_by_seed_rps": list(result.predicted.knees_rps),
                "steps_apart": result.steps_apart,
                "within_one": result.steps_apart <= 1,
                "rates": [
                    {
                        "rate_rps": rate,
                        "measured_s": measured,
                        "predicted_s": result.predicted.ttft_s[rate],
                        "completed": result.completed[rate],
                    }
                    for rate, measured in result.measured_s.items()
                ],
            }
            for result in results
        ],
        "not_predicted": [
            {
                "variant": log.variant,
                "release": log.release,
                "because": BEYOND.get(log.variant, NOT_EXPLAINED).because,
                "knee_measured_rps": knee_rps(log.median_ttfts()),
                "completed_least": min(completed_of(log, logs).values()),
            }
            for log in logs
            if log.variant not in ROUTES
        ],
    }


def _grid(results: Sequence[VariantResult]) -> Grid:
    rows = [
        [
            result.log.name,
            result.route.balance,
            _rate(result.measured_knee_rps),
            _rate(result.predicted.knee_rps),
            str(result.steps_apart),
        ]
        for result in results
    ]
    return Grid(
        title="Fleet logs: the offered rate at which the median time to first token leaves the ground",
        heads=("variant", "routing", "measured", "predicted", "steps apart"),
        rows=rows,
    )


def _rate(rate: float | None) -> str:
    return "none" if rate is None else f"{rate:g}/s"
