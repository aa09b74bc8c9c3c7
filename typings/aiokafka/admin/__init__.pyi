"""The part of aiokafka.admin that Flyball uses."""

from collections.abc import Mapping, Sequence
from ssl import SSLContext
from typing import TypedDict

from aiokafka.admin.config_resource import ConfigResource
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.protocol.admin import CreateAclsRequest, CreateAclsResponse
from aiokafka.structs import TopicPartition

class _Partition(TypedDict):
    error_code: int
    partition: int
    leader: int
    replicas: list[int]

class _Topic(TypedDict):
    error_code: int
    topic: str
    partitions: list[_Partition]

class _Created:
    topic_errors: list[tuple[int | str, ...]]

class _Configs:
    resources: list[tuple[int, str | None, int, str, list[tuple[str | None, ...]]]]

class NewTopic:
    def __init__(
        self,
        name: str,
        num_partitions: int,
        replication_factor: int,
        replica_assignments: None = None,
        topic_configs: Mapping[str, str] | None = None,
    ) -> None: ...

class AIOKafkaAdminClient:
    def __init__(
        self,
        *,
        bootstrap_servers: str | list[str] = ...,
        client_id: str = ...,
        request_timeout_ms: int = 40000,
        retry_backoff_ms: int = 100,
        security_protocol: str = "PLAINTEXT",
        ssl_context: SSLContext | None = None,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_username: str | None = None,
        sasl_plain_password: str | None = None,
    ) -> None: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def _send_request(self, request: CreateAclsRequest) -> CreateAclsResponse: ...
    async def create_topics(self, new_topics: list[NewTopic], timeout_ms: int | None = None) -> _Created: ...
    async def describe_topics(self, topics: list[str] | None = None) -> list[_Topic]: ...
    async def describe_configs(self, config_resources: Sequence[ConfigResource]) -> list[_Configs]: ...
    async def delete_topics(self, topics: list[str], timeout_ms: int | None = None) -> object: ...
    async def delete_records(
        self, records_to_delete: Mapping[TopicPartition, RecordsToDelete], timeout_ms: int | None = None
    ) -> Mapping[TopicPartition, int]: ...
