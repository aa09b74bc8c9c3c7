"""The ways of frames into the log: which error is whose, and that no controller is waited for too long."""

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import Sequence

import grpc
import pytest

from append_stub import AppendStub, append_door
from flyball_agents.node.appending import GrpcAppender, LaterAppender, NotOpen, WatchedAppender, reach
from flyball_agents.shipper import Shed, Shipment
from flyball_core.errors import Fatal, FlyballError, LogUnavailable, Rejected
from flyball_core.ids import BootId, PoolId
from flyball_service.health import Health

SHIPMENT = Shipment(BootId("1-a"), PoolId("chat"), 0, b"payload", backlog=False)
NOBODY = "127.0.0.1:1"

PASSES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "ABORTED", "INTERNAL", "UNKNOWN", "CANCELLED")
SHEDS = "RESOURCE_EXHAUSTED"
REFUSES_US = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        *((code, LogUnavailable) for code in (*(code for code in PASSES if code != SHEDS), "FAILED_PRECONDITION")),
        (SHEDS, Shed),
        *((code, Fatal) for code in REFUSES_US),
        ("INVALID_ARGUMENT", Rejected),
    ],
)
async def test_a_status_is_the_error_that_says_what_to_do(code: str, error: type[FlyballError]) -> None:
    """What may pass is tried again, a wrong frame is given up, and a refused agent keeps its frames and says why."""
    stub = AppendStub()
    stub.refuses = grpc.StatusCode[code]
    async with append_door(stub) as address:
        appender = GrpcAppender([address], None)
        with pytest.raises(error) as raised:
            await appender.append([SHIPMENT])
        assert type(raised.value) is error
        assert address in str(raised.value)
        stub.refuses = None
        await appender.append([SHIPMENT])
        await appender.close()

    assert [entry.record for entry in stub.entries] == [b"payload"]
    assert stub.entries[0].pool == "chat"


class Handful(list[Shipment]):
    """Shipments that can be watched."""


async def test_what_was_not_sent_is_let_go_of_at_once() -> None:
    """An append that failed holds no frame until the garbage is next collected: in an outage that were megabytes."""
    shipments = Handful([SHIPMENT])
    seen, appender = weakref.ref(shipments), GrpcAppender([NOBODY], None)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(LogUnavailable):
            await appender.append(shipments)
        del shipments
        assert seen() is None
    finally:
        gc.enable()
    await appender.close()


@pytest.mark.parametrize("code", [*PASSES, *REFUSES_US])
async def test_what_one_controller_does_not_do_another_may(code: str) -> None:
    """The next one is asked in the same append, and stays the one that is asked first."""
    refusing, taking = AppendStub(), AppendStub()
    refusing.refuses = grpc.StatusCode[code]
    async with append_door(refusing) as first, append_door(taking) as second:
        appender = GrpcAppender([first, second], None)
        await appender.append([SHIPMENT])
        await appender.append([SHIPMENT])

        assert (refusing.calls, taking.calls, appender.address) == (1, 2, second)
        await appender.close()


async def test_a_wrong_frame_is_asked_of_one_controller_alone() -> None:
    """It will be wrong everywhere."""
    refusing, taking = AppendStub(), AppendStub()
    refusing.refuses = grpc.StatusCode.INVALID_ARGUMENT
    async with append_door(refusing) as first, append_door(taking) as second:
        appender = GrpcAppender([first, second], None)
        with pytest.raises(Rejected):
            await appender.append([SHIPMENT])
        await appender.close()

    assert taking.calls == 0


async def test_that_an_agent_is_refused_is_told_before_what_may_pass() -> None:
    """One controller is away, the other refuses this agent: the second is what has to be mended."""
    refusing = AppendStub()
    refusing.refuses = grpc.StatusCode.PERMISSION_DENIED
    async with append_door(refusing) as address:
        for addresses in ([address, NOBODY], [NOBODY, address]):
            appender = GrpcAppender(addresses, None)
            with pytest.raises(Fatal, match="PERMISSION_DENIED: as told"):
                await appender.append([SHIPMENT])
            await appender.close()


async def test_a_controller_that_says_nothing_is_left_after_the_deadline() -> None:
    """A bound on every wait: the frames go to the next one."""
    silent, taking = AppendStub(), AppendStub()
    silent.silent = True
    async with append_door(silent) as first, append_door(taking) as second:
        appender = GrpcAppender([first, second], None, deadline_s=0.2)
        began_s = time.monotonic()
        await appender.append([SHIPMENT])
        assert 0.2 <= time.monotonic() - began_s < 5.0
        await appender.close()
        alone = GrpcAppender([first], None, deadline_s=0.2)
        with pytest.raises(LogUnavailable, match=r"no answer within 0\.2 s"):
            await alone.append([SHIPMENT])
        await alone.close()

    assert len(taking.entries) == 1


async def test_nobody_there_and_half_a_confirmation_may_pass() -> None:
    """Neither says that a frame is in the log."""
    forgetful = AppendStub()
    forgetful.forgets = True
    async with append_door(forgetful) as address:
        for addresses, why in (([NOBODY], "UNAVAILABLE"), ([address], "confirmed 0 of 1")):
            appender = GrpcAppender(addresses, None)
            with pytest.raises(LogUnavailable, match=why):
                await appender.append([SHIPMENT])
            await appender.close()


def test_an_agent_without_controllers_is_the_operators_to_mend() -> None:
    """There is no other way into an embedded log."""
    with pytest.raises(Rejected, match="controllers"):
        GrpcAppender([], None)


class _Scripted:
    """An appender that meets these errors one after the other, then works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.sizes: list[int] = []

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """The next error, or success."""
        self.asked += 1
        self.sizes.append(len(shipments))
        if self.errors:
            raise self.errors.pop(0)


async def test_outcomes_are_counted_and_told_to_health() -> None:
    """Ready is an agent whose frames the log takes; a frame's own fault says nothing about the log."""
    health = Health()
    errors = (LogUnavailable("away"), Fatal("refused"), Rejected("wrong"), RuntimeError("odd"), NotOpen("later"))
    watched = WatchedAppender(_Scripted(*errors), health)
    seen = []
    for error in errors:
        with pytest.raises(type(error)):
            await watched.append([SHIPMENT])
        seen.append(dict(health.waiting))
    await watched.append([SHIPMENT])

    odd = {"log": "RuntimeError('odd')"}
    assert seen == [{"log": "away"}, {"log": "refused"}, {"log": "refused"}, odd, odd]
    assert watched.outcomes == {"failed": 3, "refused": 1, "rejected": 1, "done": 1}
    assert health.ready


async def test_reaching_the_log_goes_on_until_it_answers() -> None:
    """Whether it is away or refuses this agent; and ends when the agent does."""
    scripted = _Scripted(LogUnavailable("away"), Fatal("refused"))
    stop = asyncio.Event()
    await reach(scripted, stop, lambda: 0.0)

    assert scripted.sizes == [0, 0, 0]
    never = _Scripted(*[LogUnavailable("away")] * 1000)
    task = asyncio.create_task(reach(never, stop, lambda: 3600.0))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(2.0):
        await task


async def test_a_log_that_is_not_open_yet_may_pass() -> None:
    """Until it is, nothing was done; closing what was never opened is nothing."""
    later = LaterAppender()

    with pytest.raises(NotOpen):
        await later.append([SHIPMENT])
    await later.close()
