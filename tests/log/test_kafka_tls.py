"""A real Kafka that asks for certificates and has an authorizer: each role does what it must, and nothing else.

The broker is set up by the project's own recipe: deploy/kafka/tls.properties, and deploy/kafka/grant-roles as an
operator runs it.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from flyball_core.errors import Fatal, FlyballError, LogUnavailable
from flyball_log import join
from flyball_log.interface import Entry, Log, Topic
from flyball_log.kafka import KafkaLog, KafkaSettings, check_topics, create_topics
from flyball_log.kafka.clients import connection
from flyball_log.kafka.credentials import RenewedContext
from issued_certificates import certify
from kafka_broker import KafkaBroker
from kafka_tools import grant

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "guarded"
ROLES = ("agent", "controller", "engine", "gateway", "operator", "viewer")
RECORD = [Entry(b"chat", b"record")]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of each role and one of the broker, of one authority."""
    folder = tmp_path_factory.mktemp("certificates")
    for role in (*ROLES, "broker"):
        certify(folder, role, "x1")
    return folder


@pytest.fixture(scope="module")
def guarded(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a broker over mutual TLS, with what roles may do with the topics of `PREFIX`."""
    broker = KafkaBroker(tmp_path_factory.mktemp("guarded-kafka"), certificates / "broker-x1")
    bootstrap = broker.start()
    try:
        asyncio.run(grant(settings_of(bootstrap, certificates / "broker-x1"), granted(broker.folder)))
        yield bootstrap
    finally:
        broker.stop()


def granted(folder: Path) -> list[list[str]]:
    """What deploy/kafka/grant-roles asks of `kafka-acls`, call by call."""
    asked, program = folder / "asked", folder / "kafka-acls"
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    program.chmod(0o755)
    script = [str(ROOT / "deploy" / "kafka" / "grant-roles"), PREFIX]
    done = subprocess.run(
        script, env={**os.environ, "KAFKA_ACLS": str(program)}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    return [line.split() for line in asked.read_text().splitlines()]


def settings_of(bootstrap: str, folder: Path) -> KafkaSettings:
    """How a service with this certificate connects."""
    return KafkaSettings(
        bootstrap=(bootstrap,),
        prefix=PREFIX,
        security_protocol="SSL",
        ca_file=str(folder / "ca.crt"),
        cert_file=str(folder / "tls.crt"),
        key_file=str(folder / "tls.key"),
        connect_timeout_s=10.0,
        append_timeout_s=5.0,
    )


@pytest.fixture
async def topics(guarded: str, certificates: Path) -> KafkaSettings:
    """The topics of the log, made by an operator's certificate; what a controller connects with."""
    await create_topics(settings_of(guarded, certificates / "operator-x1"), partitions=1, replication=1, dev=True)
    return settings_of(guarded, certificates / "controller-x1")


@asynccontextmanager
async def opened(settings: KafkaSettings, *, read_only: bool = False) -> AsyncIterator[Log]:
    """A log for as long as it is needed."""
    log = await KafkaLog.open(settings, read_only=read_only)
    try:
        yield log
    finally:
        await log.close()


async def fate(act: Awaitable[object]) -> str:
    """What becomes of an attempt: `done`, or the kind of error."""
    try:
        await act
    except FlyballError as error:
        return type(error).__name__
    return "done"


async def test_an_operator_makes_and_checks_topics_by_certificate(topics: KafkaSettings, certificates: Path) -> None:
    """Making them again changes nothing, and the check finds nothing; an agent may do neither."""
    operator = settings_of(topics.bootstrap[0], certificates / "operator-x1")

    assert () == (await create_topics(operator, partitions=1, replication=1, dev=True)).topics
    assert [] == await check_topics(operator, dev=True)
    agent = settings_of(topics.bootstrap[0], certificates / "agent-x1")
    with pytest.raises(FlyballError):
        await check_topics(agent, dev=True)


async def test_a_controller_reads_and_writes_all_topics_and_joins_the_group(topics: KafkaSettings) -> None:
    """Everything that owning partitions takes."""
    async with opened(topics) as log:
        for topic in Topic:
            [offset] = await log.append(topic, 0, RECORD)
            assert b"record" == (await log.read(topic, 0, offset, wait_s=5.0))[0].value
        membership = await join(log)
        try:
            async with asyncio.timeout(30.0):
                while not membership.joined:
                    await asyncio.sleep(0.05)
            assert {0} == membership.assigned()
        finally:
            await membership.close()


async def test_an_agent_appends_inputs_and_is_refused_everything_else(
    topics: KafkaSettings, certificates: Path
) -> None:
    """It opens the log, which takes its id, and writes inputs: directives, decisions and state are closed to it."""
    async with opened(settings_of(topics.bootstrap[0], certificates / "agent-x1")) as log:
        written = {topic: await fate(log.append(topic, 0, RECORD)) for topic in Topic}
        read = {topic: await fate(log.read(topic, 0, 0, wait_s=1.0)) for topic in Topic}

    refused = dict.fromkeys(Topic, "Fatal")
    assert {**refused, Topic.INPUTS: "done"} == written
    assert refused == read


async def test_a_viewer_reads_and_writes_nothing(topics: KafkaSettings, certificates: Path) -> None:
    """What `flyball replay` and `flyball explain --log` need, and no more."""
    async with opened(topics) as log:
        for topic in Topic:
            await log.append(topic, 0, RECORD)
    async with opened(settings_of(topics.bootstrap[0], certificates / "viewer-x1")) as log:
        read = {
            topic: await fate(log.read(topic, 0, (await log.bounds(topic, 0)).begin, wait_s=5.0)) for topic in Topic
        }
        written = {topic: await fate(log.append(topic, 0, RECORD)) for topic in Topic}

    assert dict.fromkeys(Topic, "done") == read
    assert dict.fromkeys(Topic, "Fatal") == written


@pytest.mark.parametrize("role", ["engine", "gateway"])
async def test_receivers_have_no_business_with_the_log(topics: KafkaSettings, certificates: Path, role: str) -> None:
    """Their certificates open nothing: to them there are no topics."""
    with pytest.raises(FlyballError):
        await KafkaLog.open(settings_of(topics.bootstrap[0], certificates / f"{role}-x1"))


@pytest.mark.parametrize("stranger", ["another authority", "expired", "no certificate", "plaintext"])
async def test_strangers_are_refused_in_the_handshake(
    topics: KafkaSettings, tmp_path: Path, certificates: Path, stranger: str
) -> None:
    """They learn nothing of the log, in bounded time."""
    ours = certificates / "controller-x1"
    theirs = certify(tmp_path, "controller", "mallory")
    shutil.copy(ours / "ca.crt", theirs / "ca.crt")  # it trusts the broker: so it is the broker that refuses
    how: dict[str, KafkaSettings] = {
        "another authority": settings_of(topics.bootstrap[0], theirs),
        "expired": settings_of(topics.bootstrap[0], certify(certificates, "controller", "late", made=-2.0)),
        "no certificate": KafkaSettings(
            bootstrap=topics.bootstrap, prefix=PREFIX, security_protocol="SSL", ca_file=str(ours / "ca.crt")
        ),
        "plaintext": KafkaSettings(bootstrap=topics.bootstrap, prefix=PREFIX),
    }

    with pytest.raises((LogUnavailable, Fatal)):
        async with asyncio.timeout(30.0):
            await KafkaLog.open(replace(how[stranger], connect_timeout_s=4.0))


async def test_a_living_client_takes_renewed_certificates_with_its_next_connection(
    topics: KafkaSettings, tmp_path: Path, certificates: Path
) -> None:
    """Its context makes each connection with the files as they are then; one that stands outlives its own."""
    folder = tmp_path / "controller-x1"
    shutil.copytree(certificates / "controller-x1", folder)
    settings = settings_of(topics.bootstrap[0], folder)
    context = connection(settings)["ssl_context"]
    assert isinstance(context, RenewedContext)
    host, port = topics.bootstrap[0].split(":")

    async def connects() -> bool:
        """Whether the broker answers a request on a new connection of this very context."""
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        try:
            body = uuid.uuid4().bytes[:4]
            writer.write(len(request := b"\x00\x12\x00\x00" + body + b"\xff\xff").to_bytes(4, "big") + request)
            await writer.drain()
            return (await asyncio.wait_for(reader.read(8), 5.0))[4:] == body
        except OSError:
            return False
        finally:
            writer.close()

    async with opened(settings) as log:
        await log.append(Topic.INPUTS, 0, RECORD)
        assert await connects()
        late = certify(tmp_path / "late", "controller", "x1", made=-2.0)
        for file in ("tls.crt", "tls.key"):  # of an authority that the broker does not know, and expired
            shutil.copy(late / file, folder / file)
        refused = await connects()
        [offset] = await log.append(Topic.INPUTS, 0, RECORD)
        renewed = certify(certificates, "controller", "x2")
        for file in ("tls.crt", "tls.key"):
            shutil.copy(renewed / file, folder / file)

        assert not refused
        assert await connects()
        assert offset >= 0
        (folder / "tls.key").write_text("-----BEGIN PRIV")
        assert await connects()


def test_the_installed_command_works_over_tls(guarded: str, tmp_path: Path, certificates: Path) -> None:
    """`flyball topics create` and `check` by the services' file, with an operator's certificate."""
    file = tmp_path / "flyball.yaml"
    file.write_text(f"log: kafka://{guarded}/{PREFIX}\nkafka: {{tls_folder: {certificates / 'operator-x1'}}}\n")
    program = Path(sys.executable).parent / "flyball"
    for verb in (("create", "--partitions", "1"), ("check",)):
        done = subprocess.run(
            [program, "topics", *verb, "--dev", "--config", file],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == 0, done.stdout + done.stderr
