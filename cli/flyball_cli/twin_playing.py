"""Plays a scenario: through the control plane, or bare. It prints nothing but through the view it is given."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from flyball_cli.live import View
from flyball_core.errors import Rejected
from flyball_core.ids import PoolId
from flyball_log import Log, open_log
from flyball_log.embedded import Durability, EmbeddedLog, EmbeddedSettings
from flyball_twin.fleet import Fleet
from flyball_twin.life import UNGOVERNED, Frames, Life, pool_in_log
from flyball_twin.observing import Observed
from flyball_twin.physics import VARIANTS
from flyball_twin.scenario.building import build_fleet
from flyball_twin.scenario.model import Scenario
from flyball_twin.scorecard import Scorecard

PARTITIONS = 1
"""A simulated fleet needs no more, and one partition makes all its pools one story."""

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
    """By variant that ran: what of it and of what it ran on no table holds."""
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
        settings = EmbeddedSettings(durability=Durability.OS)
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
        assumed=_assumed(fleets, life.observed),
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
        assumed=_assumed({UNGOVERNED: fleet}, observed),
        observed=observed,
        frames=None,
        log=None,
        picture=str(folder / "timeline.png"),
        wall_s=time.monotonic() - began,
    )


def pool_of(fleet: str, pool: PoolId) -> str:
    """What the log calls a pool of a fleet."""
    return str(pool_in_log(fleet, pool))


def _assumed(fleets: Mapping[str, Fleet], observed: Observed) -> dict[str, tuple[str, ...]]:
    """What the physics of every variant that ran are assumed in, by variant."""
    wanted = {change.new for change in observed.changes if isinstance(change.new, str)}
    found: dict[str, dict[str, None]] = {}
    for fleet in fleets.values():
        for engine in fleet.engines.values():
            for variant in {engine.variant, *wanted} & set(VARIANTS):
                said = engine.model.cost(VARIANTS[variant]).assumed
                found.setdefault(variant, {}).update(dict.fromkeys(said))
    return {variant: tuple(said) for variant, said in sorted(found.items())}
