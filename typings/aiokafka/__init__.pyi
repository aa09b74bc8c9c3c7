"""The part of aiokafka 0.14 that Flyball uses; the package ships no types."""

import asyncio
from collections.abc import Mapping, Sequence
from ssl import SSLContext
from typing import NamedTuple

from aiokafka.abc import ConsumerRebalanceListener as ConsumerRebalanceListener
from aiokafka.structs import (
    ConsumerRecord as ConsumerRecord,
    RecordMetadata as RecordMetadata,
    TopicPartition as TopicPartition,
)

class _Client:
    async def close(self) -> None: ...

class _Sender:
    @property
    def sender_task(self) -> asyncio.Task[None] | None: ...

class _PidAndEpoch(NamedTuple):
    pid: int
    epoch: int

class _TransactionManager:
    _pid_and_epoch: _PidAndEpoch
    def increment_sequence_number(self, tp: TopicPartition, increment: int) -> None: ...

class BatchBuilder:
    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes | None) -> object | None: ...
    def record_count(self) -> int: ...
    def close(self) -> None: ...

class AIOKafkaProducer:
    client: _Client
    _sender: _Sender
    _txn_manager: _TransactionManager
    _closed: bool
    def __init__(
        self,
        *,
        bootstrap_servers: str | Sequence[str] = ...,
        client_id: str | None = None,
        request_timeout_ms: int = 40000,
        acks: int | str = ...,
        compression_type: str | None = None,
        max_batch_size: int = 16384,
        max_request_size: int = 1048576,
        linger_ms: int = 0,
        retry_backoff_ms: int = 100,
        enable_idempotence: bool = False,
        security_protocol: str = "PLAINTEXT",
        ssl_context: SSLContext | None = None,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_username: str | None = None,
        sasl_plain_password: str | None = None,
    ) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send_and_wait(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, partition: int | None = None
    ) -> RecordMetadata: ...
    def create_batch(self) -> BatchBuilder: ...
    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> asyncio.Future[RecordMetadata]: ...

class _GroupCoordinator:
    generation: int

class AIOKafkaConsumer:
    _client: _Client
    _coordinator: _GroupCoordinator
    def __init__(
        self,
        *topics: str,
        bootstrap_servers: str | Sequence[str] = ...,
        client_id: str = ...,
        group_id: str | None = None,
        fetch_max_wait_ms: int = 500,
        fetch_max_bytes: int = 52428800,
        max_partition_fetch_bytes: int = 1048576,
        request_timeout_ms: int = 40000,
        retry_backoff_ms: int = 100,
        auto_offset_reset: str = "latest",
        enable_auto_commit: bool = True,
        check_crcs: bool = True,
        partition_assignment_strategy: Sequence[type[object]] = ...,
        rebalance_timeout_ms: int | None = None,
        session_timeout_ms: int = 10000,
        heartbeat_interval_ms: int = 3000,
        security_protocol: str = "PLAINTEXT",
        ssl_context: SSLContext | None = None,
        sasl_mechanism: str = "PLAIN",
        sasl_plain_username: str | None = None,
        sasl_plain_password: str | None = None,
    ) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...
    def subscribe(self, topics: Sequence[str] = (), *, listener: ConsumerRebalanceListener | None = None) -> None: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def highwater(self, partition: TopicPartition) -> int | None: ...
    async def position(self, partition: TopicPartition) -> int: ...
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, list[ConsumerRecord]]: ...
