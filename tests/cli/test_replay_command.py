"""`flyball replay`: identical, or the place where it is not."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli_calls import Answer, installed
from flyball_cli.bench_fleet import ScriptedPool
from flyball_cli.bench_homes import embedded_log, fill
from flyball_controller.fingerprint import own_fingerprint
from flyball_core.frames import Frame
from flyball_core.inputs import Ack, Attach, Claim, PolicyText, Tick
from flyball_log import Entry, Topic
from flyball_log.embedded import EmbeddedLog
from flyball_proto.codec import encode_input
from recorded_logs import SECONDS, bodies_of, inputs_of, spoiled

Flyball = Callable[..., Answer]


def test_a_recorded_log_replays_identical(flyball: Flyball, recorded: Path) -> None:
    """The log of an owner gives its very decisions again, and says how much was compared."""
    answer = flyball("replay", recorded)

    assert 0 == answer.code
    assert answer.out.startswith("identical: ")
    assert f"{len(inputs_of(recorded)):,} inputs, {SECONDS} ticks" in answer.out


def test_the_installed_command_says_the_same(recorded: Path) -> None:
    """What the entry point of the distribution answers is what the tests call."""
    answer = installed("replay", recorded, "--json")

    assert (0, "") == (answer.code, answer.err)
    assert "identical" == answer.document["verdict"]
    assert [] == answer.document["differences"]


@pytest.mark.parametrize("kind", [Claim, PolicyText, Attach, Frame, Tick, Ack])
@pytest.mark.parametrize("bit", [3, 157])
def test_one_flipped_bit_is_shown_where_it_is(
    flyball: Flyball, recorded: Path, tmp_path: Path, kind: type, bit: int
) -> None:
    """One bit of one input changed with a valid CRC: different, between the tick before and the one after it."""
    offsets = [offset for offset, body in enumerate(bodies_of(recorded)) if isinstance(body, kind)]
    offset = offsets[len(offsets) // 2]
    copy = spoiled(recorded, tmp_path / "log", offset, bit, crc=True)

    answer = flyball("replay", copy, "--json")

    assert 1 == answer.code
    assert "different" == answer.document["verdict"]
    first, last = answer.document["differences"][0]["inputs"]
    assert first <= offset <= last
    assert 1 == flyball("replay", copy).code


def test_the_words_name_pool_time_and_inputs(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """A difference is told with its pool, its time, where to look, what was recorded and what came out."""
    frames = [offset for offset, body in enumerate(bodies_of(recorded)) if isinstance(body, Frame)]
    copy = spoiled(recorded, tmp_path / "log", frames[40], 999, crc=True)

    lines = flyball("replay", copy).out.splitlines()

    assert lines[0].startswith("different: ")
    assert "of chat at input" in lines[0]
    assert "40 s" in lines[0]
    assert ["look", "what", "recorded", "came"] == [line.split()[0] for line in lines[1:5]]


def test_a_damaged_record_is_one_line(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """A record whose CRC does not match ends the replay with its file and offset, and exit code 1."""
    copy = spoiled(recorded, tmp_path / "log", 50, 77, crc=False)

    answer, machine = flyball("replay", copy), flyball("replay", copy, "--json")

    assert 1 == answer.code == machine.code
    assert 1 == len(answer.out.splitlines())
    assert "record 50 is damaged" in answer.out
    assert str(copy / Topic.INPUTS.value) in answer.out
    assert ("damaged", 50) == (machine.document["verdict"], machine.document["damage"]["record"])
    assert machine.document["damage"]["where"].endswith(".seg")


def test_a_torn_tail_is_no_damage(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """A log whose writer was killed in the middle of a record replays up to there."""
    copy = spoiled(recorded, tmp_path / "log", 0, 0, crc=False)
    for segment in (copy / Topic.INPUTS.value / "0").glob("*.seg"):
        original = recorded / Topic.INPUTS.value / "0" / segment.name
        segment.write_bytes(original.read_bytes() + b"\xf1B torn")

    assert 0 == flyball("replay", copy).code


def test_what_is_no_log_is_one_line_and_exit_code_2(flyball: Flyball, tmp_path: Path) -> None:
    """A missing folder, an empty one, a file, a strange scheme: refused in one line that names it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for where in ("missing", "empty", "file"):
        answer = flyball("replay", tmp_path / where)

        assert 2 == answer.code
        assert 1 == len(answer.err.splitlines())
        assert where in answer.err
    assert 2 == flyball("replay", "http://127.0.0.1/log").code


def test_a_folder_that_cannot_be_read_is_bad_input(flyball: Flyball, recorded: Path, tmp_path: Path) -> None:
    """A log whose files vanish or may not be read is no traceback."""
    copy = spoiled(recorded, tmp_path / "log", 0, 0, crc=False)
    (copy / "meta.json").write_text("{}")

    answer = flyball("replay", copy)

    assert 2 == answer.code
    assert "meta.json" in answer.err


def test_an_unreachable_broker_is_one_line_and_exit_code_2(unused_tcp_port: int) -> None:
    """No broker: one line on standard error, exit code 2, no traceback."""
    answer = installed("replay", f"kafka://127.0.0.1:{unused_tcp_port}/flyball")

    assert 2 == answer.code
    assert "" == answer.out
    assert 1 == len(answer.err.splitlines())
    assert str(unused_tcp_port) in answer.err


def test_a_log_of_another_fingerprint_is_compared_within_a_tolerance(
    flyball: Flyball, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another fingerprint an equal replay says so, in what they differ, and exits with 3."""
    monkeypatch.setattr("flyball_cli.replay.own_fingerprint", lambda: replace(own_fingerprint(), numpy="99.0"))

    answer = flyball("replay", recorded)

    assert 3 == answer.code
    assert answer.out.startswith("within tolerance, recorded under another fingerprint")
    assert "here 99.0" in answer.out


def test_an_empty_log_says_there_was_nothing(flyball: Flyball, tmp_path: Path) -> None:
    """A log without inputs is not called a success of comparison."""
    EmbeddedLog.create(tmp_path / "log", partitions=2)

    answer = flyball("replay", tmp_path / "log")

    assert 0 == answer.code
    assert "no inputs" in answer.out


def test_replay_leaves_the_log_as_it_was(flyball: Flyball, recorded: Path) -> None:
    """Replay appends nothing, not even to a lock."""
    before = {file: file.read_bytes() for file in sorted(recorded.rglob("*")) if file.is_file()}

    flyball("replay", recorded)

    assert before == {file: file.read_bytes() for file in sorted(recorded.rglob("*")) if file.is_file()}
    assert os.access(recorded, os.W_OK)


def test_orders_from_before_the_first_claim_replay(flyball: Flyball, tmp_path: Path) -> None:
    """Engines that attach and orders that are given before anybody owns the log are heeded, and replay."""
    pool = ScriptedPool("chat", nodes=1, per_node=2)

    async def live() -> None:
        async with embedded_log(tmp_path / "log") as log:
            await log.append(Topic.INPUTS, 0, [Entry(b"chat", encode_input(body)) for body in pool.opening()])
            await fill(log, pool, 5)

    asyncio.run(live())

    assert 0 == flyball("replay", tmp_path / "log").code
