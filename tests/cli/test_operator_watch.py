"""`flyball watch`: decisions as they come, over controllers that come and go."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cli_calls import Answer
from flyball_cli.operating.connection import Connection
from flyball_cli.operating.following import Event, Followed, Lost, Recorded, follow
from flyball_cli.operating.merging import Answer as Said, merge
from flyball_cli.operating.status_document import status_document
from flyball_cli.operating.watch import Lines, Screen, event_document, event_line
from flyball_core.fencing import Version
from flyball_core.ids import LogId, PoolId
from flyball_core.outputs import DecisionRecord, RecordKind, TickRecord
from flyball_proto.codec import encode_audit
from flyball_proto.v1.outputs_pb2 import AuditRecord
from operator_examples import LOG_ID, NOW_S, engine, pool, status
from scripted_controller import Script, closed_port, scripted_controller

Flyball = Callable[..., Answer]


def version(revision: int) -> Version:
    """A version of the examples' log."""
    return Version(log_id=LogId(LOG_ID), partition=0, epoch=5, revision=revision)


def record(revision: int, summary: str = "engine-0 weight 128 -> 102") -> AuditRecord:
    """A decision."""
    made = DecisionRecord(
        pool=PoolId("chat"),
        kind=RecordKind.DECISION,
        version=version(revision),
        decision=f"chat@{revision}",
        time_s=float(revision),
        wall_s=NOW_S,
        mode="control",
        regime="interactive",
        confidence=0.98,
        summary=summary,
    )
    return AuditRecord.FromString(encode_audit(made))


def tick(revision: int) -> AuditRecord:
    """A tick's line."""
    made = TickRecord(
        pool=PoolId("chat"),
        version=version(revision),
        time_s=float(revision),
        wall_s=NOW_S,
        inputs_digest=1,
        mode="control",
        regime="interactive",
        confidence=0.98,
        alarm=False,
    )
    return AuditRecord.FromString(encode_audit(made))


async def opened(script: Script) -> None:
    """Wait until somebody follows from a place that is settled."""
    assert await asyncio.to_thread(script.opened.acquire, timeout=10)


class Heard:
    """What a follower says, with a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)
        self._news.set()

    async def until(self, enough: Callable[[list[Event]], bool]) -> None:
        """Wait until what was said is enough."""
        async with asyncio.timeout(10):
            while not enough(self.events):
                self._news.clear()
                await self._news.wait()

    @property
    def summaries(self) -> list[str]:
        """The records' summaries."""
        return [event.record.summary for event in self.events if isinstance(event, Recorded)]


async def test_only_what_comes_from_now_on(script_address: Callable[[Script], str]) -> None:
    """Earlier records are history, ticks are no news, and the order is the log's."""
    script = Script(status(pool()), audit=[record(1, "old")])
    heard = Heard()
    task = asyncio.create_task(follow(Connection(addresses=(script_address(script),)), "chat", heard))
    await opened(script)

    script.add(tick(2), record(3, "first"), tick(4), record(5, "second"))
    await heard.until(lambda _: len(heard.summaries) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ["first", "second"] == heard.summaries
    assert ("chat", True, True) == (
        script.followed[0].pool,
        script.followed[0].follow,
        script.followed[0].from_end,
    )


async def test_a_broken_stream_is_taken_up_where_it_was(script_address: Callable[[Script], str]) -> None:
    """Nothing is missed and nothing comes twice; that it was lost is said once."""
    script = Script(status(pool()))
    heard = Heard()
    task = asyncio.create_task(follow(Connection(addresses=(script_address(script),)), "", heard))
    await opened(script)
    script.add(record(1, "before"))
    await heard.until(lambda _: len(heard.summaries) == 1)

    script.break_streams()
    await heard.until(lambda events: any(isinstance(event, Lost) for event in events))
    script.add(record(2, "meanwhile"))
    await heard.until(lambda _: len(heard.summaries) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ["before", "meanwhile"] == heard.summaries
    assert [False, False] == [event.missed for event in heard.events if isinstance(event, Followed)]
    assert 1 == sum(isinstance(event, Lost) for event in heard.events)
    assert (1, False) == (script.followed[-1].from_offset, script.followed[-1].from_end)


async def test_another_controller_takes_over(script_address: Callable[[Script], str]) -> None:
    """Where one goes away, the next that answers is followed, from the same place."""
    staying = Script(status(pool(epoch=4), controller="b"))
    leaving = Script(status(pool(epoch=5), controller="a"))
    heard = Heard()
    with scripted_controller(leaving) as first:
        connection = Connection(addresses=(first, script_address(staying)))
        task = asyncio.create_task(follow(connection, "chat", heard))
        await opened(leaving)
        leaving.add(record(1, "there"))
        await heard.until(lambda _: len(heard.summaries) == 1)
        staying.audit.append(record(1, "there"))
    staying.add(record(2, "here"))
    await heard.until(lambda _: len(heard.summaries) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ["there", "here"] == heard.summaries


def test_events_as_lines_and_documents() -> None:
    """Each is one line; a record carries its id, an interruption its reason."""
    [decided] = [
        Recorded(offset=7, record=one)
        for one in [
            DecisionRecord(
                pool=PoolId("chat"),
                kind=RecordKind.ORDER,
                version=version(9),
                decision="chat@9",
                time_s=9.0,
                wall_s=NOW_S,
                mode="control",
                regime="interactive",
                confidence=0.5,
                summary="override refused",
                refused=True,
            )
        ]
    ]

    assert "chat  order    (refused)  override refused  [chat@9]" in event_line(decided)
    assert ("record", "order", True, 7) == tuple(
        event_document(decided)[key] for key in ("event", "kind", "refused", "offset")
    )
    assert "records may have been missed" in event_line(Followed(what="pool chat", address="a:1", missed=True))
    assert "lost the decisions of pool chat: gone" == event_line(Lost(what="pool chat", why="gone"))


def test_lines_say_what_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the status only what needs attention is told, and only when that changes; a silence once."""
    well, ill = (
        status_document(merge([Said(address="a:1", status=status(pool("chat", [one])))], []))
        for one in (engine("engine-0"), engine("engine-0", trouble="nack: no"))
    )
    lines = Lines(as_json=True)
    for found in (well, well, ill, ill, well):
        lines.status(found)
    lines.silence("nobody")
    lines.silence("nobody")
    lines.status(well)
    lines.close()

    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [True, False, True, None, True] == [one.get("healthy") for one in said]


def test_the_screen_is_drawn() -> None:
    """The status is redrawn in place, and events stand above it."""
    drawn = StringIO()
    screen = Screen(Console(file=drawn, force_terminal=True, width=120, height=40))
    screen.status(status_document(merge([Said(address="a:1", status=status(pool()))], [])))
    screen.event(Followed(what="pool chat", address="a:1", missed=False))
    screen.silence("no controller answered")
    screen.close()

    for expected in ("All is well", "following the decisions of pool chat", "no controller answered", "engine-0"):
        assert expected in drawn.getvalue()


def test_nobody_at_the_start_is_an_error(flyball: Flyball) -> None:
    """A watch of nothing ends at once; one that has begun goes on."""
    found = flyball("watch", "--json", "--controller", closed_port())

    assert 2 == found.code
    assert "no controller answered" in found.err


def _flyball() -> str:
    return str(Path(sys.executable).with_name("flyball"))


def test_ctrl_c_ends_it(script_address: Callable[[Script], str]) -> None:
    """With exit code 130; each line before it is one JSON document."""
    script = Script(status(pool()))
    at = script_address(script)
    command = [_flyball(), "watch", "--json", "--controller", at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        first = [json.loads(running.stdout.readline()) for _ in range(2)]
        assert script.opened.acquire(timeout=10)
        script.add(record(1, "now"))
        third = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGINT)
        running.stdout.read()
        assert ["flyball: interrupted"] == running.stderr.read().split("\n")[-2:-1]
        assert 130 == running.wait(timeout=30)

    assert {"attention", "followed"} == {one["event"] for one in first}
    assert ("record", "now") == (third["event"], third["summary"])


def test_a_terminal_gets_a_screen(script_address: Callable[[Script], str]) -> None:
    """The whole status, drawn in place; Ctrl-C gives the terminal back."""
    ours, theirs = pty.openpty()
    command = [_flyball(), "watch", "chat", "--controller", script_address(Script(status(pool())))]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment) as running:
        os.close(theirs)
        drawn = b""
        while b"gateway-0" not in drawn:
            drawn += os.read(ours, 65_536)
        running.send_signal(signal.SIGINT)
        try:
            while os.read(ours, 65_536):
                pass
        except OSError:  # the other end is closed
            pass
        assert 130 == running.wait(timeout=30)
    os.close(ours)

    assert b"All is well" in drawn
