"""Every command and every snippet on every page does what the page says; the longest page has a module of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from doc_blocks import pages
from doc_runs import FLEET_PAGE, hold_page


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [page for page in pages() if page != FLEET_PAGE])
def test_page(page: str, tmp_path: Path, broker: Callable[[], str]) -> None:
    """The blocks of the page, run in order, say what the page shows."""
    hold_page(page, tmp_path, broker)
