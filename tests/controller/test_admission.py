"""Admission: whatever comes in by name or text, what an owner makes of it fits into the log."""

from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.machine import standard_seams
from flyball_controller.machine.admission import MAX_NAME
from flyball_controller.machine.filing import MAX_ENGINES
from flyball_controller.replay import Verdict, replay_log
from flyball_core.frames import EngineSample, Frame
from flyball_core.ids import AgentId, BootId, EngineId, Incarnation, PoolId
from flyball_core.inputs import Ack, Attach, Body, Grant, Order, OverrideClear, OverrideSet, PolicyText, TargetKind
from flyball_core.knobs import BATCH_CAP, KnobClass, KnobKind, KnobSpec
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Topic
from flyball_log.limits import MAX_RECORD_BYTES
from flyball_proto.codec import encode_directive
from harness.invariants import check_log
from harness.logged_pool import logged_pool, owner_of
from harness.odd_logs import QUICK, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import PRINT, WALL_S, scripted_pool

LONG = "x" * 200_000
SPEC = KnobSpec(name=BATCH_CAP, knob_class=KnobClass.LIVE, kind=KnobKind.INTEGER, safe=64, minimum=1, maximum=256)


def frame(seq: int, *engines: str, variant: str = "graphs") -> Frame:
    """What an agent that nobody knows says of engines that nobody knows."""
    samples = tuple(EngineSample(EngineId(name), Incarnation("i"), 0, (0,), variant) for name in engines)
    return Frame(
        agent=AgentId("a9"),
        boot=BootId("b0"),
        pool=POOL,
        seq=seq,
        wall_s=WALL_S,
        monotonic_s=1000.0 + seq,
        backlog=False,
        gpus=(),
        engines=samples,
    )


def attach(target: str = "e9", kind: TargetKind = TargetKind.ENGINE) -> Attach:
    """A receiver that nobody knows."""
    return Attach(
        pool=POOL,
        kind=kind,
        target=target,
        incarnation=Incarnation("i"),
        knobs=(SPEC,) if kind is TargetKind.ENGINE else (),
        effective={BATCH_CAP: 64} if kind is TargetKind.ENGINE else {},
    )


def pin(override_id: str = "o", reason: str = "r", target: str = "") -> OverrideSet:
    """An operator's order."""
    return OverrideSet(
        pool=POOL,
        override_id=override_id,
        target=target,
        knob=BATCH_CAP,
        value=50,
        expires_wall_s=WALL_S + 1e6,
        reason=reason,
        author="op",
    )


CASES: dict[str, list[Body]] = {
    "an engine's name in a frame": [frame(seq, LONG) for seq in range(3)],
    "many long names in frames": [frame(seq, *(f"{seq}-{i}" + "y" * 190 for i in range(100))) for seq in range(12)],
    "a variant in a frame": [*(frame(seq, "e9", variant="v" * 250_000) for seq in range(4)), pin()],
    "an engine's name": [attach(LONG)],
    "many engines' names": [attach(f"{i}" + "z" * 190) for i in range(1200)],
    "a gateway's name": [attach(LONG, TargetKind.GATEWAY)],
    "an incarnation": [replace(attach(), incarnation=Incarnation(LONG))],
    "a capability hash": [replace(attach(), capability_hash="h" * 261_000)],
    "a knob's name": [replace(attach(), knobs=(replace(SPEC, name=LONG),))],
    "many knobs": [
        replace(
            attach(),
            knobs=tuple(replace(SPEC, name=f"{i}" + "k" * 50) for i in range(1000)),
            effective={f"{i}" + "k" * 50: 64 for i in range(1000)},
        )
    ],
    "a pool's name": [PolicyText(pool=PoolId(LONG), text="version: 1\nmode: control\n", author="op")],
    "an override's id": [pin(override_id=LONG), pin(override_id=LONG, target="e0-0")],
    "many reasons of overrides": [pin(override_id=f"o{i}", reason="r" * 3000) for i in range(200)],
    "an author": [PolicyText(pool=POOL, text="version: 1\nmode: control\n#" + "x" * 60_000, author="o" * 200_000)],
    "an order's reason": [Order(pool=POOL, author="op", reason="x" * 261_900)],
    "what is lifted": [OverrideClear(pool=POOL, override_id="x" * 261_900, author="op")],
    "a grant": [Grant(pool=POOL, name=LONG, amount=1.0, expires_wall_s=WALL_S + 1e6)],
}


@pytest.mark.parametrize("what", CASES)
async def test_nothing_that_comes_in_makes_an_owner_stop(tmp_path: Path, what: str) -> None:
    """However long a name or text: the owner ticks on, its successor starts, and the log replays."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    await pool.run(owner, 3)
    for body in CASES[what]:
        await pool.put(body)
    await pool.run(owner, 10)
    successor = owner_of(log, "c2")
    owned = await successor.take(0, WALL_S + pool.now_s)
    await pool.run(successor, 2)

    assert 15 == owned.state.ticks
    assert {"e0-0", "e0-1", "e1-0", "e1-1"} <= set(owned.state.pools["chat"].engines)
    report = await replay_log(log, standard_seams, PRINT)
    assert Verdict.IDENTICAL is report.verdict, report.differences
    assert [] == (await check_log(log)).order
    await log.close()


async def test_a_refusal_on_record_that_quotes_too_much_is_cut_short(tmp_path: Path) -> None:
    """The record of an order whose reason alone fills one says how long it would have been."""
    log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
    pool, owner = await logged_pool(log)
    await pool.put(Order(pool=POOL, author="op", paused=True, reason="x" * 261_900))
    await pool.run(owner, 1)
    values = [record.value or b"" for record in await records_of(log, Topic.DECISIONS, 0)]

    assert any(b"op: paused: xxx" in value and b"(cut short: 26" in value for value in values)
    assert owner.owned[0].state.pools["chat"].paused
    await log.close()


def test_a_name_may_have_200_characters() -> None:
    """The limit itself is taken; one more is refused and counted."""
    pool = scripted_pool()
    pool.put(attach("n" * MAX_NAME))
    pool.put(attach("m" * (MAX_NAME + 1)))
    pool.tick()

    assert "n" * MAX_NAME in pool.state.pools["chat"].engines
    assert 5 == len(pool.state.pools["chat"].engines)
    assert 1 == pool.state.pools["chat"].counts["attaches_refused"]


@pytest.mark.parametrize(("length", "least"), [(8, MAX_ENGINES), (32, 2000), (190, 500)])
def test_the_table_of_the_largest_pool_and_its_answer_fit(length: int, least: int) -> None:
    """As many engines as a pool takes: one table names them all, and one answer does."""
    pool = scripted_pool(agents=0)
    for number in range(MAX_ENGINES):
        pool.put(replace(attach(f"{number:0{length}}"), knobs=(), effective={}))
    pool.tick()
    [table] = pool.log.told("gw0")[-1:]
    [answer] = [i.offset for i in pool.log.inputs if isinstance(i.body, Ack) and i.body.target == "gw0"][-1:]

    assert least <= len(pool.state.pools["chat"].engines)
    assert len(encode_directive(table)) < MAX_RECORD_BYTES
    assert len(pool.log.raw[answer]) < MAX_RECORD_BYTES
