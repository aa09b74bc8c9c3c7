"""What only tests do to a Kafka cluster: odd topics, deletions, permissions without the broker's own tool."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.protocol.admin import CreateAclsRequest

from flyball_log.kafka import KafkaSettings
from flyball_log.kafka.clients import make_admin

_RESOURCES = {"--topic": 2, "--group": 3}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_LITERAL, _ALLOW = 3, 3


async def delete_records(bootstrap: str, topic: str, partition: int, *, before: int) -> None:
    """Have the broker forget the records before an offset."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic; returns when the broker shows it no more."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
        while not (await admin.describe_topics([topic]))[0]["error_code"]:
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def create_topic(bootstrap: str, topic: str, partitions: int, configs: Mapping[str, str]) -> None:
    """Make one topic with one replica and these settings; returns when the broker shows it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        done = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        assert done.topic_errors[0][1] == 0
        while (await admin.describe_topics([topic]))[0]["error_code"]:
            await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def grant(settings: KafkaSettings, calls: Iterable[Sequence[str]]) -> None:
    """Do what each of these calls of `kafka-acls` asks for. Its own program takes seconds a call, and Java."""
    admin = make_admin(settings)
    await admin.start()
    try:
        for words in calls:
            assert words[0] == "--add", words
            options = list(zip(words[1::2], words[2::2], strict=True))
            named = {option: [value for one, value in options if one == option] for option, _ in options}
            assert set(named) <= {"--allow-principal", "--operation", *_RESOURCES}, words
            [principal] = named["--allow-principal"]
            for kind, number in _RESOURCES.items():
                for resource in named.get(kind, ()):
                    for operation in named["--operation"]:
                        request = CreateAclsRequest(
                            number, resource, _LITERAL, principal, "*", _OPERATIONS[operation], _ALLOW
                        )
                        made = await admin._send_request(request)  # noqa: SLF001 - the client has no call for it
                        assert [0] == [code for code, _ in made.creation_responses]
    finally:
        await admin.close()
