"""A receiver whose certificates are renewed exchanges its stream for one that shows them, and is never without one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball_agents.attaching import AttachRefused, AttachState
from flyball_core.errors import FlyballError, Retryable
from harness.virtual_time import in_virtual_time
from scripted_controllers import ScriptedStream, World

Clock = Callable[[], float]


def test_a_stream_is_exchanged_make_before_break(tmp_path: Path) -> None:
    """Within a minute the new one is attached; the old one is closed once the controller has spoken on the new one."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            await world.beats(3)
            old, renewed_s = world.last, clock()
            old.renewed = True
            while world.last is old:
                await world.beats(1, first=2000 + int(clock()))

            assert clock() - renewed_s <= 61.0
            assert old.place == world.last.place
            assert not old.closed
            assert ["e1"] == [attach.target for attach in world.last.attaches]
            await world.beats(3, first=3000)
            assert old.closed
            assert (1, 0, 0) == (
                world.attacher.status.renewals,
                world.attacher.status.failures,
                world.attacher.status.silences,
            )
            assert world.attacher.status.state is AttachState.ATTACHED
            assert ["attached"] == [event for event, _ in world.told]

    in_virtual_time(main)


@pytest.mark.parametrize(
    "end", [AttachRefused("PERMISSION_DENIED: another role"), Retryable("UNAVAILABLE: handshake"), None]
)
def test_certificates_that_no_controller_takes_change_nothing(tmp_path: Path, end: FlyballError | None) -> None:
    """The old stream goes on, is renewed on, and the exchange is tried again within a minute until it works."""

    async def main(clock: Clock) -> None:
        async with World(tmp_path, clock) as world:
            await world.beats(3)
            old = world.last

            def turned_away(stream: ScriptedStream) -> None:
                stream.push(end)

            old.renewed, world.on_open = True, turned_away
            for revision in range(2000, 2130):
                old.push(world.heartbeat(revision))
                await asyncio.sleep(1.0)
            tries = len(world.streams) - 1

            assert not old.closed
            assert all(stream.closed for stream in world.streams[1:])
            assert 2 <= tries <= 130
            assert 133 == world.attacher.conversation.counts.heartbeats
            assert world.attacher.status.state is AttachState.ATTACHED
            assert tries == len([event for event, _ in world.told if event == "renewed_certificates_not_taken"])

    in_virtual_time(main)


def test_receivers_do_not_all_come_at_once(tmp_path: Path) -> None:
    """Each exchanges its stream at a moment of its own: of ten the first and the last are 20 s apart at least."""
    moments: list[float] = []

    async def main(clock: Clock) -> None:
        async with World(tmp_path / str(len(moments)), clock, seed=len(moments)) as world:
            await world.beats(1)
            old, renewed_s = world.last, clock()
            old.renewed = True
            while world.last is old:
                await world.beats(1, first=2000 + int(clock()))
            moments.append(clock() - renewed_s)

    for number in range(10):
        (tmp_path / str(number)).mkdir()
        in_virtual_time(main)

    assert max(moments) <= 61.0
    assert max(moments) - min(moments) >= 20.0
