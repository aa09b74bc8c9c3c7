"""What the tests of the targets share: servers that a target keeps between its calls end with the test."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from fuzz_doors import close_gateway
from fuzz_pages import close_server


@pytest.fixture
def close_what_targets_keep() -> Iterator[None]:
    """Close servers at the end, and keep log lines of targets out of the test's output."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.reset_defaults()
        close_gateway()
        close_server()
