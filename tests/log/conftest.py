"""The homes of the log and the broker, as fixtures."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kafka_broker import kafka_broker as kafka_broker, own_broker as own_broker
from log_homes import EmbeddedHome, Home, KafkaHome, MemoryHome


@pytest.fixture(params=["embedded", "memory", "kafka"])
async def home(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Home]:
    """Each home in turn."""
    made: Home
    if request.param == "kafka":
        made = KafkaHome(request.getfixturevalue("kafka_broker"))
    else:
        made = EmbeddedHome(tmp_path) if request.param == "embedded" else MemoryHome()
    yield made
    await made.close()
