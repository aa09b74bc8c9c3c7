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
    aims, sizes = document["aims"], document["sizes"]
    runs = len(sizes[0]["runs"])

    def row(words: str, form: Callable[[Mapping[str, Any]], str]) -> tuple[str, ...]:
        return (words, *(form(size) for size in sizes))

    def spread(of: str) -> Callable[[Mapping[str, Any]], str]:
        def form(size: Mapping[str, Any]) -> str:
            middle = _medians([run[of] for run in size["runs"]], ("p50", "p99"))
            return f"{_ms(middle['p50'])} / {_ms(middle['p99'])}"

        return form

    def middle(of: str, form: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda size: form.format(median(run[of] for run in size["runs"]))

    def total(of: str) -> Callable[[Mapping[str, Any]], str]:
        return lambda size: f"{sum(run[of] for run in size['runs']):,}"

    cpu, rss = f"{document['agent_cpu_share']:.1%}", f"{document['agent_rss_mb']:.0f} MB"
    waits = document["waits_on_purpose_s"]
    return [
        f"medians of {runs} runs of {document['seconds']:g} s, p50 / p99 in ms",
        *aligned(
            [
                row("engines", lambda size: str(size["engines"])),
                row(f"frame to ack (aim: p99 {aims['frame_to_ack_ms_p99']:g})", spread("frame_to_ack_ms")),
                row("  append of a frame", spread("append_ms")),
                row("  from the tick to the ack", spread("tick_to_ack_ms")),
                row("engines changed at a tick", middle("engines_changed_share", "{:.1%}")),
                row("controller, of a core", middle("controller_cpu_share", "{:.1%}")),
                row("all agents and engines, of a core", middle("fleet_cpu_share", "{:.1%}")),
                row("directives, all runs", total("directives")),
                row("acks", total("acks")),
                row("nacks", total("nacks")),
                row("failed appends", total("failed_appends")),
            ]
        ),
        (
            f"one agent, {GPUS} GPUs and {ENGINES} engines: {cpu} of a core (aim: {aims['agent_cpu_share']:.0%}), "
            f"{rss} at most (aim: {aims['agent_rss_mb']:g} MB)"
        ),
        (
            f"waits on purpose, not counted: {waits['lateness']:g} s for late frames, and up to "
            f"{waits['next_tick_at_most']:g} s for the next tick"
        ),
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
