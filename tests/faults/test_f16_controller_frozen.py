"""Fault 16: the controller that owns a pool freezes with decisions in its hands, and comes back after its successor."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyball_core.inputs import Tick
from flyball_core.outputs import Directive
from flyball_log import Log, Topic, open_log, scan
from flyball_proto.codec import decode_audit, decode_directive, decode_input
from kafka_broker import kafka_broker as kafka_broker
from laboratory.fleet import Fleet, events, new_topics
from laboratory.lab_freezing import MODULE, freeze_file
from laboratory.processes import Actor, Actors, until
from laboratory.record import read_record
from laboratory.scale import report, scaled

FROZEN_S = scaled(13.0, 60.0)
CLAIMED_WITHIN_S = 20.0
TOLD_WITHIN_S = 20.0
STOPS_WITHIN_S = 1.0
WATCHED_S = scaled(2.0, 30.0)
"""For so long after that the zombie is listened to."""
UP_S = 60.0
"""Longest start of a fleet on a machine that is busy; no promise."""
BACK_S = 20.0
"""Longest until those are served who know no other controller than the one that came back."""
FAITHFUL = ("f0", "f1")
"""Engines that know the controller that freezes, and no other."""
FREE = ("e0", "e1", "e2", "e3")
"""Engines that know both, attached to the one that freezes."""


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Said:
    """A record of the log that one owner is answerable for."""

    topic: str
    offset: int
    epoch: int
    directive: bool = False


async def said_by_owners(log: Log) -> list[Said]:
    """Every tick, every record of the audit, and everything told to receivers, in the order of each topic."""
    found = []
    async for records in scan(log, Topic.INPUTS, 0):
        for record in records:
            body = decode_input(record.offset, record.value).body
            if isinstance(body, Tick):
                found.append(Said(topic="inputs", offset=record.offset, epoch=body.epoch))
    async for records in scan(log, Topic.DECISIONS, 0):
        for record in records:
            epoch = decode_audit(record.value or b"").version.epoch
            found.append(Said(topic="decisions", offset=record.offset, epoch=epoch))
    async for records in scan(log, Topic.DIRECTIVES, 0):
        for record in records:
            told = decode_directive(record.value) if record.value else None
            if told is not None:
                epoch, directive = told.version.epoch, isinstance(told, Directive)
                found.append(Said(topic="directives", offset=record.offset, epoch=epoch, directive=directive))
    return found


async def frozen_at_work(fleet: Fleet, zombie: Actor) -> float:
    """Order the fleet about until its owner has frozen with directives that it has told nobody. When that was."""
    freeze_file(fleet.folder / f"{zombie.name}.yaml").touch()
    asking = [asyncio.create_task(fleet.order("c2", engine, 50, within_s=5.0)) for engine in (*FREE, *FAITHFUL)]
    await until("an owner that stands still", lambda: stands_still(zombie), UP_S, every_s=0.01)
    frozen_s = time.time()
    zombie.freeze()
    assert "taken" not in await asyncio.gather(*asking)
    return frozen_s


def stands_still(actor: Actor) -> bool:
    """Whether the process is stopped."""
    return Path(f"/proc/{actor.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def first_told_s(fleet: Fleet, epoch: int) -> dict[str, float]:
    """By engine, when it first applied something of this epoch."""
    found: dict[str, float] = {}
    for line in read_record(fleet.record).applied:
        if line.version.epoch == epoch:
            found.setdefault(line.target, line.at_s)
    return found


async def a_fleet(actors: Actors, where: str) -> Fleet:
    """Two controllers, and engines that hold what was ordered, all attached to the first, which owns their pool."""
    fleet = Fleet(actors, where)
    first, second = (fleet.controller(name, MODULE) for name in ("c1", "c2"))
    first.start()
    fleet.engines("faithful", FAITHFUL, controllers=["c1"]).start()
    fleet.engines("free", FREE).start()
    await until("every engine", lambda: fleet.attached((*FAITHFUL, *FREE)), UP_S)
    second.start()
    await until("a second controller", lambda: fleet.ready("c2"), UP_S)
    await until("a group at rest", lambda: fleet.ready("c1"), UP_S)
    for engine in (*FAITHFUL, *FREE):
        assert "taken" == await fleet.order("c2", engine, 60, within_s=UP_S)
    await fleet.settles((*FAITHFUL, *FREE), UP_S)
    assert "c1" == await fleet.owner()
    return fleet


@pytest.mark.timeout(300)
async def test_f16_a_controller_frozen_60_s_is_succeeded_within_20_s_and_what_the_zombie_then_says_is_ignored(
    tmp_path: Path, kafka_broker: str
) -> None:
    """An order given meanwhile reaches engines within 20 s; no reader takes the zombie's words, and it stops in 1 s."""
    where = await new_topics(kafka_broker, partitions=1)
    with Actors(tmp_path) as actors:
        fleet = await a_fleet(actors, where)
        zombie, heir = actors.all["c1"], actors.all["c2"]
        old = (await fleet.must_own()).epoch

        frozen_s = await frozen_at_work(fleet, zombie)
        await fleet.settles(FREE, TOLD_WITHIN_S + frozen_s - time.time())
        new = (await fleet.must_own()).epoch
        claimed_s = events(heir.lines, "partition_taken")[-1][0]
        told_s = max(first_told_s(fleet, new)[engine] for engine in FREE)
        assert claimed_s - frozen_s <= CLAIMED_WITHIN_S
        assert told_s - frozen_s <= TOLD_WITHIN_S

        await asyncio.sleep(frozen_s + FROZEN_S - time.time())
        ignored = await fleet.metric("c2", "flyball_controller_ignored_records")
        zombie.thaw()
        thawed_s = time.time()
        [(lost_s, _)] = await until("a zombie that knows", lambda: events(zombie.lines, "partition_lost"), BACK_S)
        await fleet.settles((*FAITHFUL, *FREE), BACK_S)
        back_s = time.time()
        await asyncio.sleep(lost_s + STOPS_WITHIN_S - time.time())
        log = await open_log(where, read_only=True)
        stopped = await said_by_owners(log)
        await asyncio.sleep(WATCHED_S)
        said = await said_by_owners(log)
        await log.close()

        took_over = min(one.offset for one in said if one.directive and one.epoch == new)
        late = [one for one in said if one.directive and one.epoch == old and one.offset > took_over]
        assert late, "the zombie said nothing, so nothing was tried"
        assert ignored + len(late) <= await fleet.metric("c2", "flyball_controller_ignored_records")
        assert len(late) <= await fleet.metric("c1", "flyball_controller_ignored_records")
        assert [] == [one for one in said if one.epoch == old and one not in stopped]
        applied = read_record(fleet.record).applied
        assert [] == [line for line in applied if line.at_s > frozen_s and line.version.epoch == old]
        assert (new, "c2") == ((await fleet.must_own()).epoch, await fleet.owner())

        assert [0] * 4 == [actor.stop() for actor in actors.all.values()]
        verdict = await fleet.judged()
        assert [] == verdict.broken, str(verdict)
    report(
        "f16",
        claimed_s=claimed_s - frozen_s,
        first_directive_s=told_s - frozen_s,
        stopped_after_thaw_s=lost_s - thawed_s,
        all_served_after_thaw_s=back_s - thawed_s,
        ignored_directives=len(late),
    )
