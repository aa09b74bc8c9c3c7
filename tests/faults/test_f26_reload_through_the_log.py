"""Fault 26, through the log: a bad document comes while a pool is governed.

The old one stays, the refusal stands in the audit with line and hint, no push comes of it,
and neither a successor nor a repeated intent brings it in by another door.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyball_controller.machine import standard_seams
from flyball_controller.machine.orders import standing_intent
from flyball_controller.owner import Owner
from flyball_controller.replay import Verdict, replay_log
from flyball_core.inputs import Body, Intent, Mode, PolicyText
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import DecisionRecord, Directive, RoutingTable
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_proto.codec import decode_audit, decode_directive, encode_input
from harness.invariants import check_log
from harness.logged_pool import LoggedPool, logged_pool, owner_of
from harness.odd_logs import QUICK, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import POLICY, PRINT, WALL_S

BAD = {
    "syntax": ("version: 1\nmode: [advise\n", "policy document:3:1: not YAML"),
    "unknown key": ("version: 1\nknob: {}\n", "policy document:2:1: unknown key 'knob' in the document (did you mean"),
    "inverted bounds": (
        "version: 1\nknobs:\n  max_active_requests: {min: 90, max: 8}\n",
        "policy document:3:24: max_active_requests: the lower bound 90 is above the upper bound 8 (swap them)",
    ),
    "wrong unit": ("version: 1\nhold: 30mb\n", "policy document:2:7: '30mb' is not a duration with a unit (units are"),
    "too many lanes": (
        "version: 1\nlanes:\n" + "".join(f"  l{i}: {{priority: 1}}\n" for i in range(65)),
        "policy document:3:3: 65 lanes; a gateway's table has room for 64",
    ),
    "a lane without end": (
        f"version: 1\nlanes:\n  {'l' * 201}: {{priority: 1}}\n",
        "policy document:3:3: the name of a lane has 1 to 200 characters, not 201",
    ),
}

STRICTER = POLICY.replace("max: 128", "max: 20")


async def governed(folder: Path) -> tuple[LoggedPool, Owner]:
    """A pool in the middle of being governed."""
    pool, owner = await logged_pool(EmbeddedLog.create(folder / "log", 1, QUICK))
    pool.scripted.engines["e0-1"].slowness = 2.4
    await pool.run(owner, 20)
    return pool, owner


async def told(pool: LoggedPool) -> list[Directive | RoutingTable]:
    """Everything that was published for receivers."""
    found = [decode_directive(r.value) for r in await records_of(pool.log, Topic.DIRECTIVES, 0) if r.value]
    return [one for one in found if isinstance(one, (Directive, RoutingTable))]


async def summaries(pool: LoggedPool) -> list[str]:
    """What the audit says."""
    found = [decode_audit(r.value or b"") for r in await records_of(pool.log, Topic.DECISIONS, 0)]
    return [one.summary for one in found if isinstance(one, DecisionRecord)]


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a pool in the half minute after an order, and of what receivers hold."""

    told: list[tuple[str, object]]
    held: dict[str, object]


async def after(folder: Path, *bodies: Body) -> Course:
    """The course of half a minute with these inputs at its beginning."""
    pool, owner = await governed(folder)
    before = len(await told(pool))
    for body in bodies:
        await pool.put(body)
    await pool.run(owner, 30)
    messages = (await told(pool))[before:]
    await pool.log.close()
    return Course(
        [(m.engine, dict(m.values)) if isinstance(m, Directive) else (m.gateway, m.routes) for m in messages],
        {name: dict(engine.setting) for name, engine in pool.scripted.engines.items()},
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course without any order."""
    found = asyncio.run(after(tmp_path_factory.mktemp("undisturbed")))
    assert found.told
    return found


@pytest.mark.parametrize("what", BAD)
async def test_f26_a_reload_of_a_bad_document_causes_0_pushes(tmp_path: Path, undisturbed: Course, what: str) -> None:
    """Push by push the course is that without it."""
    bad = PolicyText(pool=POOL, text=BAD[what][0], author="op")

    assert undisturbed == await after(tmp_path, bad)


@pytest.mark.parametrize("what", BAD)
async def test_f26_an_intent_with_a_bad_document_changes_nothing_at_all(
    tmp_path: Path, undisturbed: Course, what: str
) -> None:
    """Neither its document nor its mode nor its pause: all or nothing."""
    bad = Intent(pool=POOL, policy_text=BAD[what][0], policy_author="op", mode=Mode.OBSERVE, paused=True, as_of=10**6)

    assert undisturbed == await after(tmp_path, bad)


@pytest.mark.parametrize("what", BAD)
async def test_f26_the_refusal_is_on_record_and_the_old_document_outlives_it(tmp_path: Path, what: str) -> None:
    """Line and hint stand in the audit once; a successor repeats the old document, and then a good one is taken."""
    pool, owner = await governed(tmp_path)
    text, words = BAD[what]
    await pool.put(PolicyText(pool=POOL, text=text, author="op"))
    await pool.run(owner, 5)
    said = [summary for summary in await summaries(pool) if "refused" in summary]

    assert [True] == [summary.startswith(f"policy of op refused: {words}") for summary in said]
    successor = owner_of(pool.log, "c2")
    owned = await successor.take(0, WALL_S + pool.now_s)
    intent = standing_intent(owned.state.pools["chat"], owned.next_offset)
    assert intent is not None
    assert (POLICY, Mode.CONTROL) == (intent.policy_text, intent.mode)
    await pool.run(successor, 1)
    await pool.put(PolicyText(pool=POOL, text=STRICTER, author="op"))
    await pool.run(successor, 60)

    assert STRICTER == owned.state.pools["chat"].policy_text
    assert {True} == {20 >= int(engine.setting[BATCH_CAP]) for engine in pool.scripted.engines.values()}
    assert Verdict.IDENTICAL is (await replay_log(pool.log, standard_seams, PRINT)).verdict
    assert [] == (await check_log(pool.log)).all
    await pool.log.close()


async def test_f26_bytes_that_are_no_document_are_counted(tmp_path: Path) -> None:
    """A policy record with a text that is no UTF-8 cannot be read at all: malformed, and nothing changes."""
    pool, owner = await governed(tmp_path)
    raw = encode_input(PolicyText(pool=POOL, text="version: 1", author="op")).replace(b"version", b"\xff\xfe\xfdsion")
    await pool.log.append(Topic.INPUTS, 0, [Entry(b"chat", raw)])
    await pool.run(owner, 3)
    state = owner.owned[0].state

    assert 1 == state.counts["malformed"]
    assert POLICY == state.pools["chat"].policy_text
    await pool.log.close()
