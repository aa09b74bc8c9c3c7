"""`flyball receiver check` says which rules a receiver holds, in words and as the documented document."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli_calls import Answer
from documented_shapes import same_shape

Flyball = Callable[..., Answer]
PROGRAM = Path(__file__).parents[1] / "agents" / "minimal_receiver.py"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def attaching(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a minimal receiver, broken in some way or none, that tries to attach; the address it tries."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*breaks: str) -> str:
        where = f"127.0.0.1:{free_port()}"
        started.append(subprocess.Popen([sys.executable, str(PROGRAM), where, str(tmp_path), *breaks]))
        return where

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_receiver_that_holds_all_rules_passes(flyball: Flyball, attaching: Callable[..., str]) -> None:
    """A line per rule, then the sum; exit code 0."""
    answer = flyball("receiver", "check", "--listen", attaching(), "--timeout", "20s")

    assert answer.code == 0
    assert "  R7  held     an older version is refused and changes nothing\n" in answer.out
    assert answer.out.endswith("mini of chat: 24 held, 0 broken, 1 skipped\n")


def test_a_receiver_that_breaks_a_rule_does_not(flyball: Flyball, attaching: Callable[..., str]) -> None:
    """The document names the rule and what the receiver did; exit code 1."""
    answer = flyball("receiver", "check", "--listen", attaching("stale"), "--timeout", "20s", "--json")
    document = answer.document
    broken = [one for one in document["results"] if one["verdict"] == "broken"]

    assert (answer.code, document["broken"]) == (1, 1)
    assert [("R7", "was answered applied")] == [(one["rule"], one["why"]) for one in broken]
    same_shape("receiver-check", document)


def test_nobody_there_is_bad_input(flyball: Flyball) -> None:
    """Without a receiver the command ends in time, in one line."""
    answer = flyball("receiver", "check", "--listen", "127.0.0.1:0", "--timeout", "1s")

    assert answer.code == 2
    assert "no receiver opened a stream within 1 s" in answer.err


def test_it_listens_on_this_machine_only(flyball: Flyball) -> None:
    """Whoever could reach it could not be told from a receiver."""
    answer = flyball("receiver", "check", "--listen", "0.0.0.0:0")

    assert answer.code == 2
    assert "beyond loopback" in answer.err
