"""The log in Kafka, through aiokafka. Importing this imports the client; importing `flyball_log` does not."""

from flyball_log.kafka.log import KafkaLog, identify
from flyball_log.kafka.settings import DEFAULT_PREFIX, KafkaSettings, settings_for
from flyball_log.kafka.topics import Created, Finding, check_topics, create_topics

__all__ = [
    "DEFAULT_PREFIX",
    "Created",
    "Finding",
    "KafkaLog",
    "KafkaSettings",
    "check_topics",
    "create_topics",
    "identify",
    "settings_for",
]
