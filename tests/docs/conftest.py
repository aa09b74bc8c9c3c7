"""A Kafka broker for pages that need one."""

from collections.abc import Callable

import pytest

from kafka_broker import kafka_broker as kafka_broker


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[], str]:
    """HOST:PORT of a Kafka broker, started when it is first asked for; skips where there can be none."""

    def ask() -> str:
        return str(request.getfixturevalue("kafka_broker"))

    return ask
