"""Every command and every snippet on every page does what the page says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from doc_blocks import Run, blocks_of, pages
from doc_runs import PageRun


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[], str]:
    """HOST:PORT of a Kafka broker, started when it is first asked for; skips where there can be none."""

    def ask() -> str:
        return str(request.getfixturevalue("kafka_broker"))

    return ask


@pytest.mark.parametrize("page", pages())
def test_page(page: str, tmp_path: Path, broker: Callable[[], str]) -> None:
    """The blocks of the page, run in order, say what the page shows."""
    run = PageRun(page, tmp_path, broker)
    try:
        for block in blocks_of(page):
            if isinstance(block.marker, Run):
                run.run(block, block.marker)
    finally:
        run.close()
    run.no_service_raised()
