"""The large traces, where they lie beside the checkout: read whole, and what the bundled ones were cut from."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from flyball_twin.scenario.model import TraceSource
from flyball_twin.traffic.asking import play_trace
from flyball_twin.traffic.files import DATA, bundled
from flyball_twin.traffic.recorded import read_sessions
from flyball_twin.traffic.traces import open_trace
from measured_tables import measured_trace

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "requests", "mean_rps"),
    [
        ("azure2023_code_h1", 5353, 3.14),
        ("mooncake_conversation", 12_031, 3.40),
        ("servegen_mlarge_week1_resampled", 716_834, 1.19),
    ],
)
def test_a_trace_is_played_whole(name: str, requests: int, mean_rps: float) -> None:
    """As many requests as published, at the published rate, in order."""
    path = measured_trace(name)
    count, last_s = 0, 0.0
    for draft in play_trace(TraceSource(trace=name), open_trace(path), Random(1)):
        assert draft[0] >= last_s
        count, last_s = count + 1, draft[0]

    assert requests == count
    assert mean_rps == pytest.approx(count / last_s, abs=0.01)


def test_recorded_sessions_are_read_whole() -> None:
    """As many sessions, requests and openings that are different as published."""
    sessions = read_sessions(measured_trace("claude_code_agentic_sessions"))

    assert (351, 341) == (len(sessions), len({session.group for session in sessions}))
    assert 22_431 == sum(len(session.steps) for session in sessions)


def test_the_bundled_traces_are_cut_as_the_script_says(tmp_path: Path) -> None:
    """`scripts/cut_traces.py` gives the same bytes again."""
    source = measured_trace("mooncake_conversation").parent
    script = ROOT / "scripts" / "cut_traces.py"
    command = [sys.executable, str(script), str(source), str(tmp_path)]
    subprocess.run(command, capture_output=True, check=True, timeout=100)

    assert set(bundled()) == {path.name.removesuffix(".csv.gz") for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        assert (DATA / path.name).read_bytes() == path.read_bytes(), path.name
