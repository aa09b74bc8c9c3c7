"""The live view of a demo: a screen where there is a terminal, plain lines where there is none."""

import time
from collections.abc import Mapping
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flyball_core.knobs import BATCH_CAP, TOKEN_BUDGET
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_twin.life import LAST_REQUESTS, Scene

PLAIN_EVERY_S = 60.0
"""Seconds of virtual time between two plain lines."""

FRAMES_PER_S = 10.0
"""How often the screen is drawn anew, in real time."""

LAST_DECISIONS = 6


class View(Protocol):
    """What a demo shows itself through."""

    def show(self, scene: Scene, news: list[DecisionRecord]) -> None:
        """One tick of the run."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Silent:
    """Shows nothing: for `--json`."""

    def show(self, scene: Scene, news: list[DecisionRecord]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainLines:
    """A line each minute of virtual time, and one for each regime shift and alarm."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def show(self, scene: Scene, news: list[DecisionRecord]) -> None:
        """A line if one is due."""
        for record in news:
            if record.kind is RecordKind.ALARM or record.summary.startswith("regime "):
                self._say(f"{record.time_s:6.0f} s  {record.pool}: {record.summary}")
        if scene.now_s < self._next_s:
            return
        self._next_s = scene.now_s + PLAIN_EVERY_S
        parts = []
        for name, fleet in scene.fleets.items():
            features = fleet.features
            pressure = f"KV {_share(features, 'kv_used_max')}, HBM {_share(features, 'hbm_ratio')}"
            tokens = f"{features.get('gen_tokens_per_s', 0.0):.0f} tok/s"
            parts.append(f"{name}: {fleet.regime}, {pressure}, {tokens}, attained {fleet.attainment:.0%}")
        self._say(f"{scene.now_s:6.0f} s  " + "  |  ".join(parts))

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class Screen:
    """Both fleets side by side, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=FRAMES_PER_S, transient=True)
        self._live.start()
        self._drawn = 0.0
        self._last: list[str] = []

    def show(self, scene: Scene, news: list[DecisionRecord]) -> None:
        """Draw anew if the last picture is old enough."""
        for record in news:
            if record.kind in (RecordKind.DECISION, RecordKind.ALARM):
                self._last = [*self._last, f"{record.time_s:5.0f} s  {record.pool}: {record.summary}"][-LAST_DECISIONS:]
        if time.monotonic() - self._drawn >= 1.0 / FRAMES_PER_S:
            self._drawn = time.monotonic()
            self._live.update(self._picture(scene), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, scene: Scene) -> Group:
        head = Table.grid(expand=True)
        head.add_row(
            Text(f"{scene.now_s:5.0f} of {scene.end_s:.0f} s   {scene.phase}", style="bold"),
            ProgressBar(total=scene.end_s, completed=scene.now_s, width=40),
        )
        said = Text("\n".join(self._last) or "nothing decided yet", overflow="ellipsis", no_wrap=True)
        return Group(head, _fleets(scene), _engines(scene), Panel(said, title="decisions", title_align="left"))


def _fleets(scene: Scene) -> Table:
    table = Table(expand=True)
    for column in (
        "fleet",
        "regime",
        "KV",
        "HBM",
        "tok/s out",
        "tok/s in",
        "TPOT",
        "queued",
        "attained",
        f"latest {LAST_REQUESTS}",
    ):
        table.add_column(column, justify="left" if column in ("fleet", "regime") else "right")
    for name, fleet in scene.fleets.items():
        features = fleet.features
        table.add_row(
            name,
            f"{fleet.regime} ({fleet.confidence:.0%})",
            _share(features, "kv_used_max"),
            _share(features, "hbm_ratio"),
            f"{features.get('gen_tokens_per_s', 0.0):,.0f}",
            f"{features.get('prompt_tokens_per_s', 0.0):,.0f}",
            f"{features['tpot_s'] * 1e3:.0f} ms" if "tpot_s" in features else "-",
            str(fleet.queued),
            f"{fleet.attainment:.1%}",
            f"{fleet.recent:.0%}",
        )
    return table


def _engines(scene: Scene) -> Table:
    table = Table(expand=True)
    for column in (
        "engine",
        "fleet",
        "variant",
        "running",
        "waiting",
        "KV",
        "cap",
        "tokens",
        "in flight",
        "weight",
        "state",
    ):
        table.add_column(column, justify="right" if column not in ("engine", "fleet", "variant", "state") else "left")
    for name, fleet in scene.fleets.items():
        for engine in fleet.engines:
            table.add_row(
                engine.engine,
                name,
                engine.variant,
                str(engine.running),
                str(engine.waiting),
                f"{engine.kv_used_ratio:.0%}",
                str(engine.settings.get(BATCH_CAP, "-")),
                str(engine.settings.get(TOKEN_BUDGET, "-")),
                f"of {engine.in_flight_cap}" if engine.in_flight_cap else "no cap",
                str(engine.weight),
                engine.state,
            )
    return table


def _share(features: Mapping[str, float], name: str) -> str:
    return f"{features[name]:.0%}" if name in features else "-"
