"""The part of aiokafka.abc that Flyball uses."""

import abc
from collections.abc import Collection

from aiokafka.structs import TopicPartition

class ConsumerRebalanceListener(abc.ABC):
    @abc.abstractmethod
    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None: ...
    @abc.abstractmethod
    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None: ...
