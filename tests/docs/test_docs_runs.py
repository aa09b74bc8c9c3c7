"""Every command and every snippet on every page does what the page says."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doc_blocks import Block, Run, blocks_of, pages
from doc_runs import PageRun


def runs_of(page: str) -> Iterator[tuple[Block, Run]]:
    """The blocks of a page that are run, with how."""
    for block in blocks_of(page):
        if isinstance(block.marker, Run):
            yield block, block.marker


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[], str]:
    """HOST:PORT of a Kafka broker, started when it is first asked for; skips where there can be none."""

    def ask() -> str:
        return str(request.getfixturevalue("kafka_broker"))

    return ask


@pytest.mark.parametrize("page", pages())
def test_page(page: str, tmp_path: Path, broker: Callable[[], str]) -> None:
    """The blocks of the page, run in order, say what the page shows."""
    if any("curl " in block.text for block, _ in runs_of(page)) and shutil.which("curl") is None:
        (pytest.fail if os.environ.get("FLYBALL_REQUIRE") == "all" else pytest.skip)("the page needs curl")
    left_out: list[str] = []
    run = PageRun(page, tmp_path, broker)
    try:
        for block, how in runs_of(page):
            try:
                run.run(block, how)
            except pytest.skip.Exception as missing:
                left_out.append(f"{block.where}: {missing}")
    finally:
        run.close()
    run.no_service_raised()
    if left_out:
        pytest.skip(f"all else on the page holds, but {'; '.join(left_out)}")
