"""Where the large measured tables lie: in a folder `shared` beside the checkout, for those who have them.

They are not part of the project, so a test that needs one is skipped, with the reason, where they are absent; whatever
else is required of a run, these tables are not.
"""

from pathlib import Path

import pytest

CALIBRATION = Path(__file__).resolve().parents[3] / "shared" / "data" / "calib"


def measured(name: str) -> Path:
    """The file of the measured table `name`; skips the test that asks where it is absent."""
    path = CALIBRATION / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"the measured table {name} does not lie beside this checkout")
    return path


def measured_trace(name: str) -> Path:
    """The file of the trace `name` of the same set; skips the test that asks where it is absent."""
    path = CALIBRATION.parent / "traces" / f"{name}.parquet"
    if not path.is_file():
        pytest.skip(f"the trace {name} does not lie beside this checkout")
    return path
