"""What a cluster says about the log's topics: which there are, with which replicas, and the log id."""

import asyncio
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient

from flyball_core.ids import LogId
from flyball_log.interface import Topic
from flyball_log.kafka.clients import make_admin, translated
from flyball_log.kafka.reading import Reading
from flyball_log.kafka.settings import KafkaSettings

LOG_ID_KEY = b"log_id"
"""The key of the record in the meta topic whose value is the log id."""

Layout = Mapping[str, tuple[int, ...]]
"""For each topic of the log its partitions' numbers of replicas; empty if the topic does not exist."""


def topic_names(settings: KafkaSettings) -> list[str]:
    """The names of the log's topics, that of the log id last."""
    return [*(settings.topic(topic) for topic in Topic), settings.meta_topic]


async def describe(settings: KafkaSettings, admin: AIOKafkaAdminClient) -> Layout:
    """Ask for the layout over a connection that there is."""
    names = topic_names(settings)
    said = {each["topic"]: each for each in await admin.describe_topics(names)}
    return {
        name: tuple(len(partition["replicas"]) for partition in said[name]["partitions"])
        if name in said and said[name]["error_code"] == 0
        else ()
        for name in names
    }


async def read_layout(settings: KafkaSettings) -> Layout:
    """Ask for the layout. Raises `LogUnavailable` if no broker answers in time, `Fatal` if it is forbidden."""
    admin = make_admin(settings)
    try:
        with translated(settings, "ask for the topics"):
            async with asyncio.timeout(settings.connect_timeout_s):
                await admin.start()
                return await describe(settings, admin)
    finally:
        await admin.close()


async def read_log_id(settings: KafkaSettings, reading: Reading) -> LogId | None:
    """The id in the meta topic; None if there is none. Raises `LogUnavailable`."""
    found: LogId | None = None
    bounds = await reading.bounds(settings.meta_topic, 0)
    at = bounds.begin
    while at < bounds.end:
        records = await reading.read(settings.meta_topic, 0, at, 100, 0.0)
        if not records:
            break
        for record in records:
            if record.key == LOG_ID_KEY and record.value:
                found = LogId(record.value.decode("ascii", "replace"))
        at = records[-1].offset + 1
    return found
