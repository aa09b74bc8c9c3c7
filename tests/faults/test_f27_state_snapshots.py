"""Fault 27: a stored state is corrupt, or of an older or newer version.

Never a crash loop: the previous snapshot, or the inputs, rebuild what was; the rebuilt
state equals the original; a downgrade is refused in a clear sentence.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.checkpoints import checkpoint_entries, find_checkpoint
from flyball_controller.machine import standard_seams, step
from flyball_controller.machine.export import OLDEST_SCHEMA, SCHEMA, export_state
from flyball_controller.owner import Owner
from flyball_controller.replay import Verdict, replay_log
from flyball_core.ids import LogId
from flyball_core.inputs import Claim, Intent
from flyball_log import fold
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_proto.codec import CheckpointPart, decode_checkpoint, decode_input, encode_checkpoint
from harness.invariants import check_log
from harness.logged_pool import LoggedPool, logged_pool, owner_of
from harness.odd_logs import QUICK, records_of
from harness.scripted_pool import PRINT, WALL_S


async def lived(folder: Path) -> tuple[LoggedPool, Owner]:
    """A pool over a log with two checkpoints, at 59 and 119 s, and half a minute after them."""
    pool, owner = await logged_pool(EmbeddedLog.create(folder / "log", 1, QUICK))
    pool.scripted.engines["e0-1"].slowness = 2.4
    await pool.run(owner, 150)
    return pool, owner


async def damage(
    log: EmbeddedLog, change: Callable[[CheckpointPart], CheckpointPart | bytes | None], *, both: bool
) -> None:
    """Write other bytes under the keys of the newest stored state, or of both."""
    found = {key: decode_checkpoint(r.value or b"") for key, r in (await fold(log, Topic.STATE, 0)).items()}
    newest = max(part.revision for part in found.values())
    for key, part in found.items():
        if both or part.revision == newest:
            changed = change(part)
            value = encode_checkpoint(changed) if isinstance(changed, CheckpointPart) else changed
            await log.append(Topic.STATE, 0, [Entry(key, value)])


def flipped(part: CheckpointPart) -> CheckpointPart:
    """One bit of the payload is another."""
    changed = bytearray(part.payload)
    changed[len(changed) // 2] ^= 1
    return replace(part, payload=bytes(changed))


DAMAGES: dict[str, tuple[Callable[[CheckpointPart], CheckpointPart | bytes | None], str]] = {
    "a flipped bit": (flipped, "its CRC does not match"),
    "cut short": (lambda part: replace(part, payload=part.payload[:-9]), "its CRC does not match"),
    "a part missing": (lambda part: replace(part, parts=part.parts + 1), "parts are there"),
    "no checkpoint": (lambda _part: b"\xff\xff\xff", "not a Checkpoint"),
    "empty": (lambda _part: b"", ""),
    "gone": (lambda _part: None, ""),
    "of a newer version": (
        lambda part: replace(part, schema=SCHEMA + 1),
        f"the state is of schema {SCHEMA + 1}, written by a newer Flyball; this one knows {SCHEMA}",
    ),
    "of an older version": (
        lambda part: replace(part, schema=OLDEST_SCHEMA - 1),
        f"schema {OLDEST_SCHEMA - 1}, too old",
    ),
    "of another log": (lambda part: replace(part, log_id=LogId("another")), "it is of another log or partition"),
    "of another partition": (lambda part: replace(part, partition=7), "it is of another log or partition"),
}


@pytest.mark.parametrize("both", [False, True], ids=["the newest", "both"])
@pytest.mark.parametrize("what", DAMAGES)
async def test_f27_the_state_is_rebuilt_and_equals_the_original(tmp_path: Path, what: str, *, both: bool) -> None:
    """Whatever is wrong with the newest snapshot, or with both: the successor stands where the first owner stood."""
    pool, owner = await lived(tmp_path)
    log = pool.log
    assert isinstance(log, EmbeddedLog)
    change, words = DAMAGES[what]
    await damage(log, change, both=both)
    original = export_state(owner.owned[0].state)
    restored = await find_checkpoint(log, 0)
    successor = owner_of(log, "c2")
    owned = await successor.take(0, WALL_S + pool.now_s)
    await owner.poll(0)

    assert any(words in reason for reason in owned.refused) or not words
    assert (-1 if both else 0) <= restored.revision
    assert both == (restored.revision == -1)
    assert original == await original_of(log, restored.revision)
    await pool.run(successor, 5)
    assert Verdict.IDENTICAL is (await replay_log(log, standard_seams, PRINT)).verdict
    assert [] == (await check_log(log)).all
    await log.close()


async def original_of(log: EmbeddedLog, revision: int) -> bytes:
    """The state that the snapshot and the inputs after it give, up to where the first owner stood."""
    restored = await find_checkpoint(log, 0)
    state, seams = restored.state, standard_seams()
    for record in (await records_of(log, Topic.INPUTS, 0))[revision + 1 :]:
        item = decode_input(record.offset, record.value)
        if record.offset > 1 and isinstance(item.body, (Claim, Intent)):
            break
        step(state, item, seams)
    return export_state(state)


@pytest.mark.parametrize("what", ["a flipped bit", "of a newer version", "no checkpoint"])
async def test_f27_ten_starts_in_a_row_are_no_crash_loop(tmp_path: Path, what: str) -> None:
    """With nothing but damaged snapshots every start comes up, and says the same reason each time."""
    pool, _ = await lived(tmp_path)
    log = pool.log
    assert isinstance(log, EmbeddedLog)
    change, words = DAMAGES[what]
    await damage(log, change, both=True)
    for number in range(10):
        owned = await owner_of(log, f"c{number + 2}").take(0, WALL_S + pool.now_s)

        assert any(words in reason for reason in owned.refused)
        assert "chat" in owned.state.pools
    await log.close()


async def test_f27_a_state_topic_damaged_on_disk_is_rebuilt_from_the_inputs(tmp_path: Path) -> None:
    """Every byte of the stored states turned over: the owner starts, decides and replays."""
    pool, owner = await lived(tmp_path)
    await pool.log.close()
    for file in (tmp_path / "log" / "state" / "0").iterdir():
        content = file.read_bytes()
        if len(content) > 500:
            file.write_bytes(content[:100] + bytes(byte ^ 0xFF for byte in content[100:]))
    log = EmbeddedLog.open(tmp_path / "log", settings=QUICK)
    successor = owner_of(log, "c2")
    owned = await successor.take(0, WALL_S + pool.now_s)

    assert owner.owned[0].state.ticks == owned.state.ticks
    assert owned.state.pools["chat"].engines.keys() == owner.owned[0].state.pools["chat"].engines.keys()
    assert Verdict.IDENTICAL is (await replay_log(log, standard_seams, PRINT)).verdict
    await log.close()


async def test_f27_a_snapshot_in_several_parts_is_put_together_or_refused(tmp_path: Path) -> None:
    """A state of more than one record comes back whole; with one of its parts gone it is refused."""
    pool, owner = await lived(tmp_path)
    log, state = pool.log, owner.owned[0].state
    state.pools["chat"].memory["large"] = {"list": [i * 0.37 for i in range(200_000)]}
    entries = checkpoint_entries(state, 10**6, 0)
    await log.append(Topic.STATE, 0, entries)

    assert len(entries) > 1
    assert 10**6 == (await find_checkpoint(log, 0)).revision
    await log.append(Topic.STATE, 0, [Entry(entries[-1].key, None)])
    refused = await find_checkpoint(log, 0)

    assert 10**6 > refused.revision
    assert f"only {len(entries) - 1} of {len(entries)} parts are there" in "".join(refused.refused)
    await log.close()
