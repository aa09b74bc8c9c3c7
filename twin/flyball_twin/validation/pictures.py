"""Pictures of the twin's curves over the measured ones. It refuses to compute: what it draws was reported already.

Needs matplotlib, which comes with the command line (`flyball[cli]`), so it is imported only when something is drawn.
"""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flyball_twin.validation.fleet_logs import KNEE
from flyball_twin.validation.fleet_section import VariantResult
from flyball_twin.validation.long_context import COMPARED, REPORTED, CaseResult
from flyball_twin.validation.request_logs import TelemetryPoint
from flyball_twin.validation.request_section import LogResult

mpl.use("Agg")  # a file, never a window

MEASURED, TWIN = "#9a9a9a", "#0b6e99"
COLOURS = ("#0b6e99", "#3b8a3e", "#8a5aa8", "#c2452d", "#8c1c0b", "#b8860b", "#5b7f95", "#9a9a9a")
DOTS_PER_INCH = 90


def draw_request_log(result: LogResult, path: Path) -> None:
    """Requests running and waiting, and the cache's use, measured and by the twin. Raises `OSError`."""
    log = result.log
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    running, waiting, cache = figure.subplots(3, 1, sharex=True)
    made = result.replay.curve
    _both(running, log.telemetry, made, "running")
    _both(waiting, log.telemetry, made, "waiting")
    running.set_ylabel("requests running")
    waiting.set_ylabel("requests waiting")
    cache.set_ylabel("KV cache in use")
    cache.yaxis.set_major_formatter("{x:.0%}")
    cache.set_ylim(0.0, 1.04)
    if any(point.kv_share for point in log.telemetry):
        _both(cache, log.telemetry, made, "kv_share")
    else:
        _line(cache, made, "kv_share", TWIN, "twin")
        cache.text(0.99, 0.9, "not measured", transform=cache.transAxes, ha="right", fontsize=9, color=MEASURED)
    cache.set_xlabel("seconds since the first request")
    for ax in (running, waiting, cache):
        ax.axvline(log.requests[max(0, log.first_third - 1)].queued_s, color="#c2452d", linestyle=":", linewidth=1.2)
    running.annotate(
        "last request of the fitted third",
        (log.requests[max(0, log.first_third - 1)].queued_s, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=8,
        color="#c2452d",
    )
    running.legend(loc="upper right", frameon=False)
    figure.suptitle(f"{log.model} on {log.gpu}: {len(log.requests)} requests, vLLM and its twin", fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def draw_knees(results: Sequence[VariantResult], path: Path) -> None:
    """Median time to first token by offered rate, one panel for each way of routing. Raises `OSError`."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, max(1, len(results)), sharey=True, squeeze=False)[0]
    for ax, result in zip(panels, results, strict=False):
        rates = sorted(result.measured_s)
        predicted = result.predicted.ttft_s
        ax.plot(rates, [result.measured_s[rate] for rate in rates], color=MEASURED, linewidth=3, label="measured")
        ax.plot(rates, [predicted[rate] for rate in rates], color=TWIN, linewidth=1.4, marker=".", label="twin")
        ax.axhline(KNEE * result.measured_s[rates[0]], color="#c2452d", linestyle=":", linewidth=1.2)
        ax.set_yscale("log")
        ax.set_title(f"{result.log.variant}: {result.route.balance}", fontsize=10)
        ax.set_xlabel("offered rate (requests/s)")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("median time to first token (s)")
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].legend(loc="lower left", frameon=False)
    figure.suptitle("Eight engines, 21,000-token prompts; dotted: 1.5 times unloaded", fontsize=11)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def draw_collapse(results: Sequence[CaseResult], path: Path) -> None:
    """Latency by concurrency over that of one alone, and the parts of it at `COMPARED`. Raises `OSError`."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    curves, bars = figure.subplots(1, 2, width_ratios=[1, 1.15])
    curves.axhspan(*REPORTED, color="#fbe3c8", label="reported")
    for result, colour in zip(results, cycle(COLOURS), strict=False):
        times = [free.concurrency for free in result.free]
        alone_s = result.parts.alone_s
        curves.plot(times, [free.e2e_s / alone_s for free in result.free], color=colour, marker=".", linewidth=1.6)
    held = [latency.e2e_s / results[0].parts.alone_s for latency in results[0].held]
    curves.plot(range(1, len(held) + 1), held, color="#333333", linestyle=":", linewidth=1.6, label="cap held at 1")
    curves.set_yscale("log")
    curves.yaxis.set_major_formatter("{x:g}x")
    curves.set_xticks(times)
    curves.set_xlabel("requests at once")
    curves.set_ylabel("latency over that of one alone")
    curves.legend(loc="upper left", frameon=False, fontsize=8)
    names = [result.case.name for result in results]
    before = [0.0] * len(results)
    for part, shade in (("alone_s", 1.0), ("bandwidth_s", 0.7), ("prefill_s", 0.45), ("memory_s", 0.2)):
        shares = [getattr(result.parts, part) / result.parts.e2e_s for result in results]
        label = part.removesuffix("_s")
        bars.barh(names, shares, left=before, color=TWIN, alpha=shade, edgecolor="white", label=label)
        before = [left + share for left, share in zip(before, shares, strict=True)]
    for at, (result, colour) in enumerate(zip(results, cycle(COLOURS), strict=False)):
        bars.text(1.01, at, f"{result.parts.inflation:.1f}x", va="center", fontsize=9, color=colour)
        bars.get_yticklabels()[at].set_color(colour)
    bars.invert_yaxis()
    bars.xaxis.set_major_formatter("{x:.0%}")
    bars.set_xlabel(f"of the latency of {COMPARED} at once")
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=4, frameon=False, fontsize=8)
    for ax in (curves, bars):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _both(ax: Axes, measured: Sequence[TelemetryPoint], made: Sequence[TelemetryPoint], name: str) -> None:
    _line(ax, measured, name, MEASURED, "measured", width=3.0)
    _line(ax, made, name, TWIN, "twin", width=1.4)


def _line(
    ax: Axes, points: Sequence[TelemetryPoint], name: str, colour: str, label: str, *, width: float = 1.4
) -> None:
    times, values = [point.at_s for point in points], [getattr(point, name) for point in points]
    ax.plot(times, values, color=colour, linewidth=width, label=label)
    ax.set_ylim(bottom=0.0)
    ax.margins(x=0)
    ax.spines[["top", "right"]].set_visible(False)
