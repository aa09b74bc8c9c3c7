"""The tutorial on a laptop, from an empty folder to a replayed log. It takes longest, so another process may run it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from doc_runs import FLEET_PAGE, hold_page


@pytest.mark.timeout(300)
def test_laptop_page(tmp_path: Path, broker: Callable[[], str]) -> None:
    """Ten minutes to a governed laptop fleet: every command says what the page shows."""
    hold_page(FLEET_PAGE, tmp_path, broker)
