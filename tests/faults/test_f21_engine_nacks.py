"""Fault 21: an engine refuses what it is told.

The same version is never sent again; the last acknowledged setting stays; the reason is
known within two seconds; the next version waits with back-off of at least 5 s.
"""

from itertools import pairwise
from pathlib import Path

import pytest

from flyball_core.inputs import OverrideSet
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import Directive, RecordKind
from flyball_log.embedded import EmbeddedLog
from harness.invariants import check_events
from harness.logged_pool import logged_pool
from harness.odd_logs import QUICK
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S, ScriptedPool, scripted_pool

REASON = "the scheduler does not take that"


def pin(value: int, number: int = 0) -> OverrideSet:
    """An operator asks for another cap."""
    return OverrideSet(
        pool=POOL,
        override_id=f"o{number}",
        target="e0-0",
        knob=BATCH_CAP,
        value=value,
        expires_wall_s=WALL_S + 1e6,
        reason="test",
        author="op",
    )


def refusing_pool() -> ScriptedPool:
    """An operator wants a cap that the engine's receiver refuses, again and again."""
    pool = scripted_pool()
    pool.run(5)
    pool.engines["e0-0"].refuse = lambda _directive: REASON
    pool.put(pin(80))
    return pool


def told_at(pool: ScriptedPool) -> list[tuple[float, Directive]]:
    """When the engine was told what."""
    times = {tick.version.revision: tick.time_s for tick in pool.log.ticks()}
    return [(times[d.version.revision], d) for d in pool.log.told("e0-0") if isinstance(d, Directive)]


def test_f21_a_refused_version_is_sent_0_times_again() -> None:
    """Ten minutes of refusals: every version is told once, each strictly newer than the one before."""
    pool = refusing_pool()
    pool.run(600)
    told = told_at(pool)

    assert len(told) > 3
    assert len(told) == len({directive.version for _, directive in told})
    assert len(told) == pool.state.pools["chat"].counts["nacks"]
    assert [] == check_events(pool.log).all


def test_f21_the_next_version_waits_at_least_5_s_and_longer_each_time() -> None:
    """Back-off doubles from 5 s to 300 s while the refusals go on."""
    pool = refusing_pool()
    pool.run(1500)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(told_at(pool))]

    assert all(gap >= 5.0 for gap in gaps)
    assert gaps == sorted(gaps)
    assert gaps[-1] > 100.0


def test_f21_the_last_acknowledged_setting_stays() -> None:
    """The engine holds what it held, and nothing else is taken for held."""
    pool = refusing_pool()
    before = dict(pool.engines["e0-0"].setting)
    pool.run(120)

    assert before == pool.engines["e0-0"].setting
    assert before[BATCH_CAP] == pool.state.pools["chat"].engines["e0-0"].holding.effective[BATCH_CAP]


def test_f21_the_reason_is_known_within_2_s() -> None:
    """In the state as soon as it is an input, and in the audit at the next tick."""
    pool = refusing_pool()
    while not pool.state.pools["chat"].counts.get("nacks"):
        pool.second()

    assert REASON == pool.state.pools["chat"].engines["e0-0"].holding.nack
    pool.second()
    assert f"e0-0 refused: {REASON}" in [record.summary for record in pool.log.decisions(RecordKind.ACK)]


def test_f21_a_later_version_that_is_taken_ends_the_back_off() -> None:
    """Once the engine takes something, the refusal is forgotten and the next change waits for nothing."""
    pool = refusing_pool()
    pool.run(60)
    pool.engines["e0-0"].refuse = lambda _directive: ""
    pool.run(120)
    holding = pool.state.pools["chat"].engines["e0-0"].holding

    assert 80 == pool.engines["e0-0"].setting[BATCH_CAP]
    assert ("", 0.0) == (holding.nack, holding.backoff_s)
    pool.put(pin(40, 0))
    start = pool.state.time_s
    pool.run(10)

    assert 40 == pool.engines["e0-0"].setting[BATCH_CAP]
    assert min(at for at, _ in told_at(pool) if at > start) - start <= 3.0


def test_f21_others_are_not_held_up() -> None:
    """While one engine refuses, another one's setting moves as it would."""
    pool = refusing_pool()
    pool.put(
        OverrideSet(
            pool=POOL,
            override_id="other",
            target="e1-0",
            knob=BATCH_CAP,
            value=70,
            expires_wall_s=WALL_S + 1e6,
            reason="test",
            author="op",
        )
    )
    pool.run(5)

    assert 70 == pool.engines["e1-0"].setting[BATCH_CAP]


@pytest.mark.parametrize("restarts", [False, True])
async def test_f21_through_the_log_a_refused_version_is_pushed_once(tmp_path: Path, *, restarts: bool) -> None:
    """Owner, pusher and receiver together: one push of each version, also when the receiver attaches anew."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    await pool.run(owner, 5)
    engine = pool.scripted.engines["e0-0"]
    seen: list[Directive] = []

    def refuse(directive: Directive) -> str:
        seen.append(directive)
        return REASON

    engine.refuse = refuse
    await pool.put(pin(80))
    await pool.run(owner, 3)
    if restarts:
        await pool.pusher.poll()
    await pool.run(owner, 40)

    assert len(seen) > 1
    assert len(seen) == len({directive.version for directive in seen})
    await log.close()
