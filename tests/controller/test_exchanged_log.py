"""What an owner does when its log turns out to be another one, and that a rebase reaches those who push."""

from pathlib import Path

import pytest

from flyball_core.errors import LogExchanged
from flyball_core.ids import LogId
from flyball_core.inputs import Rebase
from flyball_core.outputs import RebaseNotice
from flyball_log.embedded import EmbeddedLog
from flyball_log.interface import Log, Topic
from flyball_proto.codec import decode_directive
from harness.logged_pool import logged_pool, owner_of
from harness.odd_logs import QUICK, HandedOn, records_of
from harness.scripted_engine import POOL
from harness.scripted_pool import WALL_S


class Exchanged(HandedOn):
    """A log that answers under its own id, whatever is put in its place."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self._opened_as = log.log_id

    @property
    def log_id(self) -> LogId:
        """As it was when it was opened."""
        return self._opened_as


async def test_an_owner_whose_tick_stands_before_what_it_has_read_stops(tmp_path: Path) -> None:
    """Inputs that begin anew under an owner are another log's: it decides nothing on them, and says so."""
    pool, _ = await logged_pool(EmbeddedLog.create(tmp_path / "log", 2, QUICK))
    log = Exchanged(pool.log)
    owner = owner_of(log, "c2")
    await owner.take(pool.partition, WALL_S)
    await owner.tick(pool.partition, 1.0, WALL_S)
    log.inner = EmbeddedLog.create(tmp_path / "another", 2, QUICK)

    with pytest.raises(LogExchanged, match="is another log than it was"):
        await owner.tick(pool.partition, 1.0, WALL_S + 1.0)

    ends = [(await log.inner.bounds(topic, pool.partition)).end for topic in Topic]
    assert [1, 0, 0, 0] == ends
    await log.close()
    await pool.log.close()


async def test_a_rebase_reaches_the_directives(tmp_path: Path) -> None:
    """What an operator orders is published by the owner: whoever pushes for the pool hands it on."""
    pool, owner = await logged_pool(EmbeddedLog.create(tmp_path / "log", 2, QUICK))
    await pool.run(owner, 3)
    await pool.put(Rebase(pool=POOL, target="e0-0", author="ada", reason="made anew"))
    await owner.tick(pool.partition, 1.0, WALL_S + pool.now_s)
    records = await records_of(pool.log, Topic.DIRECTIVES, pool.partition)
    published = [decode_directive(record.value) for record in records if record.value is not None]

    assert [("ada", "e0-0")] == [(one.author, one.target) for one in published if isinstance(one, RebaseNotice)]
    await pool.log.close()
