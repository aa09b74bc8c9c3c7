"""Targets: scenarios and traces, which people write and others publish.

The promises: a wrong scenario is refused with every mistake at a place that there is; a right one can be read again.
A wrong trace is refused by name; a right one is in order and its requests have tokens.
"""

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random

from flyball_core.errors import Rejected
from flyball_twin.scenario.model import TraceSource
from flyball_twin.scenario.reading import InvalidScenario, read_scenario
from flyball_twin.traffic.asking import play_trace
from flyball_twin.traffic.recorded import read_sessions
from flyball_twin.traffic.sessions import RecordedPlans
from flyball_twin.traffic.traces import open_trace
from fuzz_bytes import says

_LINE_ENDS = ("\n", "\r", "\x85", "\u2028", "\u2029")


@contextmanager
def _file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flyball-fuzz-") as folder:
        file = Path(folder) / name
        file.write_bytes(data)
        yield file


def scenario(data: bytes) -> None:
    """A scenario: read whole, or refused with all its mistakes."""
    lines = sum(map(data.decode(errors="surrogateescape").count, _LINE_ENDS)) + 1
    with _file("s.yaml", data) as file:
        try:
            found = read_scenario(file)
        except InvalidScenario as error:
            _placed(error, str(file), lines)
            return
        assert found == read_scenario(file)
        assert found.duration_s > 0.0
        assert all(stream.from_s < stream.to_s <= found.duration_s for stream in found.streams)
        assert all(pool.engines and pool.lanes for pool in found.pools)


def _placed(error: InvalidScenario, file: str, lines: int) -> None:
    """Each fault tells a place that there is, in text that can be sent."""
    assert error.faults
    for fault in error.faults:
        assert str(fault).encode()
        assert fault.file != file or 1 <= fault.line <= lines
        assert fault.column >= 1


def trace(data: bytes) -> None:
    """A trace and recorded sessions, plain and packed: played in order, or refused by name."""
    for name, content in (("t.csv", data), ("t.csv.gz", data), ("p.csv.gz", gzip.compress(data, mtime=0))):
        with _file(name, content) as file:
            _plays(file)
            _sessions(file)


def _plays(file: Path) -> None:
    try:
        drafts = list(islice(play_trace(TraceSource(trace="t", repeat=True), open_trace(file), Random(1)), 50))
    except Rejected as error:
        says(error)
    else:
        arrivals = [draft[0] for draft in drafts]
        assert sorted(arrivals) == arrivals
        assert 50 == len(drafts)
        assert all(draft[1] >= 1 and draft[2] >= 1 for draft in drafts)


def _sessions(file: Path) -> None:
    try:
        sessions = read_sessions(file)
    except Rejected as error:
        says(error)
    else:
        plan = RecordedPlans(sessions, 100).draw(Random(1))
        assert plan.steps
        assert all(step.prompt_tokens >= 1 and step.prompt_tokens + step.output_tokens <= 101 for step in plan.steps)
