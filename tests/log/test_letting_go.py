"""What an append that failed leaves behind: nothing, at once. In a long outage it were megabytes otherwise."""

# ruff: noqa: SLF001 - the producer is broken from inside

import asyncio
import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaError

from flyball_core.errors import LogUnavailable
from flyball_log import Entry
from flyball_log.grouping import GroupCommit
from flyball_log.kafka import KafkaSettings
from flyball_log.kafka.producing import Producing, _Live


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """The garbage collector stands still."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Handful(list[Entry]):
    """Entries that can be watched."""


async def test_a_group_that_failed_is_let_go_of() -> None:
    """Neither the error nor those who waited for it hold what was to be written."""

    async def commit(_: str, __: list[Entry]) -> list[int]:
        await asyncio.sleep(0)
        raise LogUnavailable("no broker")

    group, entries = GroupCommit(commit), Handful([Entry(b"k", b"v")])
    seen = weakref.ref(entries)
    with suppress(LogUnavailable):
        await group.append("lane", entries)
    del entries
    await asyncio.sleep(0)

    assert seen() is None


class Batch:
    """A batch that takes everything."""

    def append(self, **_: object) -> object:
        """It has room."""
        return self

    def close(self) -> None:
        """It is whole."""

    def record_count(self) -> int:
        """One."""
        return 1


class Broken:
    """A producer whose batches all fail."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[Batch]] = []

    def create_batch(self) -> Batch:
        """A new batch, watched."""
        batch = Batch()
        self.made.append(weakref.ref(batch))
        return batch

    async def send_batch(self, _: Batch, __: str, *, partition: int) -> "asyncio.Future[Any]":
        """It fails."""
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(KafkaError(f"partition {partition} is away"))
        return failed

    async def abort(self) -> None:
        """Nothing to end."""


async def test_a_batch_that_the_broker_refused_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every attempt's batch goes with the attempt."""
    caplog.set_level(logging.CRITICAL, "flyball_log.kafka.producing")  # a captured line would hold its error
    producing = Producing(KafkaSettings(bootstrap=("127.0.0.1:9",), append_timeout_s=0.3))
    broken = Broken()

    async def live() -> _Live:
        producing._live = _Live(cast("Any", broken), asyncio.get_running_loop().create_future())
        return producing._live

    monkeypatch.setattr(producing, "_producer", live)
    with suppress(LogUnavailable):
        await producing.commit(("inputs", 0), [Entry(b"k", b"v")])

    assert producing.rebuilt > 1
    assert [None] * len(broken.made) == [batch() for batch in broken.made]
