"""The demo's outcome as one picture: what was asked, what was done, what came of it."""

from itertools import cycle
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flyball_cli.demo_report import DemoResult
from flyball_core.ids import EngineId
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, WEIGHT
from flyball_twin.scoring import Minute

mpl.use("Agg")  # a file, never a window

COLOURS = {"static": "#9a9a9a", "flyball": "#0b6e99"}
REGIME_COLOURS = {
    "idle": "#f2f2f2",
    "interactive": "#d8ecd8",
    "prefill_heavy": "#e8e1f4",
    "long_context": "#fbe3c8",
    "kv_thrash": "#f6c6c6",
    "unknown": "#e4e4e4",
}
ENGINE_COLOURS = ("#0b6e99", "#c2452d", "#3b8a3e", "#8a5aa8")


def draw(result: DemoResult, path: Path) -> None:
    """Write the picture as PNG. Raises `OSError` if the file cannot be written."""
    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.subplots(5, 1, sharex=True, height_ratios=[3, 2, 2, 2, 2])
    for ax in axes:
        _shade(ax, result)
        ax.margins(x=0)
        ax.spines[["top", "right"]].set_visible(False)
    _attainment(axes[0], result)
    _pressure(axes[1], result)
    _knob(axes[2], result, BATCH_CAP, "batch cap\n(requests)", log=True)
    _knob(axes[3], result, TOKEN_BUDGET, "token budget\n(tokens a step)", log=True)
    _knob(axes[4], result, WEIGHT, "routing weight\n(0 to 256)", log=False)
    _relaunches(axes[4], result)
    axes[3].legend(loc="upper right", fontsize=8, ncols=2, frameon=False)
    axes[4].set_xlabel("virtual time (s)")
    scores = {name: fleet.score for name, fleet in result.fleets.items()}
    figure.suptitle(
        "   ".join(
            f"{name}: {s.slo_goodput_rps:.2f} requests/s within objective ({s.attainment:.0%})"
            for name, s in scores.items()
        ),
        fontsize=12,
    )
    figure.savefig(path, dpi=110)


def _shade(ax: Axes, result: DemoResult) -> None:
    """Colour the ground by the regime that Flyball named, and mark the fault."""
    history = result.observed.history.get(result.governed, [])
    begin = 0
    for i in range(1, len(history) + 1):
        if i == len(history) or history[i].regime != history[begin].regime:
            colour = REGIME_COLOURS.get(history[begin].regime, "#ffffff")
            ax.axvspan(history[begin].time_s, history[min(i, len(history) - 1)].time_s, color=colour, linewidth=0)
            begin = i
    for fault in result.scenario.faults:
        if fault.at_s < result.scenario.end_s:
            ax.axvline(fault.at_s, color="#c2452d", linestyle=":", linewidth=1.2)


def _attainment(ax: Axes, result: DemoResult) -> None:
    for name, fleet in result.fleets.items():
        times = [minute.from_s + 30 for minute in fleet.timeline if sum(minute.arrivals.values())]
        shares = [_share(minute) for minute in fleet.timeline if sum(minute.arrivals.values())]
        ax.plot(times, shares, color=COLOURS.get(name, "#333333"), linewidth=2.5, label=name, drawstyle="steps-mid")
    ax.set_ylim(0, 1.03)
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set_ylabel("requests within\ntheir objective")
    ax.legend(loc="lower left", frameon=False)
    for phase in result.scenario.phases:
        ax.text(phase.from_s + 4, 1.045, phase.name, fontsize=8, color="#555555")
    for fault in result.scenario.faults:
        if fault.at_s < result.scenario.end_s:
            note = f"{fault.engine} loses {1 - fault.factor:.0%} of its HBM bandwidth"
            ax.annotate(note, (fault.at_s, 0.06), (fault.at_s + 8, 0.06), fontsize=8, color="#c2452d")
    regimes = {tick.regime for tick in result.observed.history.get(result.governed, [])}
    ground = [mpl.patches.Patch(color=colour, label=name) for name, colour in REGIME_COLOURS.items() if name in regimes]
    ax.add_artist(ax.legend(handles=ground, loc="lower right", fontsize=8, title="regime (ground)", title_fontsize=8))
    ax.legend(loc="lower left", frameon=False)


def _share(minute: Minute) -> float:
    return sum(minute.attained.values()) / sum(minute.arrivals.values())


def _pressure(ax: Axes, result: DemoResult) -> None:
    for name in result.fleets:
        ticks = result.observed.history.get(name, [])
        times = [tick.time_s for tick in ticks]
        colour = COLOURS.get(name, "#333333")
        kv = [tick.features.get("kv_used_max", float("nan")) for tick in ticks]
        hbm = [tick.features.get("hbm_ratio", float("nan")) for tick in ticks]
        ax.plot(times, kv, color=colour, linewidth=1.4, label=f"{name}: fullest KV cache")
        ax.plot(times, hbm, color=colour, linewidth=0.9, alpha=0.55, label=f"{name}: HBM bandwidth in use")
    ax.set_ylim(0, 1.05)
    ax.yaxis.set_major_formatter("{x:.0%}")
    ax.set_ylabel("pressure")
    ax.legend(loc="upper left", fontsize=7, ncols=2, frameon=False)


def _knob(ax: Axes, result: DemoResult, knob: str, label: str, *, log: bool) -> None:
    """What Flyball set, engine by engine."""
    end_s = result.scenario.end_s
    for engine, colour in zip(result.scenario.variants, cycle(ENGINE_COLOURS)):
        changes = [c for c in result.observed.changes if c.target == engine and c.knob == knob]
        if not changes:
            continue
        numbers = [changes[0].old, *(change.new for change in changes)]
        values = [float(number) if isinstance(number, (int, float)) else float("nan") for number in numbers]
        times = [0.0, *(change.decided_at_s for change in changes)]
        ax.step([*times, end_s], [*values, values[-1]], where="post", color=colour, linewidth=1.5, label=engine)
    if log:
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter("{x:.0f}")
    ax.set_ylabel(label)


def _relaunches(ax: Axes, result: DemoResult) -> None:
    """Mark from decision to acknowledgement each relaunch of an engine into another variant."""
    colours = dict(zip(result.scenario.variants, cycle(ENGINE_COLOURS)))
    for change in result.observed.changes:
        if change.knob == VARIANT:
            end_s = change.acked_at_s if change.acked_at_s is not None else result.scenario.end_s
            ax.axvspan(change.decided_at_s, end_s, color=colours[EngineId(change.target)], alpha=0.25, linewidth=0)
            note = f" {change.target}: {change.old} to {change.new}"
            ax.text(end_s, 22, note, fontsize=8, color=colours[EngineId(change.target)], va="bottom")
    ax.set_ylim(bottom=0)
