"""The part of aiokafka's sticky assignor that Flyball uses."""

from aiokafka.structs import TopicPartition

class StickyPartitionAssignor:
    DEFAULT_GENERATION_ID: int
    member_assignment: list[TopicPartition] | None
    generation: int
    @classmethod
    def on_generation_assignment(cls, generation: int) -> None: ...
