"""What is typed, and what controllers answer: exit codes and sentences, never a traceback."""

import io
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from flyball_cli.main import main
from flyball_cli.operating.merging import Answer, merge
from flyball_cli.operating.status_document import status_document
from flyball_cli.operating.times import moment, read_span
from flyball_cli.wording import quantity, span
from flyball_core.errors import Rejected
from flyball_proto.v1.services_pb2 import StatusResponse
from fuzz_commands import answers, command, times
from fuzz_strategies import mutated

pytestmark = pytest.mark.usefixtures("close_what_targets_keep")


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("command"))
def test_command_with_any_bytes(data: bytes) -> None:
    """Any command line ends with a documented exit code."""
    command(data)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("times"))
def test_times_with_any_bytes(data: bytes) -> None:
    """Spans, moments and values are read or refused in a sentence."""
    times(data)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated("answers"))
def test_answers_with_any_bytes(data: bytes) -> None:
    """Whatever controllers answer can be shown."""
    answers(data)


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name may hold any bytes; what is said of it reaches a terminal that takes UTF-8 alone."""
    out = io.BytesIO()
    name = b"policy-\xff.yaml".decode(errors="surrogateescape")
    (tmp_path / name).write_text("version: 1\n")
    monkeypatch.setattr(sys, "argv", ["flyball", "policy", "check", str(tmp_path / name)])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", write_through=True))
    with pytest.raises(SystemExit) as end:
        main()

    assert 0 == end.value.code
    assert b"policy-\\udcff.yaml: sound" in out.getvalue()


def test_a_reason_that_is_no_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What goes to a controller is text; what is not ends with one line and exit code 2."""
    reason = b"\xff".decode(errors="surrogateescape")
    monkeypatch.setattr(sys, "argv", ["flyball", "pause", "chat", "--reason", reason, "--controller", "127.0.0.1:1"])
    with pytest.raises(SystemExit) as end:
        main()

    assert 2 == end.value.code
    assert "flyball: '\\udcff' is not UTF-8\n" == capsys.readouterr().err


@pytest.mark.parametrize("wall_s", [1e308, -1e308, float("inf"), float("nan"), 253_402_300_800.0, -62_135_596_801.0])
def test_a_time_beyond_the_calendar_is_shown_as_seconds(wall_s: float) -> None:
    """A controller may say any time, and an operator the last day of the year 9999 in a zone behind UTC."""
    assert "after 1970" in moment(wall_s)
    assert span(wall_s)
    assert quantity("x", wall_s)


def test_a_span_of_100_kib_is_refused_within_a_second() -> None:
    """Digits without a unit are not gone through once from each of them on."""
    began_s = time.process_time()
    with pytest.raises(Rejected):
        read_span("9" * 100_000 + "x")

    assert 1.0 > time.process_time() - began_s


def test_a_controller_that_claims_4_billion_partitions_is_shown() -> None:
    """What a peer says does not decide how much memory a command takes."""
    status = StatusResponse(controller="c", log_id="l", partitions=2**32 - 1, ready=True)
    found = status_document(merge([Answer(address="127.0.0.1:1", status=status)], []))

    assert 1024 == len(found["attention"])
