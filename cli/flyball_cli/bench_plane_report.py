"""The figures of `flyball bench plane` as the documented JSON, and in words.

A figure is the median over the runs; of each run all is kept beside it. A percentile is the nearest rank, so it is
always a time that was measured.
"""

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from flyball_cli.bench_agent import ENGINES, GPUS, AgentCost
from flyball_cli.bench_plane import PlaneCost, PlaneRuns
from flyball_cli.bench_sockets import PERIOD_S
from flyball_cli.wording import aligned
from flyball_controller.machine.filing import LATENESS_S

SCHEMA = "flyball.bench-plane/1"
AIMS = {"frame_to_ack_ms_p99": 250.0, "agent_cpu_share": 0.1, "agent_rss_mb": 90.0}

_Run = TypeVar("_Run")


def plane_document(found: PlaneRuns, measure_s: float, load_before: float) -> dict[str, Any]:
    """The documented JSON. `load_before` is the machine's load before anything was started."""
    largest = found.sizes[max(found.sizes)]
    return {
        "schema": SCHEMA,
        "frame_to_ack_ms": {
            str(engines): _medians([spread_ms(cost.frame_to_ack_s) for cost in costs], ("p50", "p99"))
            for engines, costs in found.sizes.items()
        },
        "waits_on_purpose_s": {"lateness": LATENESS_S, "next_tick_at_most": PERIOD_S},
        "controller_cpu_share": _median(largest, lambda cost: cost.ran.controller_cpu_share),
        "agent_cpu_share": _median(found.agent, lambda cost: cost.cpu_share),
        "agent_rss_mb": _median(found.agent, lambda cost: cost.peak_rss_bytes / 1e6),
        "aims": AIMS,
        "seconds": measure_s,
        "sizes": [
            {"engines": engines, "runs": [_plane_run(cost) for cost in costs]} for engines, costs in found.sizes.items()
        ],
        "agent": {"gpus": GPUS, "engines": ENGINES, "runs": [_agent_run(cost) for cost in found.agent]},
        "machine": {
            "python": platform.python_version(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "load_before": round(load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
        },
    }


def plane_lines(document: Mapping[str, Any]) -> list[str]:
    """The same in words, what is aimed at beside it."""
    aims, waits = document["aims"], document["waits_on_purpose_s"]
    cpu, rss = f"{document['agent_cpu_share']:.1%}", f"{document['agent_rss_mb']:.0f} MB"
    return [
        f"medians of {len(document['agent']['runs'])} runs of {document['seconds']:g} s, p50 / p99 in ms",
        *aligned(_rows(document["sizes"], aims["frame_to_ack_ms_p99"])),
        (
            f"one agent, {GPUS} GPUs and {ENGINES} engines: {cpu} of a core (aim: {aims['agent_cpu_share']:.0%}), "
            f"{rss} at most (aim: {aims['agent_rss_mb']:g} MB)"
        ),
        (
            f"waits on purpose, not counted: {waits['lateness']:g} s for late frames, and up to "
            f"{waits['next_tick_at_most']:g} s for the next tick"
        ),
    ]


def _rows(sizes: Sequence[Mapping[str, Any]], aim_ms: float) -> list[tuple[str, ...]]:
    """The table: a line of words, and for each size its number."""

    def spread(words: str, of: str) -> tuple[str, ...]:
        found = [_medians([run[of] for run in size["runs"]], ("p50", "p99")) for size in sizes]
        return (words, *(f"{_ms(one['p50'])} / {_ms(one['p99'])}" for one in found))

    def share(words: str, of: str) -> tuple[str, ...]:
        return (words, *(f"{median(run[of] for run in size['runs']):.1%}" for size in sizes))

    def total(words: str, of: str) -> tuple[str, ...]:
        return (words, *(f"{sum(run[of] for run in size['runs']):,}" for size in sizes))

    return [
        ("engines", *(str(size["engines"]) for size in sizes)),
        spread(f"frame to ack (aim: p99 {aim_ms:g})", "frame_to_ack_ms"),
        spread("  append of a frame", "append_ms"),
        spread("  from the tick to the ack", "tick_to_ack_ms"),
        share("engines changed at a tick", "engines_changed_share"),
        share("controller, of a core", "controller_cpu_share"),
        share("all agents and engines, of a core", "fleet_cpu_share"),
        total("directives, all runs", "directives"),
        total("acks", "acks"),
        total("nacks", "nacks"),
        total("failed appends", "failed_appends"),
    ]


def spread_ms(values_s: Sequence[float]) -> dict[str, float | None]:
    """Median, 99th percentile and most, in milliseconds; None where nothing was measured."""
    ordered = sorted(values_s)

    def at(share: float) -> float | None:
        return round(1e3 * ordered[math.ceil(share * len(ordered)) - 1], 2) if ordered else None

    return {"p50": at(0.5), "p99": at(0.99), "max": at(1.0)}


def _plane_run(cost: PlaneCost) -> dict[str, Any]:
    answers, ran = cost.answers, cost.ran
    ticks = len(answers.ticks)
    return {
        "ticks": ticks,
        "directives": answers.directives,
        "acks": len(answers.tick_to_ack_s),
        "nacks": answers.nacks,
        "engines_changed_share": round(answers.directives / (ticks * cost.engines), 4) if ticks else 0.0,
        "appends": len(ran.appends),
        "failed_appends": ran.failed_appends,
        "frame_to_ack_ms": spread_ms(cost.frame_to_ack_s),
        "tick_to_ack_ms": spread_ms(list(answers.tick_to_ack_s.values())),
        "append_ms": spread_ms([append.took_s for append in ran.appends]),
        "controller_cpu_share": round(ran.controller_cpu_share, 4),
        "controller_peak_rss_mb": round(cost.controller_peak_rss_bytes / 1e6, 1),
        "fleet_cpu_share": round(ran.fleet_cpu_share, 4),
    }


def _agent_run(cost: AgentCost) -> dict[str, Any]:
    return {
        "cpu_share": round(cost.cpu_share, 4),
        "peak_rss_mb": round(cost.peak_rss_bytes / 1e6, 1),
        "rss_mb": round(cost.rss_bytes / 1e6, 1),
        "page_bytes": cost.page_bytes,
        "frames": cost.frames,
        "gpu_samples": cost.gpu_samples,
        "engine_samples": cost.engine_samples,
    }


def _median(runs: Sequence[_Run], of: Callable[[_Run], float]) -> float:
    return round(median(map(of, runs)), 4)


def _medians(runs: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> dict[str, float | None]:
    """By name, the median of the runs in which it was measured."""
    found: dict[str, float | None] = {}
    for name in names:
        values = [value for run in runs if (value := run[name]) is not None]
        found[name] = round(median(values), 2) if values else None
    return found


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
