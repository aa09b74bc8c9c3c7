"""A log that is wiped or exchanged while engines and a gateway live: they refuse it until an operator says otherwise.

Controller, engines and gateway are processes; what an operator sees and orders goes through the installed `flyball`.
"""

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flyball_core.errors import FlyballError, Rejected
from flyball_core.ids import LogId
from flyball_core.inputs import Tick
from flyball_core.knobs import BATCH_CAP
from flyball_core.outputs import DecisionRecord, RecordKind
from flyball_log import Log, identify_log, open_log
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Entry, Topic
from flyball_log.kafka import settings_for
from flyball_log.kafka.clients import make_admin
from flyball_log.kafka.layout import topic_names
from flyball_proto.codec import decode_audit, encode_input
from kafka_broker import kafka_broker as kafka_broker
from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actor, Actors, until
from laboratory.record import read_record
from laboratory.watching import Look, Watched, flyball, flyball_json

ENGINES = ("e0", "e1")
GATEWAY = "gw0"
TARGETS = (*ENGINES, GATEWAY)
REFUSES_FOR_S = 2.5
"""So long the new log's owner decides and pushes, and nobody takes anything."""
NOTICED_S = 30.0
"""A controller whose log is gone ends itself: at most three looks, five seconds apart, and what a busy machine adds."""
MADE_S = 30.0
"""Longest wait for topics to be quite gone and made anew."""
TWO = ("c1", "c2")
AUTHOR = "ada"


@dataclass(slots=True, kw_only=True)
class Governed:
    """A fleet that holds decisions of its log."""

    fleet: Fleet
    engines: Actor
    http: str

    @property
    def at(self) -> list[str]:
        """The controllers, as an operator names them to `flyball`."""
        return [word for door, _ in self.fleet.doors.values() for word in ("--controller", door)]

    async def started(self) -> None:
        """Start the first controller, which stands still or has ended, and wait until it is ready."""
        actor = self.fleet.actors.all["c1"]
        actor.start()
        await actor.process.ready(self.fleet.doors["c1"][1])

    async def holding(self, cap: int) -> list[Look]:
        """Pin all engines at a cap by the installed command, and see them hold it."""
        order = ("override", "set", POOL, BATCH_CAP, str(cap), "--for", "1h", "--reason", "a test", "--wait", "0s")
        code, said = await flyball(*order, *self.at)
        assert code == 0, said
        return [await Watched(self.http, one).holding({BATCH_CAP: cap}, 30.0) for one in ENGINES]

    async def looks(self) -> list[Look]:
        """One look at each engine and the gateway."""
        return [await Watched(self.http, one).look() for one in TARGETS]

    async def rebased(self) -> str:
        """Have an operator rebase the pool; what the command printed."""
        order = ("rebase", POOL, "--reason", "the log was made anew", "--author", AUTHOR, "--yes")
        code, said = await flyball(*order, *self.at)
        assert code == 0, said
        return said

    async def told_of(self, old: str) -> str:
        """What `flyball status` prints, once every engine and gateway is said to hold the old log."""

        async def all_said() -> str:
            _, said = await flyball("status", *self.at)
            return said if all(f"{one}: holds another log: {old}" in said for one in TARGETS) else ""

        found = await until("everybody's trouble in `flyball status`", all_said, 30.0)
        assert isinstance(found, str)
        return found

    def audits(self) -> dict[str, list[str]]:
        """By receiver, what it put on its own record of rebases."""
        found = {}
        for one in TARGETS:
            lines = (self.fleet.folder / "state" / "engines" / one / "audit.jsonl").read_text().splitlines()
            found[one] = [said for line in lines if (said := json.loads(line)["what"]).startswith("rebase")]
        return found


@asynccontextmanager
async def governed(folder: Path, log: str, controllers: Sequence[str] = ("c1",)) -> AsyncIterator[Governed]:
    """Controllers on that log, two engines and a gateway, all holding decisions of it."""
    with Actors(folder) as actors:
        fleet = Fleet(actors, log, tick_s=0.5)
        for name in controllers:
            fleet.controller(name).start()
        for name in controllers:
            await actors.all[name].process.ready(fleet.doors[name][1])
        http = f"127.0.0.1:{lasting_port()}"
        engines = fleet.engines("engines", ENGINES, "--gateway", GATEWAY, "--http", http, "--frames")
        engines.start()
        await engines.process.ready(http)
        made = Governed(fleet=fleet, engines=engines, http=http)
        await until("all attached", lambda: fleet.attached(TARGETS), 30.0)
        await made.holding(48)

        async def everybody_holds() -> bool:
            return all(look.held is not None for look in await made.looks())

        await until("a table in the gateway", everybody_holds, 20.0)
        yield made


async def refusing(fleet: Governed, old: str) -> None:
    """Assert that everybody keeps what it has of the old log, that status says so, and how to go on."""

    async def all_attached() -> bool:
        return all(look.state == "attached" for look in await fleet.looks())

    await until("everybody attached", all_attached, 20.0)
    said = await fleet.told_of(old)
    before = await fleet.looks()
    await asyncio.sleep(REFUSES_FOR_S)
    after = await fleet.looks()
    shown = await flyball_json("status", *fleet.at)

    assert [f"flyball rebase {POOL} --target {one} --reason WHY" in said for one in TARGETS] == [True] * len(TARGETS)
    assert [(look.held, look.values) for look in before] == [(look.held, look.values) for look in after]
    assert {old} == {look.held.log_id for look in after if look.held is not None}
    assert {"attached"} == {look.state for look in after}
    assert shown["attention"]


async def taking(fleet: Governed, old: str, new: str, cap: int) -> None:
    """Assert that an operator's rebase is the way on: on record, by name, and then the new log's versions count."""
    said = await fleet.rebased()
    await fleet.holding(cap)

    async def nobody_holds_the_old() -> bool:
        return {new} == {look.held.log_id for look in await fleet.looks() if look.held is not None}

    await until("everybody on the new log", nobody_holds_the_old, 20.0)
    _, status = await flyball("status", *fleet.at)

    assert ", ".join(TARGETS) in said
    assert "another log" not in status
    assert dict.fromkeys(TARGETS, f"rebase by {AUTHOR}, was {old}") == {k: v[-1] for k, v in fleet.audits().items()}


def only_forward(fleet: Governed, logs: Sequence[str]) -> None:
    """Assert that everybody took versions of these logs one log after the other, each only upwards."""
    for one in TARGETS:
        taken = [line.version for line in read_record(fleet.fleet.record).applied if line.target == one]
        places = [(logs.index(version.log_id), version.epoch, version.revision) for version in taken]

        assert places == sorted(set(places))
        assert set(range(len(logs))) == {place[0] for place in places}


async def rebases_on_record(log: Log) -> list[str]:
    """The summaries of the orders in the audit that tell of rebases."""
    found = []
    at = (await log.bounds(Topic.DECISIONS, log.partition_of(POOL))).begin
    while records := await log.read(Topic.DECISIONS, log.partition_of(POOL), at):
        at = records[-1].offset + 1
        for record in records:
            try:
                body = decode_audit(record.value or b"")
            except Rejected:
                continue
            if isinstance(body, DecisionRecord) and body.kind is RecordKind.ORDER and "rebases" in body.summary:
                found.append(body.summary)
    return found


async def long_log(folder: Path) -> str:
    """The id of another fleet's log, in which more has happened than in ours."""
    log = EmbeddedLog.create(folder, 1)
    tick = Entry(b"", encode_input(Tick(epoch=3, interval_s=1.0, wall_s=0.0)))
    await log.append(Topic.INPUTS, 0, [tick] * 5_000)
    await log.close()
    return log.log_id


@pytest.mark.timeout(240)
async def test_a_log_exchanged_or_wiped_is_refused_by_every_engine_and_gateway_until_flyball_rebase(
    tmp_path: Path,
) -> None:
    """Greater numbers of another log fool nobody, and a folder that is deleted under a controller ends it at once."""
    folder = tmp_path / "log"
    async with governed(tmp_path, str(folder)) as fleet:
        first = await identify_log(str(folder))
        controller = fleet.fleet.actors.all["c1"]

        assert 0 == controller.stop()
        folder.rename(tmp_path / "first")
        second = await long_log(folder)
        await fleet.started()
        await refusing(fleet, first)
        fleet.engines.kill()
        fleet.engines.start()
        await fleet.engines.process.ready(fleet.http)
        await refusing(fleet, first)
        await taking(fleet, first, second, 40)

        shutil.rmtree(folder)
        await until("the controller's end", lambda: not controller.running, NOTICED_S)
        assert f"the log {second} is gone: {folder} does not exist" in controller.lines
        await fleet.started()
        third = await identify_log(str(folder))
        await refusing(fleet, second)
        await taking(fleet, second, third, 32)
        controller.stop()
        log = await open_log(str(folder), read_only=True)
        on_record = await rebases_on_record(log)
        await log.close()

    assert [f"{AUTHOR} rebases every receiver of another log: the log was made anew"] == on_record
    only_forward(fleet, [first, second, third])


async def deleted(where: str) -> None:
    """Delete all topics of a log."""
    settings = settings_for(where)
    admin = make_admin(settings)
    await admin.start()
    try:
        await admin.delete_topics(topic_names(settings))
    finally:
        await admin.close()


async def made(where: str, before: str = "") -> LogId:
    """Make the topics as an operator does, once those of before are quite gone; the log's id."""

    async def there() -> LogId | None:
        code, _ = await flyball("topics", "create", where, "--dev", "--partitions", "1")
        try:
            found = await identify_log(where) if code == 0 else None
        except FlyballError:
            return None
        return found if found != before else None

    found = await until("topics made anew", there, MADE_S, every_s=0.5)
    return LogId(found)


@pytest.mark.timeout(240)
async def test_topics_deleted_and_made_anew_end_their_controllers_and_are_refused_until_flyball_rebase(
    tmp_path: Path, kafka_broker: str
) -> None:
    """No controller goes on with what it knew of the old ones, and no receiver with what the new ones say."""
    where = f"kafka://{kafka_broker}/wiped-{uuid.uuid4().hex[:12]}"
    first = await made(where)
    async with governed(tmp_path, where, TWO) as fleet:
        controllers = [fleet.fleet.actors.all[name] for name in TWO]
        await deleted(where)
        second = await made(where, first)

        await until("both controllers' end", lambda: not any(one.running for one in controllers), NOTICED_S)
        for one in controllers:
            last = one.lines.splitlines()[-1]
            assert last.startswith("flyball: the log ")
            assert first in last
            assert one.stop() != 0
        await fleet.started()
        await refusing(fleet, first)
        await taking(fleet, first, second, 40)
        await asyncio.to_thread(controllers[0].stop)

    only_forward(fleet, [first, second])
