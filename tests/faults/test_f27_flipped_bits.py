"""Fault 27, bit by bit: whatever is wrong with a stored state, what is restored is right.

A state is sound only for the input that it is as of, so a bit flipped in what surrounds it
is as bad as one inside. What no snapshot gives back the inputs do, and what they no longer
hold the standing orders do.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flyball_controller import checkpoints
from flyball_controller.checkpoints import checkpoint_entries, find_checkpoint
from flyball_controller.machine import PartitionState, standard_seams, step
from flyball_controller.machine.export import SCHEMA, export_state
from flyball_controller.replay import Verdict, replay_log
from flyball_core.errors import LogCorrupt
from flyball_core.inputs import Mode, Order, OverrideSet
from flyball_core.knobs import BATCH_CAP
from flyball_log import fold
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Log, Record, Topic
from flyball_proto.codec import decode_checkpoint, decode_input, encode_checkpoint
from harness.invariants import check_log
from harness.logged_pool import logged_pool, owner_of
from harness.odd_logs import QUICK, Beheaded, HandedOn, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import POLICY, PRINT, WALL_S

Stored = dict[bytes, bytes]


class Replaced(HandedOn):
    """A log whose state topic holds what the test says."""

    def __init__(self, log: Log, stored: Stored) -> None:
        super().__init__(log)
        self.stored = stored

    async def read(
        self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
    ) -> list[Record]:
        """The records, those of states exchanged."""
        if topic is not Topic.STATE:
            return await super().read(topic, partition, start, limit=limit, wait_s=wait_s)
        end = (await self.inner.bounds(topic, partition)).end
        made = [Record(end - len(self.stored) + i, key, value) for i, (key, value) in enumerate(self.stored.items())]
        return [record for record in made if record.offset >= start]


@dataclass(frozen=True, slots=True)
class Life:
    """A recorded life with two snapshots in some parts each, and the state that belongs to every input."""

    log: EmbeddedLog
    stored: Stored
    states: dict[int, bytes]
    newest: int
    previous: int

    def parts_of(self, revision: int) -> Stored:
        """The parts of one snapshot."""
        return {k: v for k, v in self.stored.items() if decode_checkpoint(v).revision == revision}


async def states_of(log: Log) -> dict[int, bytes]:
    """The state after every tick, from the inputs alone."""
    state, seams = PartitionState(log_id=log.log_id, partition=0), standard_seams()
    found = {}
    for record in await records_of(log, Topic.INPUTS, 0):
        if step(state, decode_input(record.offset, record.value), seams):
            found[record.offset] = export_state(state)
    return found


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Two minutes, with parts so small that a snapshot has several."""

    async def make() -> Life:
        pool, owner = await logged_pool(EmbeddedLog.create(tmp_path_factory.mktemp("life") / "log", 1, QUICK))
        pool.scripted.engines["e0-1"].slowness = 2.4
        await pool.run(owner, 125)
        assert isinstance(pool.log, EmbeddedLog)
        stored = {key: r.value for key, r in (await fold(pool.log, Topic.STATE, 0)).items() if r.value}
        previous, newest = sorted({decode_checkpoint(value).revision for value in stored.values()})
        return Life(pool.log, stored, await states_of(pool.log), newest, previous)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "PART_BYTES", 900)
        found = asyncio.run(make())
    yield found
    asyncio.run(found.log.close())


def flips(value: bytes) -> Iterator[bytes]:
    """The value with one bit changed: each bit of what surrounds the payload, and some within."""
    ends = 70 * 8
    for bit in range(len(value) * 8):
        if bit < ends or bit % 331 == 0:
            changed = bytearray(value)
            changed[bit // 8] ^= 1 << bit % 8
            yield bytes(changed)


def test_f27_snapshots_have_several_parts(life: Life) -> None:
    """What the tests below flip bits of."""
    assert len(life.parts_of(life.newest)) > 1
    assert len(life.parts_of(life.previous)) > 1


async def test_f27_after_any_flipped_bit_what_is_restored_is_the_state_of_that_input(life: Life) -> None:
    """Some thousand bits in every part of the newest: the previous snapshot, never one that is not the original."""
    tried = 0
    for key, value in life.parts_of(life.newest).items():
        for changed in flips(value):
            restored = await find_checkpoint(Replaced(life.log, {**life.stored, key: changed}), 0)
            tried += 1
            if changed != value:
                assert restored.revision in (life.previous, life.newest)
                assert life.states[restored.revision] == export_state(restored.state)

    assert tried > 1000


@pytest.mark.parametrize("field", ["revision", "epoch"])
async def test_f27_a_sound_state_in_the_name_of_another_input_is_refused(life: Life, field: str) -> None:
    """With all parts saying so alike: the payload is whole, and yet its checksum is not that of this place."""
    moved = dict(life.stored)
    for key, value in life.parts_of(life.newest).items():
        part = decode_checkpoint(value)
        moved[key] = encode_checkpoint(replace(part, **{field: getattr(part, field) + 1}))
    restored = await find_checkpoint(Replaced(life.log, moved), 0)

    assert life.previous == restored.revision
    assert any("its CRC does not match" in reason for reason in restored.refused)


async def test_f27_a_part_that_claims_4_billion_siblings_is_refused_at_once(life: Life) -> None:
    """Nothing is allocated for parts that are not there."""
    key, value = next(iter(life.parts_of(life.newest).items()))
    changed = encode_checkpoint(replace(decode_checkpoint(value), parts=2**32 - 1))
    restored = await find_checkpoint(Replaced(life.log, {**life.stored, key: changed}), 0)

    assert life.previous == restored.revision
    assert any("parts are there" in reason for reason in restored.refused)


@pytest.mark.parametrize("ends", ["front", "back"])
async def test_f27_after_any_truncation_the_previous_snapshot_is_restored(life: Life, ends: str) -> None:
    """Every part cut short anywhere, at either end."""
    for key, value in life.parts_of(life.newest).items():
        for at in range(1, len(value), 23):
            cut = value[:at] if ends == "back" else value[at:]
            restored = await find_checkpoint(Replaced(life.log, {**life.stored, key: cut}), 0)

            assert life.previous == restored.revision
            assert life.states[life.previous] == export_state(restored.state)
            assert restored.refused


async def test_f27_a_missing_part_of_both_leaves_the_inputs(life: Life) -> None:
    """Nothing is restored, both refusals say what is missing, and the state made from the inputs is the original."""
    kept = dict(life.stored)
    for revision in (life.newest, life.previous):
        del kept[next(iter(life.parts_of(revision)))]
    log = Replaced(life.log, kept)
    restored = await find_checkpoint(log, 0)

    assert -1 == restored.revision
    assert 2 == len([reason for reason in restored.refused if "parts are there" in reason])
    state, seams = restored.state, standard_seams()
    for record in await records_of(log, Topic.INPUTS, 0):
        step(state, decode_input(record.offset, record.value), seams)
        if record.offset in (life.previous, life.newest):
            assert life.states[record.offset] == export_state(state)


async def test_f27_a_state_topic_that_cannot_be_read_leaves_the_inputs(life: Life) -> None:
    """Damage below the records themselves is a reason, not an end."""

    class Broken(Replaced):
        async def read(
            self, topic: Topic, partition: int, start: int, *, limit: int = 500, wait_s: float = 0.0
        ) -> list[Record]:
            """No states."""
            if topic is Topic.STATE:
                raise LogCorrupt("state", 3, "its CRC does not match")
            return await super().read(topic, partition, start, limit=limit, wait_s=wait_s)

    restored = await find_checkpoint(Broken(life.log, {}), 0)

    assert -1 == restored.revision
    assert ("the state topic cannot be read: state: record 3 is damaged: its CRC does not match",) == restored.refused


async def test_f27_a_downgrade_is_refused_clearly_and_the_old_flyball_goes_on(tmp_path: Path) -> None:
    """A newer Flyball ran last: the older one says so, rebuilds, governs, and replaces the snapshots with its own."""
    pool, owner = await logged_pool(EmbeddedLog.create(tmp_path / "log", 1, QUICK))
    await pool.run(owner, 65)
    state, end = owner.owned[0].state, owner.owned[0].next_offset
    for slot in (0, 1):
        await pool.log.append(Topic.STATE, 0, checkpoint_entries(state, end - 1 - slot, slot, schema=SCHEMA + 1))
    older = owner_of(pool.log, "c2")
    owned = await older.take(0, WALL_S + pool.now_s)

    wanted = f"the state is of schema {SCHEMA + 1}, written by a newer Flyball; this one knows {SCHEMA}"
    assert [True, True] == [reason.endswith(wanted) for reason in owned.refused]
    assert 65 == owned.state.ticks
    await pool.run(older, 130)
    found = await find_checkpoint(pool.log, 0)
    assert ((), True) == (found.refused, found.revision > end)
    assert Verdict.IDENTICAL is (await replay_log(pool.log, standard_seams, PRINT)).verdict
    assert [] == (await check_log(pool.log)).all
    await pool.log.close()


async def test_f27_with_the_first_inputs_gone_as_well_the_standing_orders_come_back(tmp_path: Path) -> None:
    """No snapshot, and only inputs since the last claim: document, mode, pause and override are those in force."""
    pool, first = await logged_pool(EmbeddedLog.create(tmp_path / "log", 1, QUICK))
    await pool.run(first, 5)
    pin = OverrideSet(
        pool=POOL,
        override_id="o1",
        target="e0-0",
        knob=BATCH_CAP,
        value=40,
        expires_wall_s=WALL_S + 1e6,
        reason="test",
        author="op",
    )
    await pool.put(pin)
    await pool.run(first, 5)
    await pool.put(Order(pool=POOL, author="op", paused=True))
    await pool.run(first, 5)
    second = owner_of(pool.log, "c2")
    epoch = (await second.take(0, WALL_S + pool.now_s)).epoch
    await pool.run(second, 5)
    kept = Beheaded(pool.log, begin=epoch)
    third = owner_of(kept, "c3")
    owned = await third.take(0, WALL_S + pool.now_s)
    found = owned.state.pools["chat"]

    assert (POLICY, Mode.CONTROL, True, {"o1": pin}) == (found.policy_text, found.mode, found.paused, found.overrides)
    before = pool.scripted.engines["e0-0"].setting[BATCH_CAP]
    await pool.put(Order(pool=POOL, author="op", paused=False))
    await pool.run(third, 20)
    assert [40, 40] == [before, pool.scripted.engines["e0-0"].setting[BATCH_CAP]]
    assert [] == (await check_log(pool.log)).order
    await pool.log.close()
