"""The walk through the receiver's contract: right receivers pass it, and each way to be wrong is caught."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import minimal_receiver
from flyball_agents.contract.door import Door, NothingCame, open_door
from flyball_agents.contract.examining import Patience
from flyball_agents.contract.walk import RULES, Verdict, Walk, walk
from flyball_core.errors import Rejected

HERE = Path(__file__).parent
QUICK = Patience(answer_s=0.5, move_s=5.0, quiet_s=0.1)
PATIENT = Patience(answer_s=5.0, move_s=20.0, quiet_s=0.2)
SLOW_RULES = {"R21", "R22", "R23", "R24"}
CAUGHT_BY = {
    "stale": "R7",
    "same": "R6",
    "log": "R8",
    "partition": "R9",
    "target": "R10",
    "trace": "R10",
    "version": "R11",
    "unknown": "R12",
    "bounds": "R13",
    "type": "R14",
    "half": "R15",
    "capabilities": "R16",
    "incarnation": "R17",
    "refusal": "R19",
    "beat": "R20",
    "drop": "R21",
    "never": "R21",
    "old-beat": "R22",
    "restore": "R23",
    "forget": "R2",
    "silent": "R24",
    "rebase": "R25",
    "mute": "R3",
    "echo": "R3",
    "lie": "R4",
}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """A door that receivers may attach to."""
    opened = await open_door("127.0.0.1:0")
    yield opened
    await opened.close()


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes to be ended with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def run(program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """One of this folder's programs, in a process of its own."""
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def broken(done: Walk) -> dict[str, str]:
    """The rules that were broken, and how."""
    return {result.rule: result.why for result in done.results if result.verdict is Verdict.BROKEN}


async def walked(break_: str, folder: Path) -> Walk:
    """A walk of the minimal receiver, broken in one way, through the rules that are to notice."""
    door = await open_door("127.0.0.1:0")
    receiver = minimal_receiver.Receiver(folder, break_)
    stop = threading.Event()

    def attach() -> None:
        while not stop.is_set():
            minimal_receiver.attend(receiver, f"127.0.0.1:{door.port}")

    thread = threading.Thread(target=attach, daemon=True)
    thread.start()
    slow = CAUGHT_BY[break_] in SLOW_RULES
    first = max(0, [rule.number for rule in RULES].index(CAUGHT_BY[break_]) - 1)
    through = RULES[first : first + 2] if slow else [rule for rule in RULES if rule.number not in SLOW_RULES]
    try:
        return await walk(door, QUICK, lambda _: None, through=through)
    finally:
        stop.set()
        receiver.broken = ""
        await door.close()
        await asyncio.to_thread(thread.join, 10.0)


async def test_every_way_to_be_wrong_is_caught(tmp_path: Path) -> None:
    """A receiver that forgets one rule is told so, by that rule's number."""
    assert set(CAUGHT_BY) == set(minimal_receiver.BREAKS)
    for break_ in CAUGHT_BY:
        (tmp_path / break_).mkdir()
    walks = await asyncio.gather(*(walked(break_, tmp_path / break_) for break_ in CAUGHT_BY))
    found = {break_: broken(done) for break_, done in zip(CAUGHT_BY, walks, strict=True)}

    assert {} == {break_: why for break_, why in found.items() if CAUGHT_BY[break_] not in why}


async def test_the_minimal_receiver_holds_all_rules(
    door: Door, running: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A hundred lines over grpc and the generated messages hold the contract."""
    running.append(run("minimal_receiver.py", f"127.0.0.1:{door.port}", tmp_path))
    done = await walk(door, PATIENT, lambda _: None)

    assert {} == broken(done)
    assert ["R18"] == [one.rule for one in done.results if one.verdict is Verdict.SKIPPED]


@pytest.mark.parametrize(("kind", "skipped"), [("engine", set()), ("gateway", {"R12", "R14", "R16", "R17", "R18"})])
async def test_flyballs_own_receivers_hold_all_rules(
    door: Door, running: list[subprocess.Popen[bytes]], tmp_path: Path, kind: str, skipped: set[str]
) -> None:
    """Its library holds what it asks of others, over an engine's settings and over a routing table."""
    running.append(run("attached_receiver.py", kind, f"127.0.0.1:{door.port}", tmp_path))
    done = await walk(door, PATIENT, lambda _: None)

    assert {} == broken(done)
    assert skipped == {one.rule for one in done.results if one.verdict is Verdict.SKIPPED}


async def test_a_receiver_that_serves_is_not_examined(
    door: Door, running: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """One that holds a real log's version is left alone, and the refusal says why."""
    (tmp_path / "held.json").write_text('{"held": [0, 5, 6], "log": "a-real-log"}')
    running.append(run("minimal_receiver.py", f"127.0.0.1:{door.port}", tmp_path))

    with pytest.raises(Rejected, match="a-real-log; examine a receiver whose state folder is empty"):
        await walk(door, PATIENT, lambda _: None)


async def test_nobody_is_waited_for_without_end(door: Door) -> None:
    """If no receiver attaches in time, that is the answer."""
    with pytest.raises(NothingCame, match="no receiver opened a stream"):
        await walk(door, Patience(answer_s=0.1, move_s=0.1), lambda _: None)
