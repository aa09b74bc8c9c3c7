"""The part of aiokafka.structs that Flyball uses."""

from typing import NamedTuple

class TopicPartition(NamedTuple):
    topic: str
    partition: int

class RecordMetadata(NamedTuple):
    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int

class ConsumerRecord:
    offset: int
    key: bytes | None
    value: bytes | None
