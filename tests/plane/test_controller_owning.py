"""One partition in a controller's hands: taken, ticked, kept through an outage, lost, claimed again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from flyball_controller.machine import Seams, standard_seams
from flyball_controller.machine.seams import PolicySlot
from flyball_controller.owner import Owned, Owner
from flyball_controller.serving import sharing
from flyball_controller.serving.measures import Measures, Now
from flyball_controller.serving.sharing import Sharing
from flyball_controller.serving.tenure import Office, Tenure
from flyball_controller.slow import SlowDesk, SlowRunner
from flyball_core.ids import OwnerId, PoolId
from flyball_core.inputs import Attach, Claim, PolicyText, Proposal, SlowProposal, Tick
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_policies.seam import Memory, PoolView
from flyball_proto.codec import decode_input, encode_input
from flyball_service.health import Health
from harness.logged_pool import owner_of
from harness.odd_logs import QUICK, Failing, records_of
from harness.scripted_engine import POOL, ScriptedEngine
from harness.scripted_pool import POLICY, PRINT, WALL_S
from plane_clients import TICK_S, eventually

NOTHING = Now(
    tick_age_s={},
    inputs_behind={},
    pools_by_mode={},
    stale_pools=0,
    streams_by_kind={},
    heartbeat_age_s={},
    ignored_records=0,
)


@dataclass(slots=True)
class Group:
    """A group that gives what the test says."""

    share: frozenset[int] = frozenset({0})
    joined: bool = True
    left: bool = False

    def assigned(self) -> frozenset[int]:
        """What the test says."""
        return self.share

    async def close(self) -> None:
        """Leave."""
        self.left = True


@dataclass(slots=True)
class Desk:
    """A controller's partitions, without its doors."""

    log: Failing
    office: Office
    group: Group = field(default_factory=Group)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    task: "asyncio.Task[None] | None" = None

    def start(self) -> Sharing:
        """Run what the group gives."""
        shared = Sharing(self.group, self.office.health, lambda number, ours: Tenure(number, self.office, ours))
        self.task = asyncio.create_task(shared.run())
        return shared

    async def stop(self) -> None:
        """End it."""
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
        await self.log.close()

    @property
    def owned(self) -> Owned | None:
        """What is owned of partition 0."""
        return self.office.owner.owned.get(0)

    async def ticks(self, more: int = 3) -> Owned:
        """Wait for some ticks; what ticked."""
        owned = await eventually(lambda: self.owned, lambda one: one is not None and one.state.first_tick_done)
        assert isinstance(owned, Owned)
        from_ = owned.state.ticks
        await eventually(lambda: owned.state.ticks, lambda ticks: ticks >= from_ + more)
        return owned

    async def said(self) -> list[object]:
        """The inputs of the partition."""
        return [decode_input(r.offset, r.value).body for r in await records_of(self.log, Topic.INPUTS, 0)]

    def count(self, name: str, **labels: str) -> float:
        """One of its numbers."""
        return self.registry.get_sample_value(f"flyball_controller_{name}_total", labels) or 0.0


def desk_of(folder: Path, seams: Seams | None = None, slow: SlowRunner | None = None) -> Desk:
    """A controller's partitions over a new log of one."""
    log, registry = Failing(EmbeddedLog.create(folder / "log", 1, QUICK)), CollectorRegistry()
    office = Office(
        log=log,
        owner=Owner(log, OwnerId("c1"), (lambda: seams) if seams else standard_seams, PRINT),
        health=Health(),
        measures=Measures(registry, lambda: NOTHING),
        tick_s=TICK_S,
        policies={POOL: PolicyText(pool=POOL, text=POLICY, author="config:chat.yaml")},
        desk=SlowDesk(log, slow) if slow is not None else None,
        reclaim_s=(0.1, 0.2),
    )
    return Desk(log=log, office=office, registry=registry)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A controller's partitions; ended after the test."""
    made = desk_of(tmp_path)
    yield made
    await made.stop()


async def test_it_claims_ticks_and_measures_its_intervals(desk: Desk) -> None:
    """After the claim come the file's policy and ticks: the first of no interval, then of about a period each."""
    desk.start()
    owned = await desk.ticks(5)
    said = await desk.said()
    ticks = [body for body in said if isinstance(body, Tick)]

    assert isinstance(said[0], Claim)
    assert isinstance(said[1], PolicyText)
    assert 0.0 == ticks[0].interval_s
    assert all(0.5 * TICK_S < tick.interval_s < 20 * TICK_S for tick in ticks[1:])
    assert {owned.epoch} == {tick.epoch for tick in ticks}
    assert desk.office.health.ready


async def test_who_was_attached_to_a_controller_that_died_is_so_no_more(desk: Desk) -> None:
    """The only controller of an embedded log says farewell for those that its predecessor could not."""
    attach = ScriptedEngine(name="e1", agent="a0", gpu=0).attach()
    [offset] = await desk.log.append(Topic.INPUTS, 0, [Entry(POOL.encode(), encode_input(attach))])
    desk.office = replace(desk.office, inherited={0: offset + 1})
    desk.start()
    owned = await desk.ticks()
    said = [body for body in await desk.said() if isinstance(body, Attach)]

    assert [(True, None), (False, offset)] == [(one.attached, one.ends) for one in said]
    assert not owned.state.pools[POOL].engines["e1"].attached


async def test_who_attached_before_the_first_tick_is_attached_to_us(desk: Desk) -> None:
    """Doors open before partitions are taken: only those who came before the doors opened belonged to another."""
    attaches = [ScriptedEngine(name=name, agent="a0", gpu=0).attach() for name in ("e1", "e2")]
    offsets = await desk.log.append(Topic.INPUTS, 0, [Entry(POOL.encode(), encode_input(one)) for one in attaches])
    desk.office = replace(desk.office, inherited={0: offsets[1]})
    desk.start()
    owned = await desk.ticks()
    engines = owned.state.pools[POOL].engines

    assert {"e1": False, "e2": True} == {name: engine.attached for name, engine in engines.items()}


async def test_a_partition_that_hangs_is_let_go_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the group takes a partition away that is still being taken, that is broken off."""
    monkeypatch.setattr(sharing, "LET_GO_S", 0.1)
    hanging = asyncio.Event()

    async def hang(*_: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(desk.office.owner, "take", hang)
    shared = desk.start()
    await hanging.wait()
    desk.group.share = frozenset()
    await eventually(lambda: shared.tenures, lambda tenures: not tenures)

    assert desk.office.health.ready


async def test_an_outage_of_the_log_is_waited_for_and_the_claim_is_kept(desk: Desk) -> None:
    """While the log takes nothing health says so; then the same epoch goes on, and nothing decided is lost."""
    desk.start()
    before = await desk.ticks()
    desk.log.refusing = frozenset(Topic)
    await eventually(
        lambda: desk.office.health.waiting.get("partition 0"), lambda why: why == "the log does not answer"
    )
    desk.log.refusing = frozenset()
    after = await desk.ticks()

    assert before is after
    assert 1 == sum(isinstance(body, Claim) for body in await desk.said())
    assert desk.office.health.ready
    assert 1 <= desk.count("failures", loop="owner")


async def test_a_log_that_only_hangs_is_said_to_be_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may be tried for half a minute before it fails; health says so long before, and takes it back."""
    desk.office = replace(desk.office, slow_s=0.1)
    desk.start()
    await desk.ticks()
    real, answers = desk.log.append, asyncio.Event()

    async def hang(topic: Topic, partition: int, entries: Sequence[Entry]) -> list[int]:
        await answers.wait()
        return await real(topic, partition, entries)

    monkeypatch.setattr(desk.log, "append", hang)
    await eventually(lambda: desk.office.health.waiting.get("partition 0", ""), lambda why: "slow to answer" in why)
    answers.set()
    await desk.ticks()

    assert desk.office.health.ready
    assert 0 == desk.count("failures", loop="owner")


async def test_what_could_not_be_published_is_published_later(desk: Desk) -> None:
    """Decisions that the log did not take come after the outage, each tick's once and in order."""
    desk.start()
    await desk.ticks()
    desk.log.refusing = frozenset({Topic.DECISIONS})
    await eventually(lambda: desk.office.health.waiting.get("partition 0"), bool)
    desk.log.refusing = frozenset()
    owned = await desk.ticks(5)

    assert [] == owned.unpublished
    ticked = owned.state.pools[POOL].tick
    records = await records_of(desk.log, Topic.DECISIONS, 0)
    assert ticked <= len(records)


async def test_a_later_claim_stops_it_and_it_claims_again_if_the_partition_stays_its_own(desk: Desk) -> None:
    """Another's claim ends the tenure with the other's name; as the group still gives the partition, it is retaken."""
    desk.start()
    first = await desk.ticks()
    other = owner_of(desk.log.inner, "intruder")
    theirs = await other.take(0, WALL_S)
    waiting = desk.office.health.waiting
    await eventually(lambda: waiting.get("partition 0"), lambda why: why == "intruder claimed it after us")

    assert (True, "intruder") == (first.lost, first.lost_to)
    second = await eventually(lambda: desk.owned, lambda one: one is not None and one.epoch > theirs.epoch)
    await desk.ticks()

    assert second is desk.owned
    assert (1, 2) == (desk.count("ownerships_lost"), desk.count("claims"))
    assert desk.office.health.ready


async def test_what_the_group_takes_away_is_let_go(desk: Desk) -> None:
    """A partition that the group gives to another is dropped; while the group sorts itself out it is kept."""
    shared = desk.start()
    await desk.ticks()
    desk.group.joined, desk.group.share = False, frozenset()
    await desk.ticks(5)

    assert not desk.office.health.ready
    desk.group.joined = True
    await eventually(lambda: desk.owned, lambda one: one is None)
    await eventually(lambda: shared.tenures, lambda tenures: not tenures)

    assert desk.office.health.ready
    assert desk.group.joined


async def test_a_lost_partition_that_is_no_longer_its_own_is_not_claimed_again(desk: Desk) -> None:
    """When the group has given it away meanwhile, a later claim is the end."""
    desk.start()
    await desk.ticks()
    await owner_of(desk.log.inner, "heir").take(0, WALL_S)
    desk.group.share = frozenset()
    await eventually(lambda: desk.owned, lambda one: one is None)
    await asyncio.sleep(0.5)

    assert ["c1", "heir"] == [body.owner for body in await desk.said() if isinstance(body, Claim)]


async def test_a_partition_that_the_group_gives_anew_is_claimed_at_once(desk: Desk) -> None:
    """An owner that was frozen, lost its partition and is given it again does not wait to claim it."""
    desk.office = replace(desk.office, reclaim_s=(600.0, 600.0))
    desk.start()
    await desk.ticks()
    theirs = await owner_of(desk.log.inner, "heir").take(0, WALL_S)
    desk.group.joined, desk.group.share = False, frozenset()
    await eventually(lambda: desk.owned, lambda one: one is None)
    await asyncio.sleep(0.3)
    desk.group.joined, desk.group.share = True, frozenset({0})

    assert theirs.epoch < (await desk.ticks()).epoch


async def test_after_a_long_pause_it_reads_before_it_ticks(desk: Desk, tmp_path: Path) -> None:
    """An owner that slept while another claimed says nothing more: not even a tick reaches the log."""
    del tmp_path
    desk.office = replace(desk.office, tick_s=0.5, late_s=0.0)
    desk.start()
    owned = await eventually(lambda: desk.owned, lambda one: one is not None and one.state.first_tick_done)
    theirs = await owner_of(desk.log.inner, "heir").take(0, WALL_S)
    await eventually(lambda: owned.lost, bool)
    desk.group.share = frozenset()
    after = [r for r in await records_of(desk.log, Topic.INPUTS, 0) if r.offset > theirs.epoch]

    assert not [r for r in after if isinstance(decode_input(r.offset, r.value).body, Tick)]


class Hoping:
    """A policy outside `step` that always wishes the same."""

    name = "hoping"

    def propose(self, view: PoolView, memory: Memory) -> list[Proposal]:
        """Nothing, of every snapshot."""
        del view, memory
        return []


async def test_slow_policies_are_asked_and_their_answers_come_back(tmp_path: Path) -> None:
    """Snapshots that ticks give out are answered through the inputs."""
    seams = Seams(slots=(PolicySlot(Hoping()),), slow=("hoping",))
    desk = desk_of(tmp_path, seams, SlowRunner([Hoping()]))
    attach = ScriptedEngine(name="e1", agent="a0", gpu=0).attach()
    await desk.log.append(Topic.INPUTS, 0, [Entry(POOL.encode(), encode_input(attach))])
    desk.start()
    await desk.ticks(5)
    answers = [body for body in await desk.said() if isinstance(body, SlowProposal)]
    await desk.stop()

    assert answers
    assert {(PoolId("chat"), "hoping", "")} == {(one.pool, one.policy, one.missed) for one in answers}


async def test_a_bug_in_one_partition_is_survived(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What should never be raised is counted and said, and the partition is taken anew."""
    desk.start()
    await desk.ticks()

    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(desk.office.owner, "tick", fail)
        await eventually(lambda: desk.count("failures", loop="owner"), bool)
        assert "its owner failed and begins anew" == desk.office.health.waiting.get("partition 0")
    await desk.ticks()

    assert desk.office.health.ready
