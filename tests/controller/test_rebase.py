"""Receivers that hold another log's version: an alarm, an operator's rebase, and what the pusher does with it.

Also two engines under one name, which the machine cannot tell apart by name alone.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from flyball_controller.machine.orders import MAX_REBASES, REBASE_S
from flyball_controller.machine.state import PoolState
from flyball_controller.pusher import Message, Pusher
from flyball_core.fencing import Version
from flyball_core.ids import Incarnation, LogId
from flyball_core.inputs import Attach, Rebase, TargetKind
from flyball_core.outputs import DecisionRecord, Heartbeat, RebaseNotice, RecordKind, Tombstone, compacted_key
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import encode_directive
from harness.odd_logs import QUICK
from harness.scripted_engine import POOL
from harness.scripted_pool import LOG_ID, WALL_S, ScriptedPool, scripted_pool

ELSEWHERE = Version(log_id=LogId("another log"), partition=0, epoch=7, revision=900)


@pytest.fixture
def pool() -> ScriptedPool:
    """A pool in control, some seconds old."""
    made = scripted_pool()
    made.run(5)
    return made


def machine(pool: ScriptedPool) -> PoolState:
    """The machine's view of the pool."""
    return pool.state.pools[POOL]


def foreign(pool: ScriptedPool, name: str = "e0-0") -> Attach:
    """An engine's attach that holds another log's version."""
    return replace(pool.engines[name].attach(), held=ELSEWHERE)


def notices(pool: ScriptedPool) -> list[RebaseNotice]:
    """The notices published so far."""
    return [output for output in pool.log.outputs if isinstance(output, RebaseNotice)]


def orders(pool: ScriptedPool) -> list[DecisionRecord]:
    """What was recorded about orders after the policy document."""
    return pool.log.decisions(RecordKind.ORDER)[1:]


class TestOrder:
    """What the machine makes of another log's version and of an operator's rebase."""

    def test_a_version_of_another_log_raises_one_alarm(self, pool: ScriptedPool) -> None:
        """However often the engine attaches with it, it is recorded once, and stands in the state."""
        for _ in range(3):
            pool.put(foreign(pool))
            pool.tick()
        said = [r.summary for r in pool.log.decisions(RecordKind.ALARM) if "another log" in r.summary]

        assert ["e0-0 holds a version of another log, another log: it takes nothing until a rebase"] == said
        assert "another log" == machine(pool).engines["e0-0"].holding.foreign_log

    def test_a_rebase_is_published_at_the_next_tick_once(self, pool: ScriptedPool) -> None:
        """The notice carries the order's own version and an expiry; the next ticks do not repeat it."""
        pool.put(Rebase(pool=POOL, target="e0-0", author="ada", reason="made anew"))
        offset = len(pool.log.inputs) - 1
        pool.tick()
        pool.tick()
        [notice] = notices(pool)

        assert (offset, "ada", "e0-0") == (notice.version.revision, notice.author, notice.target)
        assert WALL_S + 5 + REBASE_S == notice.expires_wall_s
        assert ["ada rebases e0-0: made anew"] == [record.summary for record in orders(pool)]
        assert f"{POOL}@{offset}" == orders(pool)[0].decision

    @pytest.mark.parametrize(
        ("order", "why"),
        [
            (Rebase(pool=POOL, target="e9", author="ada", reason=""), "there is no 'e9' in this pool"),
            (Rebase(pool=POOL, target="", author="", reason=""), "it names no author"),
        ],
    )
    def test_a_rebase_that_cannot_be_is_refused(self, pool: ScriptedPool, order: Rebase, why: str) -> None:
        """A stranger's name or no author: nothing is published, and the record is a refusal with the reason."""
        pool.put(order)
        pool.tick()

        assert [] == notices(pool)
        assert [(f"rebase refused: {why}", True)] == [(record.summary, record.refused) for record in orders(pool)]

    def test_rebases_at_one_tick_are_bounded(self, pool: ScriptedPool) -> None:
        """Beyond the bound they are refused, so that no flood fills the state."""
        for _ in range(MAX_REBASES + 3):
            pool.put(Rebase(pool=POOL, target="", author="ada", reason=""))
        pool.tick()

        assert MAX_REBASES == len(notices(pool))
        assert 3 == sum(record.refused for record in orders(pool))

    def test_a_rebased_engine_is_told_without_back_off(self, pool: ScriptedPool) -> None:
        """What it refused for the other log's sake does not delay what it is told after the rebase."""
        pool.put(foreign(pool))
        holding = machine(pool).engines["e0-0"].holding
        holding.backoff_s = holding.not_before_s = 300.0
        pool.put(replace(pool.engines["e0-0"].attach(), held=None))
        pool.tick()

        assert ("", 0.0, 0.0) == (holding.foreign_log, holding.backoff_s, holding.not_before_s)

    def test_a_new_owner_ends_the_notices_of_the_old_one(self, pool: ScriptedPool) -> None:
        """The compacted key of an earlier epoch gets its tombstone with the first notice of the next."""
        pool.put(Rebase(pool=POOL, target="", author="ada", reason=""))
        pool.tick()
        [first] = notices(pool)
        pool.claim("c2")
        pool.tick()
        pool.put(Rebase(pool=POOL, target="", author="ada", reason=""))
        pool.tick()

        assert Tombstone(key=compacted_key(first)) in pool.log.outputs


class TestTwoOfOneName:
    """A second engine that goes by the name of the first, through another controller."""

    def test_it_is_an_alarm_if_the_first_had_not_left(self, pool: ScriptedPool) -> None:
        """The later attach stands; the record names both incarnations."""
        pool.put(replace(pool.engines["e0-0"].attach(), incarnation=Incarnation("other")))
        pool.tick()

        assert "e0-0: incarnation other came while i0 had not left" in [
            record.summary for record in pool.log.decisions(RecordKind.ALARM)
        ]
        assert "other" == machine(pool).engines["e0-0"].incarnation

    def test_it_is_none_after_the_first_has_left(self, pool: ScriptedPool) -> None:
        """A restart in good order raises no such alarm."""
        pool.put(
            Attach(pool=POOL, kind=TargetKind.ENGINE, target="e0-0", incarnation=Incarnation("i0"), attached=False)
        )
        pool.put(replace(pool.engines["e0-0"].attach(), incarnation=Incarnation("i1")))
        pool.tick()

        assert not [r for r in pool.log.decisions(RecordKind.ALARM) if "had not left" in r.summary]

    @pytest.mark.parametrize("kind", TargetKind)
    def test_a_late_farewell_does_not_take_the_successor_away(self, pool: ScriptedPool, kind: TargetKind) -> None:
        """An incarnation that is gone already cannot say that its successor left."""
        name = "e0-0" if kind is TargetKind.ENGINE else "gw0"
        pool.put(Attach(pool=POOL, kind=kind, target=name, incarnation=Incarnation("long gone"), attached=False))
        pool.tick()
        known = machine(pool).engines[name] if kind is TargetKind.ENGINE else machine(pool).gateways[name]

        assert known.attached
        assert 1 == machine(pool).counts["detaches_of_another_incarnation"]


class Heard:
    """A link that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def send(self, message: Message) -> None:
        """Keep it."""
        self.messages.append(message)

    def rebases(self) -> list[RebaseNotice]:
        """The notices among it."""
        return [message for message in self.messages if isinstance(message, RebaseNotice)]


async def publish(log: Log, message: RebaseNotice | Heartbeat) -> None:
    """Write a record of the directives topic, as an owner would."""
    entry = Entry(compacted_key(message).encode(), encode_directive(message))
    await log.append(Topic.DIRECTIVES, log.partition_of(POOL), [entry])


def notice_in(log: Log, revision: int = 5, target: str = "") -> RebaseNotice:
    """A notice of this log."""
    version = Version(log_id=log.log_id, partition=log.partition_of(POOL), epoch=1, revision=revision)
    return RebaseNotice(pool=POOL, target=target, version=version, author="ada", expires_wall_s=WALL_S + REBASE_S)


def beat_in(log: Log, revision: int, wall_s: float) -> Heartbeat:
    """A heartbeat of this log."""
    version = Version(log_id=log.log_id, partition=log.partition_of(POOL), epoch=1, revision=revision)
    return Heartbeat(pool=POOL, version=version, time_s=0.0, wall_s=wall_s, hold_s=60.0)


class TestPusher:
    """Who is handed a notice."""

    async def test_who_is_at_home_in_this_log_is_not_handed_it(self, tmp_path: Path) -> None:
        """Of the attached, those that do not hold a version of this log; later comers too, until it expires."""
        log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
        pusher = Pusher(log)
        scripted = scripted_pool(policy="")
        stranger, own, late, too_late = Heard(), Heard(), Heard(), Heard()
        await pusher.attached(stranger, foreign(scripted))
        at_home = Version(log_id=log.log_id, partition=0, epoch=1, revision=2)
        await pusher.attached(own, replace(scripted.engines["e0-1"].attach(), held=at_home))
        await publish(log, beat_in(log, 4, WALL_S))
        await publish(log, notice_in(log))
        await pusher.poll()
        await pusher.poll()
        await pusher.attached(late, foreign(scripted, "e1-0"))
        await publish(log, beat_in(log, 6, WALL_S + REBASE_S + 1))
        await pusher.poll()
        await pusher.attached(too_late, foreign(scripted, "e1-1"))

        assert [1, 0, 1, 0] == [len(heard.rebases()) for heard in (stranger, own, late, too_late)]
        await log.close()

    async def test_a_notice_for_one_is_not_for_the_others(self, tmp_path: Path) -> None:
        """A named target alone is handed it, and an older notice changes nothing."""
        log = EmbeddedLog.create(tmp_path / "log", 1, QUICK)
        pusher = Pusher(log)
        scripted = scripted_pool(policy="")
        named, other = Heard(), Heard()
        await pusher.attached(named, foreign(scripted))
        await pusher.attached(other, foreign(scripted, "e0-1"))
        await publish(log, notice_in(log, target="e0-0"))
        await publish(log, notice_in(log, revision=3, target="e0-0"))
        await pusher.poll()

        assert [5] == [notice.version.revision for notice in named.rebases()]
        assert [] == other.rebases()
        assert LOG_ID != log.log_id
        await log.close()
