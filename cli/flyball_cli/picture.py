"""A played scenario as one picture: what was asked, what went wrong, what was done, what came of it.

A column for each pool, time to the right. The colours are Okabe and Ito's, which people who do not tell red from green
can tell apart; fleets differ in their lines as well.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from textwrap import fill
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flyball_cli.twin_playing import Played, variant_words
from flyball_cli.wording import counted
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.fleet.scoring import Minute
from flyball_twin.governed.life import GOVERNED, UNGOVERNED
from flyball_twin.governed.observing import Change, RegimeShift
from flyball_twin.scenario.model import PoolPlan

mpl.use("Agg")  # a file, never a window
mpl.rcParams["text.parse_math"] = False  # a dollar in a title is a dollar

LOOKS: Mapping[str, tuple[str, Literal["dashed", "solid"]]] = {
    UNGOVERNED: ("#6e6e6e", "dashed"),
    GOVERNED: ("#0072b2", "solid"),
}
"""Colour and line of each fleet."""
REGIME_COLOURS = {
    "idle": "#f3f3f3",
    "interactive": "#dcefe8",
    "prefill_heavy": "#e9e4f2",
    "long_context": "#fbe9cc",
    "agentic": "#dbeaf7",
    "bulk": "#f1e6d9",
    "kv_thrash": "#f7d3c8",
    "degraded": "#f5dbe9",
    "unknown": "#e6e6e6",
}
ENGINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6f00", "#000000")
FAULT_COLOUR = "#b33c00"
POINTS = 60
"""About so many points a line of attainment has: fewer are smoother."""
MOST_COLUMNS = 8
"""So many pools are drawn, the first ones: of more nobody could make anything out."""
SEEN = 0.005
"""A regime that is named for less of the run cannot be seen, and has no place in the legend."""


@dataclass(frozen=True, slots=True)
class Times:
    """The unit of the time axis."""

    unit: str
    length_s: float

    @classmethod
    def of(cls, end_s: float) -> "Times":
        """One in which the axis has few digits."""
        if end_s <= 2 * 3600.0:
            return cls("s", 1.0)
        return cls("h", 3600.0) if end_s <= 3 * 86_400.0 else cls("days", 86_400.0)

    def __call__(self, at_s: float) -> float:
        """Seconds in that unit."""
        return at_s / self.length_s


def draw(played: Played, path: Path) -> None:
    """Write the picture as PNG. Raises `OSError` if the file cannot be written."""
    pools = played.scenario.pools[:MOST_COLUMNS]
    governed = GOVERNED in played.cards
    heights = [0.3 + 0.3 * len(played.scenario.faults), 2.6, 1.2, 2, 1.6, *((1.5, 1.5, 1.5) if governed else ())]
    width = 11.0 if len(pools) == 1 else 7.5 * len(pools)
    figure = Figure(figsize=(width, 1.5 + 1.25 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(heights), len(pools), sharex=True, height_ratios=heights, squeeze=False)
    times = Times.of(played.scenario.end_s)
    for column, pool in enumerate(pools):
        PoolPicture(played, pool, times).draw([grid[row][column] for row in range(len(heights))])
    figure.suptitle(_title(played), fontsize=12, x=0.01, ha="left")
    notes = "; ".join(f"{kind}: {', '.join(said)}" for kind, said in played.assumed.items())
    if notes:
        figure.supxlabel(fill(f"Assumed, not measured: {notes}", int(17 * width)), fontsize=7, x=0.01, ha="left")
    with warnings.catch_warnings():
        # A title may be in a script that the font lacks: boxes stand for it then, and the rest is as good as ever.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=110)


def _title(played: Played) -> str:
    scores = {name: card.tally.score() for name, card in played.cards.items()}
    said = "   ".join(
        f"{name}: {s.slo_goodput_rps:.2f} requests/s within objective ({s.attainment:.1%})"
        for name, s in scores.items()
    )
    pools = len(played.scenario.pools)
    drawn = f", the first {MOST_COLUMNS} of {pools} pools" if pools > MOST_COLUMNS else ""
    return f"{played.scenario.title} (seed {played.seed}{drawn})\n{said}"


class PoolPicture:
    """One column: one pool of every fleet."""

    def __init__(self, played: Played, pool: PoolPlan, times: Times) -> None:
        self._played = played
        self._plan = pool
        self._times = times
        self._end_s = played.scenario.end_s
        engines = {engine.engine for engine in pool.engines} | {engine.node for engine in pool.engines}
        self._faults = [
            fault for fault in played.scenario.faults if fault.target in engines and fault.from_s < self._end_s
        ]
        self._lanes = [rule.lane for rule in pool.lanes]
        self._moments = {name: card.trail.moments(pool.pool) for name, card in played.cards.items()}
        self._colours = dict(zip((engine.engine for engine in pool.engines), cycle(ENGINE_COLOURS), strict=False))

    def draw(self, axes: Sequence[Axes]) -> None:
        """Into these axes, from the top."""
        for ax in axes:
            ax.margins(x=0)
            ax.spines[["top", "right"]].set_visible(False)
        for ax in axes[1:]:
            self._shade(ax)
        self._events(axes[0])
        self._attainment(axes[1])
        self._arrivals(axes[2])
        self._load(axes[3])
        self._kv(axes[4])
        if len(axes) > 5:
            self._knob(axes[5], BATCH_CAP, "batch cap\n(requests)")
            self._knob(axes[6], TOKEN_BUDGET, "token budget\n(a step)")
            self._weights(axes[7])
        axes[-1].set_xlim(0, self._times(self._end_s))
        axes[-1].set_xlabel(f"virtual time ({self._times.unit})")

    def _shade(self, ax: Axes) -> None:
        """Colour the ground by the regime that was named, and mark where faults begin and end."""
        for regime, from_s, to_s in self._regimes():
            colour = REGIME_COLOURS.get(regime, "#ffffff")
            ax.axvspan(self._times(from_s), self._times(to_s), color=colour, linewidth=0, zorder=0)
        for fault in self._faults:
            for at_s in (fault.from_s, fault.to_s):
                if 0.0 < at_s < self._end_s:
                    ax.axvline(self._times(at_s), color=FAULT_COLOUR, linestyle=":", linewidth=1.1)

    def _regimes(self) -> list[tuple[str, float, float]]:
        """Regime, begin and end, of the governed pool."""
        shifts: list[RegimeShift] = [s for s in self._played.observed.shifts if s.pool == self._plan.pool]
        if not shifts:
            return []
        names = [shifts[0].before, *(shift.after for shift in shifts)]
        edges = [0.0, *(shift.at_s for shift in shifts), self._end_s]
        return list(zip(names, edges, edges[1:], strict=False))

    def _events(self, ax: Axes) -> None:
        """The phases, and below them what goes wrong."""
        ax.axis("off")
        ax.set_title(f"pool {self._plan.pool}: {counted(len(self._plan.engines), 'engine')}", fontsize=10, loc="left")
        rows = 1 + len(self._faults)
        ax.set_ylim(0.3 - rows, 0.8)
        for phase in self._played.scenario.phases:
            ax.axvline(self._times(phase.from_s), 1 - 1.0 / rows, 1, color="#888888", linewidth=0.8)
            ax.text(self._times(phase.from_s), 0.1, f" {phase.name}", fontsize=8, color="#333333", clip_on=True)
        for row, fault in enumerate(self._faults, start=1):
            begin, end = self._times(fault.from_s), self._times(min(fault.to_s, self._end_s))
            ax.barh(-row + 0.7, end - begin, left=begin, height=0.55, color=FAULT_COLOUR, alpha=0.25, linewidth=0)
            late = begin > 0.7 * self._times(self._end_s)
            place, side = (begin, "right") if late else (begin, "left")
            ax.text(place, -row + 0.7, f" {_fault_words(fault)} ", fontsize=8, color=FAULT_COLOUR, va="center", ha=side)

    def _attainment(self, ax: Axes) -> None:
        for name, card in self._played.cards.items():
            points = _grouped(card.tally.timeline(self._plan.pool))
            colour, line = LOOKS[name]
            ax.plot(
                [self._times(at_s) for at_s, _, _ in points],
                [met / asked for _, asked, met in points],
                color=colour,
                linestyle=line,
                linewidth=2.2 if name == GOVERNED else 1.8,
                label=f"{name} ({card.tally.score(pool=self._plan.pool).attainment:.1%})",
            )
        ax.set_ylim(0, 1.04)
        ax.yaxis.set_major_formatter("{x:.0%}")
        ax.set_ylabel("arrivals that\nmet their objective")
        names = dict.fromkeys(name for name, from_s, to_s in self._regimes() if to_s - from_s > SEEN * self._end_s)
        ground = [mpl.patches.Patch(color=REGIME_COLOURS.get(name, "#ffffff"), label=name) for name in names]
        handles, _ = ax.get_legend_handles_labels()
        # Above the axes: what is drawn may be anywhere within.
        ax.legend(
            handles=[*handles, *ground],
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.2,
            fontsize=8,
            ncols=6,
            frameon=False,
        )

    def _arrivals(self, ax: Axes) -> None:
        card = next(iter(self._played.cards.values()))
        rows = card.tally.timeline(self._plan.pool)
        # Of a pool that was asked for nothing, the lanes stand there all the same.
        lanes = dict.fromkeys(lane for row in rows for lane in row.arrivals) or dict.fromkeys(self._lanes)
        at = [self._times(row.from_s) for row in rows]
        rates = [[row.arrivals.get(lane, 0) / row.length_s for row in rows] for lane in lanes]
        ax.stackplot(at, *rates, labels=list(lanes), colors=["#999999", "#cccccc", "#777777", "#e2e2e2"], step="post")
        ax.set_ylim(0, 1.25 * max(1.0, ax.get_ylim()[1]))
        ax.set_ylabel("arrivals\na second")
        ax.legend(loc="upper left", fontsize=7, ncols=4, framealpha=0.85, edgecolor="none")

    def _load(self, ax: Axes) -> None:
        """Requests that run, and those that wait, at the gateway or in engines."""
        for name, moments in self._moments.items():
            colour, line = LOOKS[name]
            at = [self._times(moment.from_s) for moment in moments]
            ax.plot(at, [m.running for m in moments], color=colour, linestyle=line, linewidth=1.5)
            waiting = [m.waiting + m.queued for m in moments]
            ax.fill_between(at, waiting, color=colour, alpha=0.35, linewidth=0)
        ax.set_ylim(0, 1.3 * max(1.0, ax.get_ylim()[1]))  # the legend stands above the lines
        ax.set_ylabel("requests")
        handles = [
            Line2D([], [], color=LOOKS[name][0], linestyle=LOOKS[name][1], label=f"{name}: running")
            for name in self._moments
        ]
        filled = [
            mpl.patches.Patch(color=LOOKS[name][0], alpha=0.35, label=f"{name}: waiting") for name in self._moments
        ]
        ax.legend(handles=[*handles, *filled], loc="upper left", fontsize=7, ncols=2, framealpha=0.85, edgecolor="none")

    def _kv(self, ax: Axes) -> None:
        for name, moments in self._moments.items():
            colour, line = LOOKS[name]
            at = [self._times(moment.from_s) for moment in moments]
            ax.plot(at, [m.kv_max for m in moments], color=colour, linestyle=line, linewidth=1.5)
        ax.set_ylim(0, 1.04)
        ax.yaxis.set_major_formatter("{x:.0%}")
        ax.set_ylabel("fullest\nKV cache")

    def _knob(self, ax: Axes, knob: str, label: str) -> None:
        """What an engine's knob was at, engine by engine, in the governed fleet."""
        for engine, colour in self._colours.items():
            at, values = [], []
            for moment in self._moments[GOVERNED]:
                value = moment.knobs[engine].settings.get(knob)
                if isinstance(value, int):
                    at.append(self._times(moment.from_s))
                    values.append(value)
            ax.step(at, values, where="post", color=colour, linewidth=1.3, label=engine)
        ax.set_yscale("log", base=2)
        ax.yaxis.set_major_formatter("{x:.0f}")
        ax.set_ylabel(label)

    def _weights(self, ax: Axes) -> None:
        """Routing weights, and each relaunch into another variant from decision to acknowledgement."""
        for engine, colour in self._colours.items():
            at = [self._times(moment.from_s) for moment in self._moments[GOVERNED]]
            weights = [moment.knobs[engine].weight for moment in self._moments[GOVERNED]]
            ax.step(at, weights, where="post", color=colour, linewidth=1.3, label=engine)
        ax.set_ylim(0, 275)
        ax.set_ylabel("routing weight\n(0 to 256)")
        for change in self._played.observed.changes:
            if change.knob == VARIANT and change.pool == self._plan.pool:
                self._relaunch(ax, change)
        if len(self._colours) <= len(ENGINE_COLOURS):
            ax.legend(loc="upper left", fontsize=7, ncols=4, framealpha=0.85, edgecolor="none")

    def _relaunch(self, ax: Axes, change: Change) -> None:
        colour = next(colour for engine, colour in self._colours.items() if engine == change.target)
        end_s = self._end_s if change.acked_at_s is None else change.acked_at_s
        ax.axvspan(self._times(change.decided_at_s), self._times(end_s), color=colour, alpha=0.25, linewidth=0)
        late = end_s > 0.7 * self._end_s
        at, side = (change.decided_at_s, "right") if late else (end_s, "left")
        note = f" {change.target}: {change.old} to {variant_words(str(change.new))} "
        ax.text(self._times(at), 8, note, fontsize=8, color=colour, va="bottom", ha=side)


def _grouped(rows: Sequence[Minute]) -> list[tuple[float, int, int]]:
    """Middle, arrivals and attained of about `POINTS` stretches in which something arrived."""
    size = max(1, round(len(rows) / POINTS))
    points: list[tuple[float, int, int]] = []
    for at in range(0, len(rows), size):
        group = rows[at : at + size]
        asked = sum(sum(row.arrivals.values()) for row in group)
        met = sum(sum(row.attained.values()) for row in group)
        if asked:
            points.append(((group[0].from_s + group[-1].from_s + group[-1].length_s) / 2, asked, met))
    return points


def _fault_words(fault: Fault) -> str:
    """A fault in a few words."""
    target = fault.target
    words = {
        FaultKind.BANDWIDTH: f"{target} has {fault.factor:.0%} of its HBM bandwidth",
        FaultKind.THROTTLE: f"{target} runs at {fault.factor:.0%} of its clock",
        FaultKind.DEAD: f"{target} is dead",
        FaultKind.STALLED: f"{target} stalls",
        FaultKind.TELEMETRY_LOSS: f"{target}: no telemetry",
        FaultKind.CLOCK_SKEW: f"{target}: clock off by {fault.skew_s:g} s",
    }
    return words[fault.kind]
