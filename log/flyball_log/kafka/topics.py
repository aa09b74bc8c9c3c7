"""Making the log's topics, and finding out whether a cluster keeps what they promise.

Topics are made once and never altered from here: the client's only way to alter settings
resets those that are not named. `check_topics` says what an operator should change.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NoError, TopicAlreadyExistsError, for_code

from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.ids import LogId
from flyball_log.interface import Entry, Topic
from flyball_log.kafka.clients import make_admin, translated
from flyball_log.kafka.layout import LOG_ID_KEY, Layout, describe, read_log_id
from flyball_log.kafka.producing import Producing
from flyball_log.kafka.reading import Reading
from flyball_log.kafka.settings import KafkaSettings
from flyball_log.limits import MAX_RECORD_BYTES, check_partitions

LEAST_REPLICAS = 3
LEAST_IN_SYNC = 2
MAX_MESSAGE_BYTES = 4 * MAX_RECORD_BYTES
"""Largest message of a topic that is made here: a batch of ours, and a quarter more. What a stranger sends beyond it
the broker refuses."""
_CREATE_S = 30.0
_DAY_MS = 86_400_000
_CHECKED = ("cleanup.policy", "min.insync.replicas", "unclean.leader.election.enable", "max.message.bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What `create_topics` did: the topics it made (none if all were there), and the log's id."""

    log_id: LogId
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with a topic, and what would be right."""

    topic: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.problem}; {self.remedy}"


def _compacted(settings: KafkaSettings, name: str) -> bool:
    return name == settings.meta_topic or any(name == settings.topic(topic) for topic in Topic if topic.compacted)


def _configs(settings: KafkaSettings, name: str, retention_days: float, *, dev: bool) -> dict[str, str]:
    """The settings a topic is made with."""
    configs = {
        "cleanup.policy": "compact" if _compacted(settings, name) else "delete",
        "min.insync.replicas": "1" if dev else str(LEAST_IN_SYNC),
        "unclean.leader.election.enable": "false",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    if not _compacted(settings, name):
        configs["retention.ms"] = str(int(retention_days * _DAY_MS))
    return configs


async def create_topics(
    settings: KafkaSettings,
    *,
    partitions: int = 8,
    replication: int = LEAST_REPLICAS,
    retention_days: float = 7.0,
    dev: bool = False,
) -> Created:
    """Make those topics that are missing, and a log id if the inputs are new or there is none yet.

    `dev` allows fewer than 3 replicas. Raises `Rejected` for numbers that are not safe or that the
    cluster cannot give, `LogUnavailable` if it does not answer.
    """
    check_partitions(partitions)
    if replication < 1 or (replication < LEAST_REPLICAS and not dev):
        raise Rejected(f"{replication} replicas: at least {LEAST_REPLICAS} are needed, or --dev for trying things out")
    admin = make_admin(settings)
    try:
        with translated(settings, "create topics"):
            async with asyncio.timeout(settings.connect_timeout_s):
                await admin.start()
                before = await describe(settings, admin)
            wanted = [
                NewTopic(
                    name,
                    1 if name == settings.meta_topic else partitions,
                    replication,
                    topic_configs=_configs(settings, name, retention_days, dev=dev),
                )
                for name, there in before.items()
                if not there
            ]
            made = await _create(settings, admin, wanted)
            await _until_there(settings, admin)
    finally:
        await admin.close()
    return Created(log_id=await _ensure_log_id(settings, renew=settings.topic(Topic.INPUTS) in made), topics=made)


async def _create(settings: KafkaSettings, admin: AIOKafkaAdminClient, wanted: list[NewTopic]) -> tuple[str, ...]:
    """The names of those of `wanted` that were made now."""
    if not wanted:
        return ()
    made = []
    for name, code, *message in (await admin.create_topics(wanted, int(_CREATE_S * 1000))).topic_errors:
        error = for_code(int(code))
        if error is NoError:
            made.append(str(name))
        elif error is not TopicAlreadyExistsError:
            said = message[0] if message and message[0] else error.__name__
            raise Rejected(f"{settings.where}: topic {name} cannot be made: {said}")
    return tuple(made)


async def _until_there(settings: KafkaSettings, admin: AIOKafkaAdminClient) -> None:
    """Wait until every topic is known to the broker that is asked."""
    async with asyncio.timeout(_CREATE_S):
        while True:
            if all((await describe(settings, admin)).values()):
                return
            await asyncio.sleep(0.1)


async def _ensure_log_id(settings: KafkaSettings, *, renew: bool) -> LogId:
    reading, producing = Reading(settings), Producing(settings)
    try:
        held = await read_log_id(settings, reading)
        if held is not None and not renew:
            return held
        log_id = LogId(str(uuid.uuid4()))
        await producing.commit((settings.meta_topic, 0), [Entry(LOG_ID_KEY, log_id.encode())])
        return log_id
    finally:
        await producing.close()
        await reading.close()


async def check_topics(settings: KafkaSettings, *, dev: bool = False) -> list[Finding]:
    """What keeps this cluster from holding the log safely; nothing if all is well.

    `dev` allows fewer replicas. Raises `LogUnavailable` if the cluster does not answer, `Fatal` if it is forbidden.
    """
    admin = make_admin(settings)
    try:
        with translated(settings, "check topics"):
            async with asyncio.timeout(settings.connect_timeout_s):
                await admin.start()
                layout = await describe(settings, admin)
                there = [name for name, replicas in layout.items() if replicas]
                configs = await _read_configs(admin, there)
    finally:
        await admin.close()
    findings = _check_layout(settings, layout, dev=dev)
    for name in there:
        findings += _check_configs(name, configs.get(name, {}), compacted=_compacted(settings, name), dev=dev)
    if layout[settings.meta_topic]:
        reading = Reading(settings)
        try:
            if await read_log_id(settings, reading) is None:
                problem = "holds no log id"
                findings.append(
                    Finding(topic=settings.meta_topic, problem=problem, remedy="run `flyball topics create`")
                )
        finally:
            await reading.close()
    return findings


async def _read_configs(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """The settings in force of each topic, the cluster's defaults included."""
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, message, _, name, entries in answer.resources:
            if code:
                raise LogUnavailable(f"the settings of {name} cannot be read: {message or for_code(code).__name__}")
            found[name] = {str(entry[0]): str(entry[1]) for entry in entries if entry[0] in _CHECKED}
    return found


def _check_layout(settings: KafkaSettings, layout: Layout, *, dev: bool) -> list[Finding]:
    findings = []
    inputs = len(layout[settings.topic(Topic.INPUTS)])
    for name, replicas in layout.items():
        wanted = 1 if name == settings.meta_topic else inputs
        if not replicas:
            findings.append(Finding(topic=name, problem="does not exist", remedy="run `flyball topics create`"))
            continue
        if wanted and len(replicas) != wanted:
            problem = f"has {len(replicas)} partitions, not {wanted}"
            findings.append(Finding(topic=name, problem=problem, remedy="make the log anew under another prefix"))
        if min(replicas) < LEAST_REPLICAS and not dev:
            problem = f"has {min(replicas)} replicas"
            findings.append(Finding(topic=name, problem=problem, remedy=f"give it {LEAST_REPLICAS} or more"))
    return findings


def _check_configs(topic: str, configs: Mapping[str, str], *, compacted: bool, dev: bool) -> list[Finding]:
    findings = []
    policy = "compact" if compacted else "delete"
    if configs.get("cleanup.policy") != policy:
        problem = f"cleanup.policy is {configs.get('cleanup.policy')}"
        findings.append(Finding(topic=topic, problem=problem, remedy=f"set it to {policy}"))
    if configs.get("unclean.leader.election.enable") != "false":
        problem = "unclean leader election is enabled, so synced records can vanish and offsets be used twice"
        findings.append(Finding(topic=topic, problem=problem, remedy="set unclean.leader.election.enable=false"))
    if not dev and int(configs.get("min.insync.replicas", "0")) < LEAST_IN_SYNC:
        problem = f"min.insync.replicas is {configs.get('min.insync.replicas')}"
        findings.append(Finding(topic=topic, problem=problem, remedy=f"set it to {LEAST_IN_SYNC} or more"))
    largest = int(configs.get("max.message.bytes", "0"))
    problem = f"max.message.bytes is {largest}"
    if largest < MAX_MESSAGE_BYTES:
        findings.append(Finding(topic=topic, problem=problem, remedy=f"set it to {MAX_MESSAGE_BYTES} or more"))
    if largest > 2 * MAX_MESSAGE_BYTES:  # what a stranger may send, every reader of the topic has to take
        findings.append(Finding(topic=topic, problem=problem, remedy=f"set it to {MAX_MESSAGE_BYTES}"))
    return findings
