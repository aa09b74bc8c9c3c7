"""The operator's first hour, played by the script that an operator can play too."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "journeys" / "operator.py"


@pytest.mark.timeout(600)
def test_an_operators_first_hour(kafka_broker: str, tmp_path: Path) -> None:
    """From certificates to an identical replay, with every process killed once on the way."""
    command = [sys.executable, str(SCRIPT), "--kafka", kafka_broker, "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "journey: everything came as expected" in done.stdout
