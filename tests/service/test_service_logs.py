"""Log lines: one form for everything, on standard error."""

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from flyball_service.config import LogFormat, LogsConfig
from flyball_service.logs import REPEAT_S, FromLibraries, configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The configuration of logs is the process's: leave it as it was."""
    kept = {logger: list(logger.handlers) for logger in (logging.getLogger(), logging.getLogger("grpc.test"))}
    yield
    structlog.reset_defaults()
    for logger, handlers in kept.items():
        logger.handlers[:] = handlers
        logger.propagate = True


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The JSON objects written so far, one a line."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_lines_carry_service_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line: the event's constant name, its fields, the level, the service, UTC time."""
    configure_logs(LogsConfig(), "agent")

    structlog.get_logger().info("spool_full", dropped=3, unit="größe")

    (line,) = lines(capsys)
    said = datetime.fromisoformat(line.pop("time"))
    assert line == {"event": "spool_full", "dropped": 3, "unit": "größe", "level": "info", "service": "agent"}
    assert said.utcoffset() == datetime.now(UTC).utcoffset()


def test_less_than_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    """The level is the least one written."""
    configure_logs(LogsConfig(level="warning"), "agent")
    log = structlog.get_logger()

    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")

    assert [line["event"] for line in lines(capsys)] == ["c", "d"]


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """The text form has the same fields on a line, without colours where nobody sees them."""
    configure_logs(LogsConfig(format=LogFormat.TEXT), "agent")

    structlog.get_logger().info("spool_full", dropped=3)

    text = capsys.readouterr().err
    assert "spool_full" in text
    assert "dropped=3" in text
    assert "service=agent" in text
    assert "\x1b" not in text


def test_loggers_that_are_there_already_are_reconfigured(capsys: pytest.CaptureFixture[str]) -> None:
    """A logger that a module made before the configuration follows it, and a later one as well."""
    log = structlog.get_logger()
    configure_logs(LogsConfig(), "first")
    log.info("a")
    configure_logs(LogsConfig(), "second")
    log.info("b")

    assert [line["service"] for line in lines(capsys)] == ["first", "second"]


def test_libraries_speak_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """A library's warnings and errors are lines of ours, once each; less than a warning is not."""
    configure_logs(LogsConfig(), "agent")
    configure_logs(LogsConfig(), "agent")

    library = logging.getLogger("aiokafka.test")
    library.info("connecting to %s", "broker")
    library.warning("no broker at %s", "127.0.0.1:9")
    library.error("gone")

    assert [(line["event"], line["level"], line["library"], line["said"]) for line in lines(capsys)] == [
        ("library_said", "warning", "aiokafka.test", "no broker at 127.0.0.1:9"),
        ("library_said", "error", "aiokafka.test", "gone"),
    ]


def test_a_library_that_repeats_itself_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The same template comes once a minute, with the number that was not written."""
    configure_logs(LogsConfig(), "agent")
    now_s = [0.0]
    handler = FromLibraries(lambda: now_s[0])
    library = logging.getLogger("grpc.test")
    library.addHandler(handler)
    library.propagate = False

    for attempt in range(10):
        library.warning("attempt %d", attempt)
    now_s[0] = REPEAT_S
    library.warning("attempt %d", 11)

    assert [(line["said"], line.get("repeated")) for line in lines(capsys)] == [("attempt 0", None), ("attempt 11", 9)]


def test_a_library_s_exception_is_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of what a library caught is in the same object."""
    configure_logs(LogsConfig(), "agent")

    try:
        raise ValueError("spoiled")
    except ValueError:
        logging.getLogger("asyncio").exception("task failed")

    (line,) = lines(capsys)
    assert "ValueError: spoiled" in line["exception"]
