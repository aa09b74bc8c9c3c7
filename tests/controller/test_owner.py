"""The owner and the pusher over a real log: claims, takeover, checkpoints, and what survives a bad log."""

from pathlib import Path

import pytest

from flyball_controller.checkpoints import find_checkpoint
from flyball_controller.machine import Seams, standard_seams
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.owner import INTENT_EVERY_S, Owner
from flyball_controller.pusher import Pusher
from flyball_controller.replay import Verdict, replay_log
from flyball_core.errors import LogUnavailable
from flyball_core.fencing import Version
from flyball_core.ids import LogId, OwnerId
from flyball_core.inputs import Body, Intent, Mode, Order, Proposal
from flyball_core.outputs import Directive, Heartbeat
from flyball_log import fold
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_policies.seam import Memory, PoolView
from flyball_proto.codec import decode_audit, decode_directive, decode_input, encode_directive, encode_input
from harness.invariants import check_log
from harness.logged_pool import LoggedPool, Wire, logged_pool, owner_of
from harness.odd_logs import QUICK, Beheaded, Failing, Overtaken, Renamed, copied, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import PRINT, WALL_S


def new_log(folder: Path) -> EmbeddedLog:
    """An empty log of two partitions."""
    return EmbeddedLog.create(folder / "log", 2, QUICK)


async def inputs_of(pool: LoggedPool) -> list[Body]:
    """The inputs of the pool's partition, as they are read."""
    return [decode_input(r.offset, r.value).body for r in await records_of(pool.log, Topic.INPUTS, pool.partition)]


def slow_down(pool: LoggedPool) -> None:
    """Let one engine be slow, so that settings move."""
    pool.scripted.engines["e0-1"].slowness = 2.5


async def test_a_pool_is_governed_over_a_log(tmp_path: Path) -> None:
    """Frames, ticks, pushes and answers through the log keep every promise, and move the slow engine."""
    pool, owner = await logged_pool(new_log(tmp_path))
    slow_down(pool)
    await pool.run(owner, 40)

    assert [] == (await check_log(pool.log)).all
    assert 128 > int(pool.scripted.gateways["gw0"].table["weight:e0-1"])
    assert pool.beats > 40 * 4
    await pool.log.close()


class TestTakeover:
    """A second owner takes over where the first left off, and the first stops."""

    async def test_the_first_stops_as_soon_as_it_reads_the_later_claim(self, tmp_path: Path) -> None:
        """After the successor's claim the first owner publishes nothing any more."""
        pool, first = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        await pool.run(first, 20)
        second = owner_of(pool.log, "c2")
        await second.take(pool.partition, WALL_S + pool.now_s)
        before = [(await pool.log.bounds(topic, pool.partition)).end for topic in (Topic.DECISIONS, Topic.DIRECTIVES)]
        await first.tick(pool.partition, 1.0, WALL_S + pool.now_s)
        await first.poll(pool.partition)

        assert first.owned[pool.partition].lost
        assert before == [
            (await pool.log.bounds(topic, pool.partition)).end for topic in (Topic.DECISIONS, Topic.DIRECTIVES)
        ]
        end = (await pool.log.bounds(Topic.INPUTS, pool.partition)).end
        await first.tick(pool.partition, 1.0, WALL_S + pool.now_s)

        assert end == (await pool.log.bounds(Topic.INPUTS, pool.partition)).end
        await pool.log.close()

    async def test_the_second_publishes_nothing_before_its_first_tick(self, tmp_path: Path) -> None:
        """Restoring, claiming and repeating orders leave decisions, directives and state as they were."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.run(first, 70)
        topics = (Topic.DECISIONS, Topic.DIRECTIVES, Topic.STATE)
        before = [(await pool.log.bounds(topic, pool.partition)).end for topic in topics]
        second = owner_of(pool.log, "c2")
        await second.take(pool.partition, WALL_S + pool.now_s)

        assert before == [(await pool.log.bounds(topic, pool.partition)).end for topic in topics]
        await pool.second(second)
        after = await records_of(pool.log, Topic.DECISIONS, pool.partition)

        assert second.owned[pool.partition].epoch == decode_audit(after[-1].value or b"").version.epoch
        await pool.log.close()

    async def test_receivers_see_only_strictly_newer_versions(self, tmp_path: Path) -> None:
        """Over three owners, each frozen and thawed once, every receiver's versions only grow."""
        pool, owner = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        owners = [owner]
        for number in range(2, 5):
            await pool.run(owners[-1], 15)
            owners.append(owner_of(pool.log, f"c{number}"))
            await owners[-1].take(pool.partition, WALL_S + pool.now_s)
            for old in owners[:-1]:
                await old.tick(pool.partition, 1.0, WALL_S + pool.now_s)
        await pool.run(owners[-1], 15)

        assert [] == (await check_log(pool.log)).all
        kept = await fold(pool.log, Topic.DIRECTIVES, pool.partition)
        epochs = {decode_directive(record.value or b"").version.epoch for record in kept.values()}

        assert {owners[-1].owned[pool.partition].epoch} == epochs
        await pool.log.close()

    async def test_the_state_is_restored_from_a_checkpoint(self, tmp_path: Path) -> None:
        """A successor goes on from the last checkpoint, and stands exactly where the first stood."""
        pool, first = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        await pool.run(first, 150)
        restored = await find_checkpoint(pool.log, pool.partition)
        second = owner_of(pool.log, "c2")
        owned = await second.take(pool.partition, WALL_S + pool.now_s)

        assert restored.revision > 0
        assert () == restored.refused == owned.refused
        await pool.run(second, 1)

        assert first.owned[pool.partition].state.ticks + 1 == owned.state.ticks
        assert "c2" == owned.state.owner
        await pool.log.close()

    async def test_older_checkpoints_go_once_two_of_its_own_stand(self, tmp_path: Path) -> None:
        """A successor ends its predecessor's keys only when it has two whole checkpoints itself."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.run(first, 130)
        second = owner_of(pool.log, "c2")
        epoch = (await second.take(pool.partition, WALL_S + pool.now_s)).epoch
        await pool.run(second, 70)
        mixed = {key.split(b"/")[2] for key in await fold(pool.log, Topic.STATE, pool.partition)}
        await pool.run(second, 60)
        own = {key.split(b"/")[2] for key in await fold(pool.log, Topic.STATE, pool.partition)}

        assert {b"0", str(epoch).encode()} == mixed
        assert {str(epoch).encode()} == own
        await pool.log.close()


class TestOrders:
    """Standing orders outlive retention, and no race loses one."""

    async def test_each_claim_repeats_them(self, tmp_path: Path) -> None:
        """After a takeover an intent with the document, the mode and the pause stands in the inputs."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.put(Order(pool=POOL, author="op", paused=True))
        await pool.run(first, 2)
        await owner_of(pool.log, "c2").take(pool.partition, WALL_S + pool.now_s)
        intents = [body for body in await inputs_of(pool) if isinstance(body, Intent)]

        assert [(Mode.CONTROL, True)] == [(intent.mode, intent.paused) for intent in intents]
        await pool.log.close()

    async def test_they_are_repeated_in_time(self, tmp_path: Path) -> None:
        """After a quarter of a day of the machine's time they stand in the inputs again."""
        pool, owner = await logged_pool(new_log(tmp_path))
        await pool.run(owner, 2)
        owner.owned[pool.partition].state.time_s += INTENT_EVERY_S
        await pool.run(owner, 2)

        assert 1 == len([body for body in await inputs_of(pool) if isinstance(body, Intent)])
        await pool.log.close()

    async def test_an_order_between_writing_and_appending_is_not_lost(self, tmp_path: Path) -> None:
        """A pause that overtakes the intent stands, and the intent is written again with it."""
        log = Overtaken(new_log(tmp_path), lambda entry: isinstance(decode_input(0, entry.value).body, Intent))
        pool, first = await logged_pool(log)
        await pool.run(first, 2)
        log.armed = [Entry(POOL.encode(), encode_input(Order(pool=POOL, author="op", paused=True)))]
        second = owner_of(log, "c2")
        owned = await second.take(pool.partition, WALL_S + pool.now_s)
        intents = [body for body in await inputs_of(pool) if isinstance(body, Intent)]

        assert owned.state.pools["chat"].paused
        assert [False, True] == [intent.paused for intent in intents]
        await pool.log.close()

    async def test_a_frozen_owners_intent_does_not_undo_later_orders(self, tmp_path: Path) -> None:
        """An owner that wakes up and repeats its orders cannot lift a pause that came meanwhile."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.run(first, 2)
        first.owned[pool.partition].state.time_s += INTENT_EVERY_S
        second = owner_of(pool.log, "c2")
        await second.take(pool.partition, WALL_S + pool.now_s)
        await pool.put(Order(pool=POOL, author="op", paused=True))
        await pool.run(second, 1)
        await first.tick(pool.partition, 1.0, WALL_S + pool.now_s)
        await pool.run(second, 1)

        assert second.owned[pool.partition].state.pools["chat"].paused
        await pool.log.close()

    async def test_the_retained_log_alone_restores_them(self, tmp_path: Path) -> None:
        """With the first inputs and every checkpoint gone, the intents still say how the pool is governed."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.run(first, 3)
        second = owner_of(pool.log, "c2")
        await second.take(pool.partition, WALL_S + pool.now_s)
        await pool.run(second, 3)
        log = Beheaded(pool.log, begin=second.owned[pool.partition].epoch)
        third = owner_of(log, "c3")
        owned = await third.take(pool.partition, WALL_S + pool.now_s)

        assert Mode.CONTROL is owned.state.pools["chat"].mode
        assert pool.scripted.engines.keys() == owned.state.pools["chat"].engines.keys()
        await pool.log.close()


class TestTroubles:
    """The log fails, the policy misbehaves, the checkpoint is from nowhere: the owner goes on."""

    @pytest.mark.parametrize("topic", [Topic.DECISIONS, Topic.DIRECTIVES, Topic.STATE])
    @pytest.mark.parametrize("torn", [False, True])
    async def test_what_the_log_did_not_take_is_offered_again(
        self, tmp_path: Path, topic: Topic, *, torn: bool
    ) -> None:
        """An outage between a tick and its answers loses no answer, and leaves a log that replays."""
        log = Failing(new_log(tmp_path))
        pool, owner = await logged_pool(log)
        slow_down(pool)
        await pool.run(owner, 55)
        log.refusing, log.torn = frozenset({topic}), torn
        failed = 0
        for _ in range(8):
            try:
                await pool.run(owner, 1)
            except LogUnavailable:
                failed += 1
        log.refusing = frozenset()
        await pool.run(owner, 30)
        report = await replay_log(log, standard_seams, PRINT)

        assert failed
        assert Verdict.IDENTICAL is report.verdict, report.differences
        assert 0 == report.unpublished
        assert [] == (await check_log(log)).all
        await log.close()

    async def test_a_policy_that_remembers_an_object_costs_only_the_checkpoint(self, tmp_path: Path) -> None:
        """What cannot be exported is said; the owner goes on deciding, and the inputs still restore it."""

        class Odd:
            name = "odd"

            def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
                del view
                memory["thing"] = {1, 2, 3}
                return []

        pool, _ = await logged_pool(new_log(tmp_path))
        owner = Owner(pool.log, OwnerId("c2"), lambda: Seams(slots=(PolicySlot(Odd()),)), PRINT)
        owned = await owner.take(pool.partition, WALL_S)
        await pool.run(owner, 130)

        assert 2 == len([reason for reason in owned.refused if "a set cannot be part" in reason])
        assert 130 == owned.state.ticks
        await pool.log.close()

    async def test_a_checkpoint_from_beyond_the_end_is_not_believed(self, tmp_path: Path) -> None:
        """If the log lost its end the state that knew it is refused, and the inputs are read from the start."""
        pool, first = await logged_pool(new_log(tmp_path))
        await pool.run(first, 70)
        cut = await copied(
            pool.log,
            str(tmp_path / "cut"),
            lambda topic, record: (
                [Entry(record.key, record.value)] if topic is not Topic.INPUTS or record.offset < 50 else []
            ),
        )
        log = Renamed(cut, pool.log.log_id)
        owned = await owner_of(log, "c2").take(pool.partition, WALL_S)

        assert any("the log ends at 50" in reason for reason in owned.refused)
        assert "chat" in owned.state.pools
        await cut.close()
        await pool.log.close()


class TestPusher:
    """The pusher brings what stands in the log to whoever is attached, and decides nothing."""

    async def test_a_second_pusher_brings_the_same(self, tmp_path: Path) -> None:
        """One that starts later knows the last version of every target, and pushes it once."""
        pool, owner = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        await pool.run(owner, 30)
        held = {name: engine.held for name, engine in pool.scripted.engines.items()}
        other = Pusher(pool.log)
        await other.poll()
        pool.pushed = pool.beats = 0
        for engine in pool.scripted.engines.values():
            engine.held = None
            await other.attached(Wire(engine, pool), engine.attach())
        pushed = pool.pushed - pool.beats

        assert held == {name: engine.held for name, engine in pool.scripted.engines.items()}
        assert len([version for version in held.values() if version is not None]) == pushed
        assert 0 == await other.poll()
        await pool.log.close()

    async def test_records_of_an_older_epoch_are_ignored(self, tmp_path: Path) -> None:
        """What a frozen owner still publishes after its successor is not pushed."""
        pool, first = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        await pool.run(first, 20)
        old = [r for r in await records_of(pool.log, Topic.DIRECTIVES, pool.partition) if r.value is not None]
        second = owner_of(pool.log, "c2")
        await second.take(pool.partition, WALL_S + pool.now_s)
        await pool.run(second, 2)
        await pool.log.append(Topic.DIRECTIVES, pool.partition, [Entry(r.key, r.value) for r in old])

        assert 0 == await pool.pusher.poll()
        assert pool.pusher.ignored
        await pool.log.close()

    async def test_a_refused_version_is_not_sent_again(self, tmp_path: Path) -> None:
        """Not at the next poll, and not when the receiver comes back."""
        pool, owner = await logged_pool(new_log(tmp_path))
        slow_down(pool)
        engine = pool.scripted.engines["e0-1"]
        seen: list[Directive] = []

        def refuse(directive: Directive) -> str:
            seen.append(directive)
            return "no"

        engine.refuse = refuse
        while not seen:
            await pool.second(owner)
        await pool.pusher.poll()
        await pool.pusher.attached(Wire(engine, pool), engine.attach())

        assert 1 == len(seen)
        await pool.log.close()

    async def test_it_ignores_what_it_cannot_read_and_other_logs(self, tmp_path: Path) -> None:
        """Bytes that are no directive, and directives of another log, are counted."""
        pool, owner = await logged_pool(new_log(tmp_path))
        await pool.run(owner, 3)
        strange = Heartbeat(
            pool=POOL,
            version=Version(log_id=LogId("another"), partition=0, epoch=10**6, revision=10**6),
            time_s=0.0,
            wall_s=0.0,
            hold_s=1.0,
        )
        await pool.log.append(
            Topic.DIRECTIVES, pool.partition, [Entry(b"x", b"\xff"), Entry(b"y", encode_directive(strange))]
        )

        assert 0 == await pool.pusher.poll()
        assert 2 == pool.pusher.ignored
        await pool.log.close()
