"""Making and checking the topics of a log in Kafka."""

import uuid

import pytest

from flyball_core.errors import Fatal, LogUnavailable, NotALog, Rejected
from flyball_log import open_log
from flyball_log.kafka import Finding, KafkaLog, KafkaSettings, check_topics, create_topics
from kafka_tools import create_topic, delete_topic


@pytest.fixture
def settings(kafka_broker: str) -> KafkaSettings:
    """Settings for a prefix that nobody has used."""
    return KafkaSettings(bootstrap=(kafka_broker,), prefix=f"topics-{uuid.uuid4().hex[:12]}")


def said(findings: list[Finding], settings: KafkaSettings) -> set[str]:
    """The findings without the prefix and the remedies."""
    return {f"{finding.topic.removeprefix(settings.prefix + '.')}: {finding.problem}" for finding in findings}


async def test_topics_are_made_once(settings: KafkaSettings) -> None:
    """Making topics that are there changes nothing, the log id included."""
    first = await create_topics(settings, partitions=3, replication=1, dev=True)
    second = await create_topics(settings, partitions=5, replication=1, dev=True)

    names = [f"{settings.prefix}.{name}" for name in ("inputs", "decisions", "directives", "state", "meta")]
    assert sorted(names) == sorted(first.topics)
    assert () == second.topics
    assert first.log_id == second.log_id
    log = await open_log(settings.where)
    assert (first.log_id, 3) == (log.log_id, log.partitions)
    await log.close()


async def test_recreated_inputs_are_another_log(settings: KafkaSettings) -> None:
    """When the inputs were deleted and are made anew, the log has a new id."""
    first = await create_topics(settings, partitions=1, replication=1, dev=True)
    await delete_topic(settings.bootstrap[0], f"{settings.prefix}.inputs")
    with pytest.raises(NotALog, match="inputs does not exist"):
        await open_log(settings.where)

    second = await create_topics(settings, partitions=1, replication=1, dev=True)

    assert (f"{settings.prefix}.inputs",) == second.topics
    assert first.log_id != second.log_id


async def test_too_few_replicas_are_refused(settings: KafkaSettings) -> None:
    """Outside dev a log needs three replicas; and a cluster that cannot give them says so."""
    with pytest.raises(Rejected, match="at least 3"):
        await create_topics(settings, replication=2)
    with pytest.raises(Rejected, match="cannot be made"):
        await create_topics(settings, replication=3)
    with pytest.raises(Rejected, match="1 to 1024"):
        await create_topics(settings, partitions=0, replication=1, dev=True)


async def test_a_development_log_is_well_only_in_dev(settings: KafkaSettings) -> None:
    """One replica passes with dev, and outside it every topic is named with what is missing."""
    await create_topics(settings, partitions=1, replication=1, dev=True)

    assert [] == await check_topics(settings, dev=True)
    assert {
        f"{name}: {problem}"
        for name in ("inputs", "decisions", "directives", "state", "meta")
        for problem in ("has 1 replicas", "min.insync.replicas is 1")
    } == said(await check_topics(settings), settings)


async def test_missing_topics_are_found(settings: KafkaSettings) -> None:
    """A log that was never made is no log, and each topic is found missing."""
    with pytest.raises(NotALog, match="flyball topics create"):
        await open_log(settings.where)

    found = said(await check_topics(settings, dev=True), settings)

    assert {f"{name}: does not exist" for name in ("inputs", "decisions", "directives", "state", "meta")} == found


async def test_each_unsafe_setting_is_found(settings: KafkaSettings) -> None:
    """Unclean election, wrong clean-up, different partition counts, small and huge messages, a missing id are found."""
    broker, prefix = settings.bootstrap[0], settings.prefix
    await create_topic(broker, f"{prefix}.inputs", 2, {"unclean.leader.election.enable": "true"})
    await create_topic(broker, f"{prefix}.decisions", 3, {"max.message.bytes": "10485760"})
    await create_topic(broker, f"{prefix}.directives", 2, {"cleanup.policy": "delete"})
    await create_topic(broker, f"{prefix}.state", 2, {"cleanup.policy": "compact", "max.message.bytes": "1000"})
    await create_topic(broker, f"{prefix}.meta", 1, {"cleanup.policy": "compact"})

    found = said(await check_topics(settings, dev=True), settings)

    assert {
        "inputs: unclean leader election is enabled, so synced records can vanish and offsets be used twice",
        "decisions: has 3 partitions, not 2",
        "decisions: max.message.bytes is 10485760",
        "directives: cleanup.policy is delete",
        "state: max.message.bytes is 1000",
        "meta: holds no log id",
    } == found
    with pytest.raises(Fatal, match=r"\[2, 3\] partitions"):
        await KafkaLog.open(settings)


async def test_a_log_without_an_id_is_no_log(settings: KafkaSettings) -> None:
    """Topics whose log id was never written are refused until it is; making topics writes it."""
    await create_topic(settings.bootstrap[0], settings.meta_topic, 1, {"cleanup.policy": "compact"})
    for name in ("inputs", "decisions", "directives", "state"):
        await create_topic(settings.bootstrap[0], f"{settings.prefix}.{name}", 1, {})
    with pytest.raises(NotALog, match="no log id"):
        await KafkaLog.open(settings)

    created = await create_topics(settings, partitions=1, replication=1, dev=True)

    log = await KafkaLog.open(settings)
    assert ((), created.log_id) == (created.topics, log.log_id)
    await log.close()


async def test_without_a_broker_all_say_so(unused_tcp_port: int) -> None:
    """Making and checking fail with the log's name when nobody answers."""
    settings = KafkaSettings(bootstrap=(f"127.0.0.1:{unused_tcp_port}",))

    with pytest.raises(LogUnavailable, match=settings.where):
        await create_topics(settings)
    with pytest.raises(LogUnavailable, match=settings.where):
        await check_topics(settings)
