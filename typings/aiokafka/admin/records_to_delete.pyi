"""The part of aiokafka.admin.records_to_delete that Flyball's tests use."""

class RecordsToDelete:
    def __init__(self, before_offset: int) -> None: ...
