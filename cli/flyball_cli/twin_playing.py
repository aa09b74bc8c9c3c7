"""Plays a scenario: through the control plane, or bare. It prints nothing but through the view it is given."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from flyball_cli.live import PlainLines, Screen, Silent, View
from flyball_core.errors import Rejected
from flyball_core.knobs import VARIANT
from flyball_log import Log, open_log
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings, Retention
from flyball_log.interface import Topic
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.governed.life import UNGOVERNED, Frames, Life
from flyball_twin.governed.observing import Observed
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.physics import VARIANTS
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.model import Scenario

PARTITIONS = 1
"""A simulated fleet needs no more, and one partition makes all its pools one story."""

KEPT = Retention(max_bytes=256 << 20, max_age_s=float("inf"))
KEPT_TOPICS = (Topic.INPUTS, Topic.DECISIONS)
"""A day of a small fleet; of a longer run the log has the end, which replays from a checkpoint."""

LOOKS_PER_BIN = 4
"""How often a bare fleet is looked at for each bin of its timeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One run of a scenario under one seed."""

    scenario: Scenario
    seed: int
    cards: Mapping[str, Scorecard]
    """By fleet."""
    assumed: Mapping[str, tuple[str, ...]]
    """By kind of engine: what no table of measurements holds."""
    observed: Observed
    """Empty of a bare run."""
    frames: Frames | None
    log: str | None
    """None of a bare run, which has no log."""
    picture: str
    wall_s: float


def new_folder(out: Path | None, name: str) -> Path:
    """An empty folder for what a run leaves. Raises `Rejected` if it cannot be made or is not empty."""
    folder = out or Path(".flyball") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Rejected(f"the output folder {folder} is not empty; name another with --out")
    except OSError as error:
        raise Rejected(f"cannot write to the output folder {folder}: {error.strerror or error}") from error
    return folder


async def new_log(where: str, folder: Path, name: str) -> Log:
    """A new log: embedded in the folder, or fresh topics on a broker. Raises `Rejected` for another `where`."""
    if where == "embedded":
        # A simulation that loses power is run again; it need not wait for the disk.
        settings = EmbeddedSettings(durability=Durability.OS, retention=dict.fromkeys(KEPT_TOPICS, KEPT))
        return EmbeddedLog.create(folder / "log", partitions=PARTITIONS, settings=settings)
    if not where.startswith("kafka://"):
        raise Rejected(f"--log {where}: say embedded, or kafka://HOST:PORT")
    from flyball_log.kafka import create_topics, settings_for

    if where.count("/") == 2:
        where = f"{where}/{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{time.monotonic_ns() % 100_000:05d}"
    await create_topics(settings_for(where), partitions=PARTITIONS, replication=1, dev=True)
    return await open_log(where)


async def play(scenario: Scenario, seed: int, folder: Path, log: Log, view: View) -> Played:
    """Play it through the production control plane, beat by beat, and close the log. `folder` is empty."""
    began = time.monotonic()
    try:
        life = Life(log, scenario, seed, partial(build_fleet, scenario, seed), folder)
        await life.start()
        while life.clock.now_s < scenario.end_s:
            view.show(life, await life.beat())
            await asyncio.sleep(0)  # let an interrupt through between two beats
        frames = await life.finish()
    finally:
        view.close()
        await log.close()
    fleets = {name: watched.fleet for name, watched in life.fleets.items()}
    return Played(
        scenario=scenario,
        seed=seed,
        cards={name: watched.card for name, watched in life.fleets.items()},
        assumed=_assumed(scenario, fleets, life.observed),
        observed=life.observed,
        frames=frames,
        log=log.where,
        picture=str(folder / "timeline.png"),
        wall_s=time.monotonic() - began,
    )


def play_bare(scenario: Scenario, seed: int, folder: Path) -> Played:
    """Play it without control: engines at their defaults, no agents, no log."""
    began = time.monotonic()
    card = Scorecard(scenario)
    fleet = build_fleet(scenario, seed, card.record)
    step_s = max(card.trail.bin_s / LOOKS_PER_BIN, 1.0)
    while fleet.now_s < scenario.end_s:
        fleet.run_until(min(fleet.now_s + step_s, scenario.end_s))
        card.trail.look(fleet)
    fleet.close()
    observed = Observed()
    return Played(
        scenario=scenario,
        seed=seed,
        cards={UNGOVERNED: card},
        assumed=_assumed(scenario, {UNGOVERNED: fleet}, observed),
        observed=observed,
        frames=None,
        log=None,
        picture=str(folder / "timeline.png"),
        wall_s=time.monotonic() - began,
    )


def _assumed(scenario: Scenario, fleets: Mapping[str, Fleet], observed: Observed) -> dict[str, tuple[str, ...]]:
    """What is assumed of each kind of engine that ran, in the order of the scenario."""
    found: dict[str, dict[str, None]] = {}
    for fleet in fleets.values():
        for plan in (plan for pool in scenario.pools for plan in pool.engines):
            changed = [c.new for c in observed.changes if c.target == plan.engine and c.knob == VARIANT]
            for variant in dict.fromkeys([plan.variant, *changed]):
                if isinstance(variant, str):
                    cost = fleet.engines[plan.engine].model.cost(VARIANTS[variant])
                    kind = f"{plan.model} on {plan.gpu}, {variant_words(variant)}"
                    found.setdefault(kind, {}).update(dict.fromkeys(cost.assumed))
    return {kind: tuple(said) for kind, said in found.items() if said}


def variant_words(variant: str) -> str:
    """A variant's name, with a mark if no table measured it."""
    known = VARIANTS.get(variant)
    return f"{variant} (assumed)" if known is not None and known.assumed else variant


def view_of(console: Console, *, as_json: bool) -> View:
    """What a run is shown through: a screen on a terminal, plain lines elsewhere, nothing for JSON."""
    if as_json:
        return Silent()
    return Screen(console) if console.is_terminal and sys.stdout.isatty() else PlainLines(console)


def say(console: Console, line: str) -> None:
    """A line with a path in it: never wrapped, never coloured."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def keep_picture(played: Played) -> None:
    """Draw it."""
    from flyball_cli.picture import draw

    draw(played, Path(played.picture))


def keep_result(found: dict[str, Any], played: Played, folder: Path) -> None:
    """Write picture and document beside the log."""
    keep_picture(played)
    (folder / "result.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
