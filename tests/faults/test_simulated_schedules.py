"""Schedules of faults on a simulated fleet: the seeds of every run, and proof that they would find something."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from flyball_agents import easing
from flyball_agents.easing import Phase
from flyball_agents.receiver import Receiver
from flyball_agents.receiver_store import ReceiverStore
from flyball_agents.spool import Spool
from flyball_controller.machine import guard
from flyball_controller.owner import Owner
from flyball_core.fencing import Fence, Version
from laboratory.scale import report, scaled
from laboratory.schedule import LOG, FaultKind, Schedule
from laboratory.simulation.campaign import COMMAND, play, try_seed
from laboratory.simulation.world import built, schedule_of, simulate
from laboratory.verdict import Promise

SEEDS = 160
AT_ONCE = 10
FULL_SEEDS = 5_000

SABOTAGED = range(100)
"""Seeds in which each sabotage has to be found: at least in one. A missing fence shows in one of a hundred or two."""


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
@pytest.mark.timeout(300)
def test_160_seeds_break_0_promises(first: int) -> None:
    """Whatever fails, in whatever order: nothing is lost, nothing unexpected, and all parts are themselves again."""
    findings = [finding for seed in range(first, first + AT_ONCE) if (finding := try_seed(seed)[0]) is not None]

    assert not findings, "\n".join(map(str, findings))


@pytest.mark.timeout(3600)
def test_5000_seeds_break_0_promises_at_full_length() -> None:
    """The same for thousands; in every run only the first of them, which tells how many cases a minute were played."""
    last = None
    for campaign in play(range(SEEDS, SEEDS + scaled(16, FULL_SEEDS)), jobs=scaled(1, os.cpu_count() or 1)):
        last = campaign

    assert last is not None
    assert not last.findings, "\n".join(map(str, last.findings))
    report("simulation", cases=last.cases, cases_per_minute=round(last.per_minute))


def test_the_same_seed_is_the_same_run_to_the_bit() -> None:
    """Record and log are equal, in this process and in one whose hashes are salted otherwise."""
    seed = 11
    tests = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join(map(str, (tests, tests / "faults")))
    ran = subprocess.run(
        [sys.executable, "-m", "laboratory.simulation", "--seed", str(seed)],
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    here = simulate(seed).digest()

    assert here == simulate(seed, replays=False).digest()
    assert f"digest {here:08x}; {COMMAND.format(seed=seed)}" in ran.stdout
    assert here != simulate(seed + 1).digest()


def test_a_schedule_that_is_written_down_plays_the_same() -> None:
    """Of a seed's schedule the JSON is enough."""
    schedule = Schedule.from_json(schedule_of(7).to_json())

    assert simulate(7, replays=False).digest() == simulate(7, schedule, replays=False).digest()


def test_the_schedules_strike_every_part_with_every_kind() -> None:
    """Within the seeds of every run there is each kind of fault, and each part is struck."""
    faults = [fault for seed in range(SEEDS) for fault in schedule_of(seed).faults]

    assert set(FaultKind) == {fault.kind for fault in faults}
    assert {"controller-0", "controller-1", "agent-0", "agent-1", "engine-0", "gateway-0", LOG} <= {
        fault.target for fault in faults
    }


def never_stale(_offered: Version, _held: Version | None) -> Fence:
    """A fence that lets everything pass."""
    return Fence.NEWER


def forgets(_store: ReceiverStore, _held: object) -> None:
    """A store that keeps nothing."""


def finds_nothing(_spool: Spool, path: Path) -> None:
    """A spool that begins empty, whatever lies on its disk."""
    path.unlink()


def jumps(_at: float, goal: float, *_limits: object) -> float:
    """Easing in one step."""
    return goal


def never_eases(_receiver: Receiver, **_clocks: float) -> Phase:
    """A receiver that holds for ever."""
    return Phase.HOLDING


def moves_at_once(_spec: object, wanted: float, *_rest: object, **_more: object) -> tuple[float, str, str]:
    """A guard that lets every number through as it is wanted."""
    return wanted, "accepted", "within all rails"


def reads_past_claims(owner: Owner, owned: Any, item: Any) -> Any:
    """An owner that does not notice that another has claimed."""
    body, lost = item.body, owned.lost
    if type(body).__name__ == "Claim" and item.offset > owned.epoch:
        return []
    owned.lost = lost
    return _STEP(owner, owned, item)


_STEP = Owner._step  # noqa: SLF001 - a sabotage wraps what it breaks

SABOTAGES: list[tuple[object, str, Callable[..., Any], Promise]] = [
    (Version, "against", never_stale, Promise.ORDER),
    (ReceiverStore, "save", forgets, Promise.LIVES),
    (Spool, "_recover", finds_nothing, Promise.ACCOUNTS),
    (easing, "slewed", jumps, Promise.EASING),
    (Receiver, "poll", never_eases, Promise.EASING),
    (guard, "_bounded", moves_at_once, Promise.MOTION),
    (Owner, "_step", reads_past_claims, Promise.REPLAY),
]


@pytest.mark.parametrize(
    ("where", "name", "broken", "promise"), SABOTAGES, ids=[broken.__name__ for _, _, broken, _ in SABOTAGES]
)
@pytest.mark.timeout(300)
def test_a_sabotaged_part_is_found_by_the_same_seeds(
    where: object, name: str, broken: Callable[..., Any], promise: Promise
) -> None:
    """With one part of the product broken on purpose, some of the first seeds find that this promise is."""
    for seed in SABOTAGED:
        with built(seed) as world:
            with patch.object(where, name, broken):
                world.play()
            answer = world.judged(replays=promise is Promise.REPLAY).verdict[promise]
        if answer.lost or answer.unexpected:
            return

    pytest.fail(f"none of the seeds {SABOTAGED} noticed")
