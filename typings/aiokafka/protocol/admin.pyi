"""The part of aiokafka.protocol.admin that Flyball's tests use."""

class CreateAclsRequest:
    def __init__(
        self,
        resource_type: int,
        resource_name: str,
        resource_pattern_type_filter: int,
        principal: str,
        host: str,
        operation: int,
        permission_type: int,
    ) -> None: ...

class CreateAclsResponse:
    creation_responses: list[tuple[int, str | None]]
