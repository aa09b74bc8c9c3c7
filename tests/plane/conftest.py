"""Controllers for the tests of what runs together: in this process, on ports of their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kafka_broker import kafka_broker as kafka_broker, own_broker as own_broker
from plane_clients import Running, config_for, running


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Running]:
    """A ready controller with an embedded log and a policy for the scripted pool."""
    async with running(config_for(tmp_path)) as one:
        yield one
