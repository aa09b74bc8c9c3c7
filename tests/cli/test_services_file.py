"""`--config` of the commands that take a log: which log is meant, and how it is connected to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli_calls import Answer
from flyball_cli.services_file import NamedLog, named_log
from flyball_core.errors import Rejected

Flyball = Callable[..., Answer]

TLS = "log: kafka://kafka-1:9093,kafka-2:9093/fleet\nkafka: {tls_folder: kafka}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a services' file."""

    def write(text: str) -> Path:
        file = tmp_path / "flyball.yaml"
        file.write_text(text)
        return file

    return write


def test_the_file_names_the_log(write: Callable[[str], Path], tmp_path: Path) -> None:
    """Without LOG it is the file's, with the file's certificates; a folder is relative to the file."""
    brokers = named_log(None, write(TLS))
    folder = named_log(None, write("log: here\n"))

    assert "kafka://kafka-1:9093,kafka-2:9093/fleet" == brokers.where
    assert brokers.kafka is not None
    assert ("SSL", str(tmp_path / "kafka" / "ca.crt")) == (brokers.kafka.security_protocol, brokers.kafka.ca_file)
    assert NamedLog(where=str(tmp_path / "here"), kafka=None) == folder


def test_a_named_log_goes_before_the_files(write: Callable[[str], Path]) -> None:
    """LOG is meant where both name one, and the file still says how to connect; a folder needs nothing of it."""
    other = named_log("kafka://other:9093/old", write(TLS))

    assert other.kafka is not None
    assert ("kafka://other:9093/old", "old", "SSL") == (
        other.where,
        other.kafka.prefix,
        other.kafka.security_protocol,
    )
    assert NamedLog(where="some/log", kafka=None) == named_log("some/log", write(TLS))


def test_without_the_file_loopback_alone_is_reached(write: Callable[[str], Path]) -> None:
    """A broker on this machine needs no file; another needs its section `kafka`, and it is said so."""
    here = named_log("kafka://127.0.0.1:9092/flyball", None)

    assert here.kafka is not None
    assert "PLAINTEXT" == here.kafka.security_protocol
    for file in (None, write("log: here\n")):
        with pytest.raises(Rejected, match=r"kafka-1:9093 is beyond this machine.*give --config FILE"):
            named_log("kafka://127.0.0.1:9092,kafka-1:9093/flyball", file)


@pytest.mark.parametrize("command", [("topics", "create"), ("topics", "check"), ("replay",), ("explain", "--log")])
def test_some_log_must_be_named(flyball: Flyball, command: tuple[str, ...], tmp_path: Path) -> None:
    """Neither LOG nor --config, or no such file: exit code 2, and what is missing."""
    neither = flyball(*command)
    no_file = flyball(*command, "--config", tmp_path / "none.yaml")

    assert 2 == neither.code == no_file.code
    assert "give LOG, or --config FILE" in neither.err
    assert "none.yaml: cannot be read" in no_file.err


def test_a_file_without_brokers_has_no_topics(flyball: Flyball, write: Callable[[str], Path]) -> None:
    """Topics are Kafka's, whoever names the log."""
    answer = flyball("topics", "check", "--config", write("log: here\n"))

    assert 2 == answer.code
    assert "topics are Kafka's" in answer.err


def test_a_log_is_replayed_and_explained_by_the_file(
    flyball: Flyball, recorded: Path, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's log gives what the same log gives by its name; the environment may name the file."""
    file = write(f"log: {recorded}\n")
    by_name = flyball("explain", "chat", "--log", recorded, "--json")

    assert flyball("replay", recorded, "--json") == flyball("replay", "--config", file, "--json")
    assert by_name == flyball("explain", "chat", "--config", file, "--log", "--json")
    assert by_name == flyball("explain", "chat", "--log", recorded, "--config", write(TLS), "--json")
    monkeypatch.setenv("FLYBALL_CONFIG", str(write(f"log: {recorded}\n")))
    assert by_name == flyball("explain", "chat", "--log", "--json")
    assert 0 == flyball("replay").code
