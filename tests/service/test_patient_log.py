"""Opening the log that may not be there yet."""

import asyncio
import socket
from pathlib import Path

import pytest

from flyball_core.errors import Fatal, Rejected
from flyball_log.embedded import EmbeddedLog
from flyball_log.kafka import KafkaSettings
from flyball_service import kafka
from flyball_service.config import Config, ControllerConfig, KafkaConfig
from flyball_service.health import Health
from flyball_service.kafka import kafka_settings, open_log_patiently


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(kafka, "_FIRST_S", 0.01)
    monkeypatch.setattr(kafka, "_MOST_S", 0.01)


def config(log: Path | str) -> Config:
    """A controller's configuration with this log."""
    return Config(file=Path("flyball.yaml"), log=str(log), controller=ControllerConfig(partitions=3))


def names_in(folder: Path) -> list[str]:
    """The names of what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


async def until_waiting(health: Health) -> str:
    """What the log is waited for, as soon as it is."""
    async with asyncio.timeout(5.0):
        while "log" not in health.waiting:
            await asyncio.sleep(0.001)
    return health.waiting["log"]


async def test_the_first_start_makes_the_log(tmp_path: Path) -> None:
    """A controller's first start makes the log, with its partitions; the next one opens the same."""
    health, stop = Health(), asyncio.Event()
    first = await open_log_patiently(config(tmp_path / "log"), health, stop, create=True)
    assert first is not None
    await first.close()

    second = await open_log_patiently(config(tmp_path / "log"), health, stop, create=True)

    assert second is not None
    assert (second.log_id, second.partitions) == (first.log_id, 3)
    assert health.ready
    await second.close()


async def test_whoever_cannot_wait_long_for_an_append_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is opened with that patience; without a word with the usual one."""
    asked: list[float] = []

    async def opened(_: Config, settings: KafkaSettings, **__: object) -> None:
        asked.append(settings.append_timeout_s)

    monkeypatch.setattr(kafka, "_open", opened)
    where = config("kafka://127.0.0.1:9/flyball")
    await open_log_patiently(where, Health(), asyncio.Event(), append_timeout_s=5.0)
    await open_log_patiently(where, Health(), asyncio.Event())

    assert asked == [5.0, KafkaSettings(bootstrap=("127.0.0.1:9",)).append_timeout_s]


async def test_a_reader_waits_for_the_log_to_be_made(tmp_path: Path) -> None:
    """Who may not make it waits, says for what and who makes it, and goes on once it is there."""
    health, stop = Health(), asyncio.Event()
    opening = asyncio.create_task(
        open_log_patiently(config(tmp_path / "log"), health, stop, read_only=True, create=False)
    )
    assert "does not exist (a controller makes it at its first start)" in await until_waiting(health)

    made = EmbeddedLog.create(tmp_path / "log", 1)
    log = await asyncio.wait_for(opening, 5.0)

    assert log is not None
    assert log.log_id == made.log_id
    assert health.ready
    await log.close()
    await made.close()


async def test_waiting_ends_when_the_service_is_stopped(tmp_path: Path) -> None:
    """A stop while waiting gives no log, and no error."""
    health, stop = Health(), asyncio.Event()
    opening = asyncio.create_task(open_log_patiently(config(tmp_path / "log"), health, stop, create=False))
    await until_waiting(health)

    stop.set()

    assert await asyncio.wait_for(opening, 5.0) is None


async def test_a_broker_that_is_away_is_waited_for() -> None:
    """Without a broker the service waits and names it, however long."""
    health, stop = Health(), asyncio.Event()
    with socket.socket() as nobody:
        # Bound, so that nobody else is there; not listening, so that nobody is.
        nobody.bind(("127.0.0.1", 0))
        unused_port = nobody.getsockname()[1]
        opening = asyncio.create_task(
            open_log_patiently(config(f"kafka://127.0.0.1:{unused_port}/flyball"), health, stop, create=True)
        )

        assert f"kafka://127.0.0.1:{unused_port}/flyball" in await until_waiting(health)
        stop.set()
        assert await asyncio.wait_for(opening, 15.0) is None


async def test_a_folder_of_something_else_is_never_taken(tmp_path: Path) -> None:
    """A folder that holds other files is refused, also by who may make a log: nothing there is touched."""
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(Rejected, match=r"none can be made there.*notes\.txt"):
        await open_log_patiently(config(tmp_path), Health(), asyncio.Event(), create=True)

    assert names_in(tmp_path) == ["notes.txt"]


async def test_a_second_writer_ends_with_the_first_one_s_process(tmp_path: Path) -> None:
    """A log has one writer: waiting would hide that two controllers were given the same folder."""
    writer = EmbeddedLog.create(tmp_path / "log", 1)

    with pytest.raises(Fatal, match="has a writer already"):
        await open_log_patiently(config(tmp_path / "log"), Health(), asyncio.Event(), create=True)
    await writer.close()


def connecting(log: str, how: KafkaConfig | None) -> KafkaSettings | None:
    """The settings for this log and these keys."""
    return kafka_settings(Config(file=Path("flyball.yaml"), log=log, kafka=how))


def test_a_folder_needs_no_brokers() -> None:
    """An embedded log has no Kafka settings."""
    assert connecting("log", None) is None


def test_plain_connections_stay_on_this_machine() -> None:
    """Without TLS brokers beyond loopback are refused."""
    settings = connecting("kafka://127.0.0.1:9092/chat", None)
    assert settings is not None
    assert (settings.bootstrap, settings.prefix, settings.tls) == (("127.0.0.1:9092",), "chat", False)

    with pytest.raises(Rejected, match="without TLS only loopback"):
        connecting("kafka://broker:9092/chat", None)


def test_certificates_say_who_we_are(tmp_path: Path) -> None:
    """A folder with a certificate means mutual TLS; one with an authority only means TLS."""
    settings = connecting("kafka://broker:9093/chat", KafkaConfig(tls_folder=tmp_path))
    assert settings is not None
    assert (settings.security_protocol, settings.cert_file) == ("SSL", None)

    (tmp_path / "tls.crt").touch()
    settings = connecting("kafka://broker:9093/chat", KafkaConfig(tls_folder=tmp_path))
    assert settings is not None
    assert (settings.ca_file, settings.cert_file, settings.key_file) == (
        str(tmp_path / "ca.crt"),
        str(tmp_path / "tls.crt"),
        str(tmp_path / "tls.key"),
    )


def test_a_password_is_named_by_its_file(tmp_path: Path) -> None:
    """SASL goes over TLS, with the password's file; a mechanism without a user is refused."""
    how = KafkaConfig(
        tls_folder=tmp_path,
        sasl_mechanism="PLAIN",
        sasl_username="flyball",
        sasl_password_file=tmp_path / "password",
    )
    settings = connecting("kafka://broker:9093/chat", how)
    assert settings is not None
    assert (settings.security_protocol, settings.sasl_mechanism) == ("SASL_SSL", "PLAIN")
    assert (settings.username, settings.password_file) == ("flyball", str(tmp_path / "password"))

    with pytest.raises(Rejected, match="username and a password file"):
        connecting("kafka://broker:9093/chat", KafkaConfig(tls_folder=tmp_path, sasl_mechanism="PLAIN"))
