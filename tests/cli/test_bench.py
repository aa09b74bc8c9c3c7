"""`flyball bench spine`: what it reports, not how fast it is."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_cli import bench_spine
from flyball_cli.bench_readers import read_bare, read_stepping
from flyball_log import Topic, open_log
from recorded_logs import record_log

Flyball = Callable[..., Answer]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench of one node for a minute and a bit."""
    monkeypatch.setattr(bench_spine, "NODES", 1)
    monkeypatch.setattr(bench_spine, "TICKS", 65)


def test_every_number_is_there(flyball: Flyball, small: None) -> None:
    """Speeds of both readers, their ratio, restoring and memory are numbers; a home not asked for is null."""
    found = flyball("bench", "spine", "--json", "--seconds", "0", "--kafka", "off").document

    for speeds in (*found["frames_per_s"].values(), found["step_over_bare"], found["bare_without_presence"]):
        assert {"embedded", "kafka"} == speeds.keys()
        assert speeds["embedded"] > 0
        assert speeds["kafka"] is None
    assert found["restore_s"] > 0
    assert 500 < found["bytes_per_engine"] < 100_000
    assert ["kafka: not asked for"] == found["notes"]
    assert 65 == found["traffic"]["frames"]


def test_its_words(flyball: Flyball, small: None) -> None:
    """The table says what was measured and what is aimed at."""
    words = flyball("bench", "spine", "--seconds", "0", "--kafka", "off").out

    assert "stepped over bare (aim: 0.5)" in words
    assert "bytes per engine" in words


def test_without_a_broker_it_says_why(
    flyball: Flyball, small: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where Kafka cannot be had, auto leaves a reason, and require ends with exit code 2."""
    monkeypatch.setattr("flyball_cli.bench_homes._SCRIPT", tmp_path / "none.py")

    found = flyball("bench", "spine", "--json", "--seconds", "0", "--kafka", "auto").document

    assert found["frames_per_s"]["step"]["kafka"] is None
    assert "kafka: no Kafka" in found["notes"][0]
    assert 2 == flyball("bench", "spine", "--seconds", "0", "--kafka", "require").code


def test_both_readers_read_all_of_it(recorded: Path) -> None:
    """The bare reader meets every frame; the stepping one ends in the state of the owner that recorded."""

    async def read() -> tuple[float, float]:
        log = await open_log(str(recorded), read_only=True)
        try:
            end = (await log.bounds(Topic.INPUTS, 0)).end
            _, state = await read_stepping(log, 0, end)
            assert {"delivered": 70} == state.pools["chat"].counts
            return await read_bare(log, 0, end), await read_bare(log, 0, end, presence=False)
        finally:
            await log.close()

    assert all(seconds > 0 for seconds in asyncio.run(read()))


def test_the_scripted_pool_makes_real_work(tmp_path: Path, flyball: Flyball) -> None:
    """Settings move and outcomes follow, so that a tick of the bench is a tick of life."""
    log = record_log(tmp_path / "log", seconds=40)

    changes = flyball("explain", "node-00/engine-0", "--log", log, "--json", "--last", "100").document["changes"]

    assert {"max_batched_tokens"} <= {change["knob"] for change in changes}
