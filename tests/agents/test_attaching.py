"""An attached receiver answers, eases and finds its way back by itself, and no controller can hold it up."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import pytest

from flyball_agents.attaching import AttachState
from flyball_agents.surface import capability_hash
from flyball_core.errors import Retryable
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, Incarnation, LogId, PoolId
from flyball_core.inputs import AckStatus
from flyball_core.knobs import Value
from flyball_core.outputs import Directive, RebaseNotice
from flyball_proto.codec import pusher_message
from harness.virtual_time import in_virtual_time
from receiver_bench import CAP, LOG, POOL, SPECS, version
from scripted_controllers import ScriptedStream, World, refusing, unreachable

Clock = Callable[[], float]
T = TypeVar("T")
AT_FIRST = CAP.safe


def directive(of: Version, **values: Value) -> Directive:
    """A directive for the bench's engine."""
    return Directive(
        pool=POOL,
        engine=EngineId("e1"),
        incarnation=Incarnation(""),
        capability_hash=capability_hash(SPECS),
        version=of,
        values=values,
        decision="chat@1",
    )


def notice(log_id: str, *, target: str = "", pool: str = POOL, expires_wall_s: float = 2e9) -> RebaseNotice:
    """A rebase to that log."""
    return RebaseNotice(
        pool=PoolId(pool),
        target=target,
        version=version(7, log_id=log_id),
        author="ada",
        expires_wall_s=expires_wall_s,
    )


def test_a_stream_opens_with_an_attach_and_each_directive_is_answered(tmp_path: Path) -> None:
    """What came is applied, answered in order, and counted by what became of it."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            for revision, cap in ((5, 40), (6, 999), (7, 50)):
                world.last.push(directive(version(revision), cap=cap))
            await asyncio.sleep(0.1)

            assert [("e1", None)] == [(attach.target, attach.held) for attach in world.last.attaches]
            assert [AckStatus.APPLIED, AckStatus.NACK, AckStatus.APPLIED] == [ack.status for ack in world.last.acks]
            assert [5, 6, 7] == [ack.version.revision for ack in world.last.acks]
            assert world.bench.engine.values["cap"] == 50
            assert world.attacher.conversation.counts.acks[AckStatus.NACK] == 1
            assert world.attacher.status.state is AttachState.ATTACHED

    in_virtual_time(main)


def test_heartbeats_renew_the_lease_and_are_not_answered(tmp_path: Path) -> None:
    """Each newer heartbeat puts the lease's end off; the bench's lasts 100 s."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=40))
            await world.beats(300)

            assert 98.0 < world.attacher.lease_s() <= 100.0
            assert [None, version(5)] == [attach.held for attach in world.last.attaches]  # it held nothing at first
            assert 1 == len(world.last.acks)
            assert 300 == world.attacher.conversation.counts.renewals

    in_virtual_time(main)


def test_a_silent_controller_is_left_for_the_next(tmp_path: Path) -> None:
    """Ten seconds after its last message, no matter that the stream shows no error."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock, ("one:1", "two:2")) as world:
            await world.beats(5)
            first, left_s = world.last, clock()
            while world.last is first:
                await asyncio.sleep(0.1)

            assert 8.9 <= world.last.opened_s - left_s <= 9.5
            assert first.closed
            assert first.place != world.last.place
            assert 1 == world.attacher.status.silences
            assert ("seeking_controller", "said nothing for 10 s") == (world.told[-1][0], world.told[-1][1]["why"])

    in_virtual_time(main)


def test_easing_begins_when_the_lease_ends_and_moves_four_times_a_second(tmp_path: Path) -> None:
    """The end of a lease waits for no poll that comes by the second, and what moves then moves in small steps."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=64))
            world.last.push(world.heartbeat(6, hold_s=20.4))
            await asyncio.sleep(20.3)
            assert 64 == world.bench.engine.values["cap"]
            began_s = clock()
            caps: dict[Value, float] = {}
            while clock() < began_s + 6.0:
                await asyncio.sleep(0.05)
                caps.setdefault(world.bench.engine.values["cap"], round(clock() - began_s, 2))
            first, second = list(caps.values())[1:3]

            assert first <= 0.1 + 0.25 + 0.06
            assert 0.2 <= second - first <= 0.31
            assert CAP.safe == world.bench.engine.values["cap"]

    in_virtual_time(main)


def test_while_values_ease_and_nobody_speaks_the_attach_is_said_anew_every_second(tmp_path: Path) -> None:
    """Behind a line that is cut the last of them is a second old at most when it gets through; heard, none follows."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=256))
            world.last.push(world.heartbeat(6, hold_s=3.0))
            await asyncio.sleep(2.9)
            before = len(world.last.attaches)
            await asyncio.sleep(3.0)
            said = [attach.effective["cap"] for attach in world.last.attaches[before:]]
            now = world.bench.engine.values["cap"]
            world.last.push(world.heartbeat(7, hold_s=3.0))
            await asyncio.sleep(2.0)
            after = [attach.effective["cap"] for attach in world.last.attaches[before + len(said) :]]

            assert [256, 154, 93] == said
            assert 56 <= int(now) < 93
            assert [now] == after

    in_virtual_time(main)


def test_a_controller_that_takes_nothing_is_left(tmp_path: Path) -> None:
    """A message of ours that is not taken within 5 s ends the stream."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            first = world.last
            first.push(world.heartbeat(1))
            await asyncio.sleep(1.0)
            first.stuck = True
            first.push(directive(version(5), cap=40))
            await asyncio.sleep(4.9)
            assert not first.closed
            await asyncio.sleep(2.0)

            assert first.closed
            assert version(5) == world.last.attaches[0].held

    in_virtual_time(main)


def test_all_places_are_tried_and_pauses_grow(tmp_path: Path) -> None:
    """Names that mean several controllers, one of them unknown: each place in turn, at most 5 s between two."""

    async def main(clock: Clock) -> None:
        world = World(tmp_path, clock, ("many:1", "gone:2", "one:3"))
        world.resolved = {"many:1": ["10.0.0.1:1", "10.0.0.2:1"], "gone:2": []}
        world.on_open = unreachable
        async with world:
            await asyncio.sleep(600.0)
        times = [stream.opened_s for stream in world.streams]
        places = [stream.place.address for stream in world.streams]

        assert {"10.0.0.1:1", "10.0.0.2:1", "one:3"} == set(places[:3]) == set(places[3:6])
        assert "many" == next(stream.place.host for stream in world.streams if stream.place.address == "10.0.0.1:1")
        assert max(b - a for a, b in pairwise(times)) <= 5.01
        assert times[3] < 3.0
        assert 120 < len(times) < 600
        assert 1 == sum(event == "seeking_controller" for event, _ in world.told)

    in_virtual_time(main)


def test_receivers_spread_over_controllers(tmp_path: Path) -> None:
    """Thirty receivers with the same list do not all begin with the same controller."""

    async def main(clock: Clock) -> None:
        first = []
        for seed in range(30):
            async with World(tmp_path / str(seed), clock, ("one:1", "two:2", "three:3"), seed) as world:
                first.append(world.last.place.address)

        assert all(first.count(address) >= 4 for address in ("one:1", "two:2", "three:3"))

    in_virtual_time(main)


def test_a_refusal_is_shown_and_asked_again_slowly(tmp_path: Path) -> None:
    """Another engine of that name: never gone around by another controller, said once, asked ever more rarely."""

    async def main(clock: Clock) -> None:
        world = World(tmp_path, clock, ("one:1", "two:2"))
        world.on_open = refusing
        async with world:
            await asyncio.sleep(600.0)
            asked = len(world.streams)

            assert 1 == len({stream.place for stream in world.streams})
            assert 10 < asked < 60
            assert "refused" == world.attacher.status.state.value
            assert "incarnation i0 is attached" in world.attacher.status.why
            assert asked == world.attacher.status.refusals
            assert ["attach_refused"] == [event for event, _ in world.told]
            world.on_open = lambda stream: stream.push(world.heartbeat(1))
            await asyncio.sleep(61.0)

            assert "attached" == world.attacher.status.state.value

    in_virtual_time(main)


def test_it_eases_unattached_and_tells_the_owner(tmp_path: Path) -> None:
    """With all controllers gone the lease runs out, and whoever comes back is told what was eased."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=256))
            await asyncio.sleep(1.0)
            world.on_open = unreachable
            world.last.push(Retryable("UNAVAILABLE: gone"))
            await asyncio.sleep(95.0)
            assert world.bench.engine.values["cap"] == 256
            await asyncio.sleep(6.0)
            assert 16 < int(world.bench.engine.values["cap"]) < 256
            await asyncio.sleep(20.0)
            assert world.bench.engine.values["cap"] == CAP.safe
            world.on_open = lambda _: None
            await asyncio.sleep(20.0)

            assert (version(5), CAP.safe) == (world.last.attaches[0].held, world.last.attaches[0].effective["cap"])

    in_virtual_time(main)


def test_it_attaches_anew_when_easing_begins_ends_and_is_done(tmp_path: Path) -> None:
    """Heartbeats that renew nothing keep the stream but not the lease: the owner sees each turn on it."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=64))
            old = world.heartbeat(5)
            for _ in range(101):
                world.last.push(old)
                await asyncio.sleep(1.0)
            assert [AT_FIRST, 64, 64] == [attach.effective["cap"] for attach in world.last.attaches]  # taken, begun
            for _ in range(10):
                world.last.push(old)
                await asyncio.sleep(1.0)
            assert [AT_FIRST, 64, 64, CAP.safe] == [attach.effective["cap"] for attach in world.last.attaches]  # done
            world.last.push(directive(version(6), cap=50))
            await asyncio.sleep(2.0)

            assert [AT_FIRST, 64, 64, CAP.safe, 50] == [attach.effective["cap"] for attach in world.last.attaches]

    in_virtual_time(main)


def test_it_attaches_anew_when_its_knobs_change(tmp_path: Path) -> None:
    """A gateway's engines come and go: the owner learns of it within a poll, on the stream that is open."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            await world.beats(3)
            world.bench.engine.specs = SPECS[:3]
            await world.beats(3, first=2000)

            assert [5, 5, 3] == [len(attach.knobs) for attach in world.last.attaches]
            assert 1 == len(world.streams)

    in_virtual_time(main)


def test_a_rebase_frees_from_the_old_log(tmp_path: Path) -> None:
    """It attaches anew holding nothing, takes the new log's versions, and knows the old log no more."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=40))
            world.last.push(notice("log-b"))
            world.last.push(directive(version(1, log_id="log-b"), cap=50))
            world.last.push(directive(version(9), cap=60))
            await asyncio.sleep(0.1)

            assert [AckStatus.APPLIED, AckStatus.APPLIED, AckStatus.NACK] == [ack.status for ack in world.last.acks]
            assert [None, None] == [attach.held for attach in world.last.attaches]
            assert LogId("log-b") == world.bench.receiver.held.log_id
            assert any("rebase by ada, was log-a" in line for line in world.bench.audit())

    in_virtual_time(main)


@pytest.mark.parametrize(
    "beside",
    [
        notice(LOG),
        notice("log-b", target="e2"),
        notice("log-b", pool="other"),
        notice("log-b", expires_wall_s=1.0),
        replace(notice("log-b"), author=""),
        replace(notice("log-b"), version=version(7, log_id="")),
    ],
    ids=["same log", "another engine", "another pool", "expired", "nobody's", "no log"],
)
def test_a_rebase_that_does_not_concern_it_changes_nothing(tmp_path: Path, beside: RebaseNotice) -> None:
    """Only another log's notice for this very receiver, by somebody, that has not expired, is followed."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=40))
            world.last.push(world.heartbeat(6))
            world.last.push(beside)
            await asyncio.sleep(0.1)

            assert version(5) == world.bench.receiver.held.version
            assert (1, 0) == (len(world.last.attaches), world.attacher.conversation.counts.rebases)

    in_virtual_time(main)


def test_what_cannot_be_read_is_refused_for_good(tmp_path: Path) -> None:
    """A value of a kind not known here: a Nack, also when the same version comes again and can be read."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            message = pusher_message(directive(version(5)))
            message.directive.values["cap"].SetInParent()
            world.last.push(message)
            world.last.push(directive(version(5), cap=40))
            world.last.push(type(message)())
            await asyncio.sleep(0.1)

            assert [AckStatus.NACK] * 2 == [ack.status for ack in world.last.acks]
            assert "cannot be read: a value carries none" in world.last.acks[1].reason
            assert 2 == world.attacher.conversation.counts.unreadable
            assert AttachState.ATTACHED is world.attacher.status.state

    in_virtual_time(main)


def test_an_engine_that_cannot_say_what_it_has_is_attached_when_it_can(tmp_path: Path) -> None:
    """Its troubles are counted and told once; nothing breaks, and nothing is asked of controllers meanwhile."""

    async def main(clock: Clock) -> None:
        world = World(tmp_path, clock)
        world.bench.engine.knobless = True
        async with world:
            await asyncio.sleep(30.0)
            assert [] == [said for stream in world.streams for said in stream.said]
            assert world.attacher.status.troubles > 20
            assert 1 == sum(event == "surface_failed" for event, _ in world.told)
            world.bench.engine.knobless = False
            await asyncio.sleep(16.0)

            assert 1 == len(world.last.attaches)

    in_virtual_time(main)


def test_an_audit_that_cannot_be_written_keeps_the_receiver_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebase that cannot be put on record is not followed; the stream goes on, and a later one is."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            world.last.push(directive(version(5), cap=40))
            await asyncio.sleep(0.1)
            audit = world.bench.store.audit

            def full(*_: object) -> None:
                raise OSError("no space left")

            monkeypatch.setattr(type(world.bench.store), "audit", full)
            world.last.push(notice("log-b"))
            await asyncio.sleep(0.1)
            assert (version(5), 1) == (world.bench.receiver.held.version, world.attacher.status.troubles)
            monkeypatch.setattr(type(world.bench.store), "audit", lambda _, *rest: audit(*rest))
            world.last.push(notice("log-b"))
            await asyncio.sleep(0.1)

            assert (None, 1) == (world.bench.receiver.held.version, len(world.streams))

    in_virtual_time(main)


def test_calls_on_the_receiver_never_overlap(tmp_path: Path) -> None:
    """Wherever they are run aside, a poll waits for an answer under way, and an answer for a poll."""

    async def main(clock: Clock) -> None:
        world = World(tmp_path, clock)
        inside = [0]

        async def slowly(act: Callable[[], T]) -> T:
            inside[0] += 1
            assert inside == [1]
            await asyncio.sleep(0.4)
            result = act()
            inside[0] -= 1
            return result

        around = replace(world.attacher._around, aside=slowly)  # noqa: SLF001 - its surroundings are as the test says
        world.attacher._around = around  # noqa: SLF001 - as above
        async with world:
            await asyncio.sleep(1.0)
            stream = world.last
            for revision in range(20):
                stream.push(directive(version(revision), cap=40 + revision))
            await asyncio.sleep(30.0)

            assert 20 == len(stream.acks)

    in_virtual_time(main)


def test_a_stopped_attacher_leaves_no_stream(tmp_path: Path) -> None:
    """Stopping closes the stream that is open."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            stream: ScriptedStream = world.last
        assert stream.closed

    in_virtual_time(main)


def test_a_fleet_comes_back_scattered(tmp_path: Path) -> None:
    """A controller that breaks off with fifty receivers does not see them all in the same tenth of a second."""

    async def main(clock: Clock) -> None:
        worlds = [World(tmp_path / str(seed), clock, ("one:1",), seed) for seed in range(50)]
        times = []
        for world in worlds:
            async with world:
                world.last.push(world.heartbeat(1))
                world.last.push(world.heartbeat(2))
                await asyncio.sleep(1.0)
                start_s = clock()
                world.last.push(Retryable("UNAVAILABLE: gone"))
                await asyncio.sleep(1.0)
                times.append(world.last.opened_s - start_s)

        assert max(times) <= 0.26
        assert max(sum(a <= t < a + 0.05 for t in times) for a in (0.0, 0.05, 0.1, 0.15, 0.2)) < 25

    in_virtual_time(main)
