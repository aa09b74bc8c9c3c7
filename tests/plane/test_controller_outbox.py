"""What waits for one receiver: the newest of each kind, and one question at a time."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from flyball_controller.serving.outbox import HEARTBEAT, SETTING, Outbox, Unanswered
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, LogId, PoolId
from flyball_core.outputs import Directive, Heartbeat, RebaseNotice, RoutingTable

POOL = PoolId("chat")


def version(revision: int) -> Version:
    """A version of the log."""
    return Version(log_id=LogId("l"), partition=0, epoch=0, revision=revision)


def directive(revision: int) -> Directive:
    """A directive decided at this input."""
    return Directive(
        pool=POOL,
        engine=EngineId("e1"),
        incarnation=Incarnation(""),
        capability_hash="h",
        version=version(revision),
        values={"max_active_requests": revision},
        decision="d",
    )


def beat(revision: int) -> Heartbeat:
    """A heartbeat of this tick."""
    return Heartbeat(pool=POOL, version=version(revision), time_s=1.0, wall_s=1.0, hold_s=1.0)


def notice(target: str) -> RebaseNotice:
    """A permission for a target."""
    return RebaseNotice(pool=POOL, target=target, version=version(1), author="ada", expires_wall_s=2.0)


@dataclass(slots=True)
class Box:
    """An outbox with a clock that the test moves."""

    now_s: float = 100.0
    superseded: list[str] = field(default_factory=list)
    box: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.box = Outbox(lambda: self.now_s, self.superseded.append)


async def test_a_newer_message_takes_the_place_of_an_older_one_of_its_kind() -> None:
    """Of two directives only the later is sent, and the one dropped is counted; heartbeats likewise."""
    one = Box()
    for message in (directive(1), beat(1), directive(2), beat(2), beat(3)):
        one.box.put(message)

    assert [directive(2), beat(3), None] == [one.box.take() for _ in range(3)]
    assert [SETTING, HEARTBEAT, HEARTBEAT] == one.superseded


async def test_the_next_directive_waits_for_the_answer_to_the_last() -> None:
    """While a directive is unanswered heartbeats pass and directives wait; the answer lets the newest go."""
    one = Box()
    one.box.put(directive(1))

    assert directive(1) == one.box.take()
    for message in (directive(2), beat(1), directive(3)):
        one.box.put(message)

    assert [beat(1), None] == [one.box.take() for _ in range(2)]
    one.box.answered(version(2))

    assert one.box.take() is None
    one.box.answered(version(1))

    assert directive(3) == one.box.take()


async def test_tables_are_answered_like_directives() -> None:
    """A second routing table waits for the answer to the first."""
    one = Box()
    table = RoutingTable(pool=POOL, gateway=GatewayId("g"), version=version(1), routes=(), lanes=(), decision="d")
    later = replace(table, version=version(2))
    one.box.put(table)

    assert table == one.box.take()
    one.box.put(later)

    assert one.box.take() is None
    one.box.answered(version(1))

    assert later == one.box.take()


async def test_notices_for_all_and_for_one_stand_beside_each_other() -> None:
    """A pool's notice does not drop the receiver's own."""
    one = Box()
    for message in (notice(""), notice("e1"), notice("e1")):
        one.box.put(message)

    assert [notice(""), notice("e1"), None] == [one.box.take() for _ in range(3)]
    assert ["rebase"] == one.superseded


async def test_whoever_waits_is_woken_by_a_message() -> None:
    """`next` returns as soon as something may be sent."""
    one = Box()
    waiting = asyncio.create_task(one.box.next(30.0))
    await asyncio.sleep(0)

    assert not waiting.done()
    one.box.put(beat(1))

    assert beat(1) == await waiting


async def test_a_receiver_that_does_not_answer_is_found_out() -> None:
    """Thirty seconds after a directive without an answer `next` raises, whatever else there is to send."""
    one = Box()
    one.box.put(directive(1))
    await one.box.next(30.0)
    one.now_s += 29.9
    one.box.put(beat(1))

    assert beat(1) == await one.box.next(30.0)
    one.now_s += 0.1
    one.box.put(beat(2))
    with pytest.raises(Unanswered):
        await one.box.next(30.0)
