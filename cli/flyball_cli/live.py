"""The live view of a run in virtual time: a screen where there is a terminal, plain lines where there is none."""

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
from flyball_twin.engine.engine import Engine
from flyball_twin.fleet.fleet import Pool
from flyball_twin.governed.life import Life, Watched
from flyball_twin.governed.scorecard import LAST_REQUESTS
from flyball_twin.governed.trail import load_of

PLAIN_LINES = 20
"""About so many plain lines a run has, but none more often than each minute of virtual time."""

SHORT_S = 7200.0
"""In a run that is no longer, every regime shift and alarm has a line."""

ROWS = 16
"""Engines that the screen shows of a pool."""

FRAMES_PER_S = 10.0
"""How often the screen is drawn anew, in real time."""

LAST_DECISIONS = 6


class View(Protocol):
    """What a demo shows itself through."""

    def show(self, life: Life, news: list[DecisionRecord]) -> None:
        """One tick of the run."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Silent:
    """Shows nothing: for `--json`."""

    def show(self, life: Life, news: list[DecisionRecord]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainLines:
    """A line now and then, and in a short run one for each regime shift and alarm."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_s = 0.0

    def show(self, life: Life, news: list[DecisionRecord]) -> None:
        """A line if one is due."""
        now_s, end_s = life.clock.now_s, life.scenario.end_s
        for record in news if end_s <= SHORT_S else ():
            if record.kind is RecordKind.ALARM or record.summary.startswith("regime "):
                self._say(f"{record.time_s:6.0f} s  {record.pool}: {record.summary}")
        if now_s < self._next_s:
            return
        self._next_s = now_s + max(60.0, end_s / PLAIN_LINES)
        parts = []
        for watched in life.fleets.values():
            for named in watched.pools.values():
                regime, _, features = _said(life, named)
                pressure = f"KV {_share(features, 'kv_used_max')}, HBM {_share(features, 'hbm_ratio')}"
                parts.append(f"{named}: {regime}, {pressure}, {features.get('gen_tokens_per_s', 0.0):.0f} tok/s")
            parts.append(f"{watched.name} attained {watched.card.attainment:.0%}")
        self._say(f"{now_s:6.0f} s  " + "  |  ".join(parts))

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class Screen:
    """The fleets side by side, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=FRAMES_PER_S, transient=True)
        self._live.start()
        self._drawn = 0.0
        self._last: list[str] = []

    def show(self, life: Life, news: list[DecisionRecord]) -> None:
        """Draw anew if the last picture is old enough."""
        for record in news:
            if record.kind in (RecordKind.DECISION, RecordKind.ALARM):
                self._last = [*self._last, f"{record.time_s:5.0f} s  {record.pool}: {record.summary}"][-LAST_DECISIONS:]
        if time.monotonic() - self._drawn >= 1.0 / FRAMES_PER_S:
            self._drawn = time.monotonic()
            self._live.update(self._picture(life), refresh=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _picture(self, life: Life) -> Group:
        now_s, scenario = life.clock.now_s, life.scenario
        phase = next((p.name for p in scenario.phases if p.from_s <= now_s < p.to_s), "")
        if now_s >= scenario.duration_s:
            phase = "the last requests finish"
        head = Table.grid(expand=True)
        head.add_row(
            Text(f"{now_s:5.0f} of {scenario.end_s:.0f} s   {phase}", style="bold"),
            ProgressBar(total=scenario.end_s, completed=now_s, width=40),
        )
        said = Text("\n".join(self._last) or "nothing decided yet", overflow="ellipsis", no_wrap=True)
        return Group(head, _pools(life), _engines(life), Panel(said, title="decisions", title_align="left"))


def _said(life: Life, pool: str) -> tuple[str, float, Mapping[str, float]]:
    """Regime, confidence and features of a pool, as the log has them."""
    tick = life.observed.ticks.get(pool)
    return (tick.regime, tick.confidence, tick.features) if tick else ("unknown", 0.0, {})


def _pools(life: Life) -> Table:
    table = Table(expand=True)
    for column in (
        "fleet",
        "pool",
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
        table.add_column(column, justify="left" if column in ("fleet", "pool", "regime") else "right")
    for watched in life.fleets.values():
        for pool, named in watched.pools.items():
            regime, confidence, features = _said(life, named)
            table.add_row(
                watched.name,
                pool,
                f"{regime} ({confidence:.0%})",
                _share(features, "kv_used_max"),
                _share(features, "hbm_ratio"),
                f"{features.get('gen_tokens_per_s', 0.0):,.0f}",
                f"{features.get('prompt_tokens_per_s', 0.0):,.0f}",
                f"{features['tpot_s'] * 1e3:.0f} ms" if "tpot_s" in features else "-",
                str(watched.fleet.pools[pool].gateway.queued),
                f"{watched.card.attainment:.1%}",
                f"{watched.card.recent:.0%}",
            )
    return table


def _engines(life: Life) -> Table:
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
    for watched in life.fleets.values():
        for pool in watched.fleet.pools.values():
            for engine in pool.engines[:ROWS]:
                table.add_row(*_engine(watched, pool, engine))
    return table


def _engine(watched: Watched, pool: Pool, engine: Engine) -> list[str]:
    (running, waiting, kv_used), settings = load_of(engine), engine.settings()
    weight, cap = pool.gateway.weight(engine.id), pool.gateway.cap(engine.id)
    state = "down" if not engine.ready else ("draining" if weight == 0 else "serving")
    if engine.bandwidth_factor < 1.0:
        state += f", HBM at {engine.bandwidth_factor:.0%}"
    return [
        engine.id,
        watched.name,
        engine.variant,
        str(running),
        str(waiting),
        f"{kv_used:.0%}",
        str(settings.get(BATCH_CAP, "-")),
        str(settings.get(TOKEN_BUDGET, "-")),
        f"of {cap}" if cap else "no cap",
        str(weight),
        state,
    ]


def _share(features: Mapping[str, float], name: str) -> str:
    return f"{features[name]:.0%}" if name in features else "-"
