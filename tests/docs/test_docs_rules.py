"""The rules that pages are held by: what counts as the same output, what a marker may say, what a session ends."""

import os
import socket
from pathlib import Path

import pytest

from doc_blocks import BadPage, NotRun, Run, Shape, read_blocks, read_marker
from doc_ports import Ports
from doc_runs import Differs, PageRun
from doc_sessions import Session, Stuck
from doc_transcripts import agrees, steps_of


def no_broker() -> str:
    """These tests need none."""
    raise AssertionError


def test_blanks_may_differ_and_nothing_else() -> None:
    """Runs of blanks count as one; a letter, a number, a line more or less do not pass."""
    assert agrees(("a   b 1",), "a b  1\n", loose=False)
    assert not agrees(("a b 1",), "a b 2\n", loose=False)
    assert not agrees(("a",), "a\nb\n", loose=False)
    assert not agrees(("a", "b"), "a\n", loose=False)


def test_dots_stand_for_text_or_for_lines() -> None:
    """Within a line they stand for text of that line, alone on a line for any lines, also none."""
    assert agrees(("id ...!",), "id 7f3!\n", loose=False)
    assert not agrees(("id ...!",), "id\n7!\n", loose=False)
    assert agrees(("first", "...", "last"), "first\nx\ny\nlast\n", loose=False)
    assert agrees(("first", "...", "last"), "first\nlast\n", loose=False)
    assert not agrees(("first", "...", "last"), "first\nx\n", loose=False)


def test_loose_lets_numbers_differ_and_nothing_else() -> None:
    """Any number stands for any number; the words around it must be there."""
    assert agrees(("p99 4.4 s of 10,161",), "p50 12 s of 3\n", loose=True)
    assert not agrees(("p99 4.4 s",), "p99 4.4 ms\n", loose=True)
    assert not agrees(("p99 4.4 s",), "p99 none s\n", loose=True)


def test_a_command_without_output_is_not_compared() -> None:
    """Nothing shown means nothing claimed but the exit code."""
    assert agrees((), "anything\n", loose=False)


def test_a_transcript_is_commands_and_what_is_below_each() -> None:
    """A backslash goes on in the next line; blank lines at the end of output do not count."""
    steps = steps_of("$ one\nout\n\n$ two \\\n    more\n$ three\n")

    assert [("one", ("out",)), ("two \\\n    more", ()), ("three", ())] == [(s.command, s.shown) for s in steps]
    with pytest.raises(ValueError, match="opens with a prompt"):
        steps_of("no prompt\n")


def test_markers_say_one_of_three_things() -> None:
    """Run it, compare its shape, or leave it out for a reason of the list; all else is an error or no marker."""
    assert Run(setting="shell", file="a.yaml", loose=True, within_s=20, code=2) == read_marker(
        "<!-- run: shell, file a.yaml, loose, within 20 s, exit 2 -->", ""
    )
    assert Shape(name="demo") == read_marker("<!-- shape: demo -->", "")
    assert NotRun(reason="needs a GPU") == read_marker("<!-- not run: needs a GPU -->", "")
    assert read_marker("<!-- a remark -->", "") is None


@pytest.mark.parametrize(
    "marker", ["<!-- run: nowhere -->", "<!-- run: shell, quickly -->", "<!-- not run: no time -->"]
)
def test_a_marker_that_means_nothing_is_an_error(marker: str) -> None:
    """A setting, an option or a reason that does not exist is said with its place."""
    with pytest.raises(BadPage, match=r"page\.md:3"):
        read_marker(marker, "page.md:3")


def test_a_block_has_the_marker_directly_above_it() -> None:
    """One line further up is too far; a block that is never closed is an error."""
    near, far = read_blocks(
        "p.md", "<!-- run: shell -->\n```console\n$ x\n```\n<!-- shape: y -->\n\n```json\n{}\n```\n"
    )

    assert (near.line, near.text, near.marker) == (2, "$ x\n", Run(setting="shell"))
    assert (far.language, far.marker) == ("json", None)
    with pytest.raises(BadPage, match=r"p.md:1: this block is never closed"):
        list(read_blocks("p.md", "```\n"))


def test_ports_are_replaced_alike_everywhere_and_are_free() -> None:
    """One documented port is one other port in all texts, and back; a number that is no address's port stays."""
    ports = Ports()
    text = ports.in_text("127.0.0.1:7460 localhost:7460 wait 7460")
    port = ports.of(7460)

    assert f"127.0.0.1:{port} localhost:{port} wait 7460" == text
    assert "127.0.0.1:7460 localhost:7460 wait 7460" == ports.put_back(text)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))


def test_a_session_keeps_its_folder_and_ends_what_it_started(tmp_path: Path) -> None:
    """`cd`, variables and jobs last from command to command; when the session ends, so do its jobs."""
    (tmp_path / "below").mkdir()
    with Session(tmp_path, {"PATH": os.environ["PATH"]}) as session:
        session.run("cd below; name=it; sleep 600 & echo $! > pid")
        said = session.run("echo $name; pwd; false")
        pid = int((tmp_path / "below" / "pid").read_text())
        os.kill(pid, 0)

    assert (f"it\n{tmp_path}/below", 1) == (said.text.strip(), said.code)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_command_that_hangs_is_said(tmp_path: Path) -> None:
    """What does not end within its bound fails with what it had said by then."""
    with Session(tmp_path, {"PATH": os.environ["PATH"]}) as session, pytest.raises(Stuck, match="so far"):
        session.run("echo so far; sleep 600", bound_s=0.3)


@pytest.mark.parametrize(
    ("language", "text", "run"),
    [
        ("console", "$ echo 1\n2\n", Run(setting="shell")),
        ("console", "$ false\n", Run(setting="shell")),
        ("console", "$ true\n", Run(setting="shell", code=2)),
        ("python", "raise SystemExit(3)\n", Run(setting="python")),
        ("yaml", "version: 1\nmode: contrl\n", Run(setting="policy")),
    ],
)
def test_a_page_that_says_something_else_fails(tmp_path: Path, language: str, text: str, run: Run) -> None:
    """Wrong output, a wrong exit code, a script that fails and a document that is refused are all found."""
    (block,) = read_blocks("p.md", f"```{language}\n{text}```\n")
    page = PageRun("p.md", tmp_path, no_broker)
    try:
        with pytest.raises(Differs, match=r"p\.md:"):
            page.run(block, run)
    finally:
        page.close()
