"""What only tests do to a Kafka cluster: odd topics, deletions, a broken producer."""

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete


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
