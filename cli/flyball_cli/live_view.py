"""What `flyball demo --live` shows while it runs: what clients measure, what is in force, what was decided.

A screen where there is a terminal, plain lines where there is none, nothing for `--json`. It only shows.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flyball_cli.live_traffic import Figures
from flyball_core.inputs import TargetKind
from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET, VARIANT, Setting
from flyball_core.outputs import DecisionRecord, RecordKind

PLAIN_EVERY_S = 5.0
FRAMES_PER_S = 4.0
LAST_DECISIONS = 8
_SHOWN = (RecordKind.DECISION, RecordKind.ACK, RecordKind.ALARM)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEngine:
    """One engine, as its pool's owner tells of it."""

    name: str
    attached: bool
    effective: Setting
    wanted: Setting
    weight: int
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveScene:
    """What there is to see now."""

    now_s: float
    end_s: float
    phase: str
    mode: str
    regime: str
    confidence: float
    engines: tuple[LiveEngine, ...]
    clients: Mapping[str, Figures]
    """What was measured lately, by lane."""
    in_flight: int


class LiveView(Protocol):
    """What the show goes through."""

    def show(self, scene: LiveScene) -> None:
        """Now."""
        ...

    def record(self, record: DecisionRecord, at_s: float) -> None:
        """Something was put on record, at that time of the show."""
        ...

    def close(self) -> None:
        """The show is over."""
        ...


class SilentLive:
    """Shows nothing."""

    def show(self, scene: LiveScene) -> None:
        """Nothing."""

    def record(self, record: DecisionRecord, at_s: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LiveLines:
    """A line every few seconds, and one for each decision, answer and alarm."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def show(self, scene: LiveScene) -> None:
        """A line if one is due."""
        if scene.now_s < self._next_s:
            return
        self._next_s = scene.now_s + PLAIN_EVERY_S
        clients = "; ".join(f"{lane} {_client_words(found)}" for lane, found in scene.clients.items())
        engines = "; ".join(f"{one.name} {_engine_words(one)}" for one in scene.engines)
        self._say(f"{scene.now_s:5.0f} s  {scene.phase} | {scene.regime} | {clients} | {engines}")

    def record(self, record: DecisionRecord, at_s: float) -> None:
        """A line for it."""
        if words := record_words(record):
            self._say(f"{at_s:5.0f} s    {words}")

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class LiveScreen:
    """Redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=FRAMES_PER_S, transient=True)
        self._live.start()
        self._drawn_s = 0.0
        self._last: list[str] = []

    def show(self, scene: LiveScene) -> None:
        """Draw anew if the last picture is old enough."""
        if time.monotonic() - self._drawn_s >= 1.0 / FRAMES_PER_S:
            self._drawn_s = time.monotonic()
            self._live.update(self._picture(scene), refresh=True)

    def record(self, record: DecisionRecord, at_s: float) -> None:
        """Keep it among the last."""
        if words := record_words(record):
            self._last = [*self._last, f"{at_s:4.0f} s  {words}"][-LAST_DECISIONS:]

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, scene: LiveScene) -> Group:
        head = Table.grid(expand=True)
        head.add_row(
            Text(f"{scene.now_s:4.0f} of {scene.end_s:.0f} s   clients send: {scene.phase}", style="bold"),
            ProgressBar(total=scene.end_s, completed=min(scene.now_s, scene.end_s), width=40),
        )
        regime = Text(f"regime {scene.regime} ({scene.confidence:.0%}), mode {scene.mode}", style="bold")
        said = Text("\n".join(self._last) or "nothing decided yet", overflow="ellipsis", no_wrap=True)
        decided = Panel(said, title="decided, answered", title_align="left")
        return Group(head, regime, _clients(scene), _engines(scene), decided)


def _clients(scene: LiveScene) -> Table:
    table = Table(title="What clients measured in the last seconds", title_justify="left", expand=True)
    for column in ("lane", "sent", "finished", "failed", "TTFT p50", "TPOT p50"):
        table.add_column(column, justify="left" if column == "lane" else "right")
    for lane, found in scene.clients.items():
        counts = (str(found.requests), str(found.finished), str(found.failed))
        table.add_row(lane, *counts, milliseconds(found.ttft_p50_s), milliseconds(found.tpot_p50_s))
    table.caption = f"{scene.in_flight} in flight"
    return table


def _engines(scene: LiveScene) -> Table:
    table = Table(title="Settings in force", title_justify="left", expand=True)
    for column in ("engine", "variant", "batch cap", "token budget", "weight", "state"):
        table.add_column(column, justify="right" if column in ("batch cap", "token budget", "weight") else "left")
    for one in scene.engines:
        knobs = (_setting(one, VARIANT), _setting(one, BATCH_CAP), _setting(one, TOKEN_BUDGET))
        table.add_row(one.name, *knobs, str(one.weight), _state(one))
    return table


def _setting(one: LiveEngine, knob: str) -> str:
    """What is in force, and what is wanted if that is something else."""
    held, wanted = one.effective.get(knob, "-"), one.wanted.get(knob)
    return str(held) if wanted in (None, held) else f"{held} -> {wanted}"


def _state(one: LiveEngine) -> str:
    return one.trouble or ("attached" if one.attached else "not attached")


def _client_words(found: Figures) -> str:
    failed = f", {found.failed} failed" if found.failed else ""
    return f"TTFT {milliseconds(found.ttft_p50_s)} TPOT {milliseconds(found.tpot_p50_s)}{failed}"


def _engine_words(one: LiveEngine) -> str:
    state = "" if not one.trouble else f" ({one.trouble})"
    return f"cap {_setting(one, BATCH_CAP)} tokens {_setting(one, TOKEN_BUDGET)} weight {one.weight}{state}"


def record_words(record: DecisionRecord) -> str:
    """A record that is worth a line, in words; empty for the others."""
    if record.kind not in _SHOWN or record.summary.startswith("told "):
        return ""
    if record.kind is RecordKind.ACK and record.target_kind is TargetKind.ENGINE:
        held = {knob: value for knob, value in record.effective.items() if knob in (BATCH_CAP, TOKEN_BUDGET)}
        return f"{record.summary}, holds {', '.join(f'{knob} {value}' for knob, value in sorted(held.items()))}"
    return record.summary


def milliseconds(value_s: float | None) -> str:
    """A latency for people; `-` if there is none."""
    if value_s is None:
        return "-"
    return f"{value_s * 1e3:.0f} ms" if value_s < 1.0 else f"{value_s:.2f} s"
