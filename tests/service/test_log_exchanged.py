"""A service notices that the log it has open is another one now, or gone; and none ends because brokers blink."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flyball_core.errors import FlyballError, LogExchanged, LogUnavailable, NotALog
from flyball_core.ids import LogId
from flyball_log import identify_log
from flyball_log.embedded import EmbeddedLog
from flyball_service.config import Config
from flyball_service.exchanged import GONE_LOOKS, LOOK_S, until_exchanged, watch_id
from flyball_service.health import Health
from harness.odd_logs import QUICK
from harness.virtual_time import in_virtual_time

Answer = LogId | FlyballError
AWAY = LogUnavailable("no broker answers")
NONE_THERE = NotALog("topic flyball.inputs does not exist")


def watched(folder: Path, answers: Sequence[Answer | None], *, gone_looks: int = GONE_LOOKS) -> tuple[float, str, bool]:
    """Seconds until a watch ends that finds these in turn (None: what was opened), why, and whether it was ready."""
    log = EmbeddedLog.create(folder / "log", 1, QUICK)
    given = iter(answers)
    health = Health()
    found: list[tuple[float, str, bool]] = []

    async def look() -> LogId:
        answer = next(given) or log.log_id
        if isinstance(answer, FlyballError):
            raise answer
        return answer

    async def main(clock: Callable[[], float]) -> None:
        began_s = clock()
        with pytest.raises((LogExchanged, RuntimeError)) as ended:
            await watch_id(log, look, health, gone_looks)
        found.append((clock() - began_s, str(ended.value), health.ready))
        await log.close()

    in_virtual_time(main)
    return found[0]


def test_another_id_ends_the_watch_at_the_next_look(tmp_path: Path) -> None:
    """The sentence names both ids, and what to do."""
    took_s, why, _ = watched(tmp_path, [None, LogId("another")])

    assert took_s == 2 * LOOK_S
    assert "is another now; start anew to go on with that" in why


def test_a_log_that_is_not_there_is_waited_for_and_then_given_up(tmp_path: Path) -> None:
    """Not ready from the first look that finds none; the end comes with the third in a row."""
    took_s, why, ready = watched(tmp_path, [NONE_THERE] * GONE_LOOKS)

    assert (GONE_LOOKS * LOOK_S, False) == (took_s, ready)
    assert "is gone: topic flyball.inputs does not exist" in why


def test_brokers_that_blink_end_nothing(tmp_path: Path) -> None:
    """Away, or without topics for a look or two, and then itself again: ready, and watched on."""
    blinks: list[Answer | None] = [AWAY, NONE_THERE, NONE_THERE, None, AWAY, NONE_THERE, None]

    took_s, why, ready = watched(tmp_path, blinks)

    assert ((len(blinks) + 1) * LOOK_S, True) == (took_s, ready)
    assert "StopIteration" in why  # the script has ended, and nothing before


async def test_a_folder_that_is_deleted_under_its_writer_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look is enough there: a folder does not blink."""
    monkeypatch.setattr("flyball_service.exchanged.LOOK_S", 0.01)
    folder = tmp_path / "log"
    log = EmbeddedLog.create(folder, 1, QUICK)
    config = Config(file=tmp_path / "flyball.yaml", log=str(folder))
    watching = asyncio.create_task(until_exchanged(config, log, Health()))
    await asyncio.sleep(0.1)
    assert not watching.done()
    assert log.log_id == await identify_log(str(folder))
    shutil.rmtree(folder.rename(tmp_path / "gone"))  # all of it at once: one look is enough to see a half of it

    with pytest.raises(LogExchanged, match="does not exist"):
        await asyncio.wait_for(watching, 5.0)
    await log.close()
