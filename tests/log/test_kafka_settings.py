"""Settings for Kafka: what is refused before any connection is made."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyball_core.errors import Fatal, LogUnavailable, Rejected
from flyball_log import open_log
from flyball_log.kafka import KafkaSettings, settings_for
from flyball_log.kafka.clients import connection

LOCAL = ("127.0.0.1:9092",)


@pytest.mark.parametrize(
    ("where", "brokers", "prefix"),
    [
        ("kafka://127.0.0.1:9092/fleet", ("127.0.0.1:9092",), "fleet"),
        ("kafka://127.0.0.1:9092", ("127.0.0.1:9092",), "flyball"),
        ("kafka://localhost:1,[::1]:2/a.b-c_d", ("localhost:1", "[::1]:2"), "a.b-c_d"),
    ],
)
def test_a_name_of_a_log_is_understood(where: str, brokers: tuple[str, ...], prefix: str) -> None:
    """Brokers and prefix are taken from the name, and the name is given back."""
    settings = settings_for(where)

    assert (brokers, prefix) == (settings.bootstrap, settings.prefix)
    assert settings == settings_for(settings.where)


@pytest.mark.parametrize(
    "where", ["kafka://", "kafka:///x", "kafka://host", "kafka://host:port/x", "kafka://h:0/x", "kafka://h:70000/x"]
)
async def test_a_broker_without_port_is_refused(where: str) -> None:
    """A broker that is not HOST:PORT is named, with an example of what is right."""
    with pytest.raises(Rejected, match=r"not HOST:PORT, as in kafka://127\.0\.0\.1:9092/flyball"):
        await open_log(where)


def test_the_name_overrides_only_brokers_and_prefix() -> None:
    """Everything else stays as the given settings say; without a prefix theirs stays too."""
    base = KafkaSettings(bootstrap=LOCAL, prefix="mine", append_timeout_s=3)

    merged = settings_for("kafka://127.0.0.1:7", base)

    assert (("127.0.0.1:7",), "mine", 3) == (merged.bootstrap, merged.prefix, merged.append_timeout_s)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bootstrap": ()}, "no broker"),
        ({"bootstrap": ("kafka.example:9092",)}, "only loopback"),
        ({"bootstrap": ("127.0.0.1:9092", "10.0.0.1:9092")}, "only loopback"),
        ({"prefix": ""}, "topic prefix"),
        ({"prefix": "a/b"}, "topic prefix"),
        ({"security_protocol": "TLS"}, "none of PLAINTEXT, SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs a username and a password file"),
        (
            {"security_protocol": "SASL_SSL", "username": "u", "password_file": "p", "sasl_mechanism": "MD5"},
            "SASL mechanism",
        ),
        ({"security_protocol": "SSL", "cert_file": "c"}, "needs its key file"),
    ],
)
def test_unsafe_settings_are_refused(changes: dict[str, str], why: str) -> None:
    """What cannot work, or would go in plain over a network, is refused with the reason."""
    named: dict[str, Any] = {"bootstrap": LOCAL, **changes}

    with pytest.raises(Rejected, match=why):
        KafkaSettings(**named)


def test_the_password_comes_from_its_file(tmp_path: Path) -> None:
    """The file's first line is the password, read when a connection is made and held nowhere else."""
    (tmp_path / "password").write_text("geheim\n")
    settings = KafkaSettings(
        bootstrap=("kafka.example:9093",),
        security_protocol="SASL_SSL",
        username="fly",
        password_file=str(tmp_path / "password"),
    )

    made = connection(settings)

    assert ("fly", "geheim", "SCRAM-SHA-512") == (
        made["sasl_plain_username"],
        made["sasl_plain_password"],
        made["sasl_mechanism"],
    )
    assert made["ssl_context"] is not None
    assert "geheim" not in repr(settings)


def test_missing_credentials_are_fatal(tmp_path: Path) -> None:
    """A file that is not there is named, of each kind; so are those that are there and no certificates."""
    authority, absent = tmp_path / "ca.pem", str(tmp_path / "absent.pem")
    authority.write_text("no certificate")
    base = KafkaSettings(bootstrap=LOCAL, security_protocol="SASL_SSL", username="u", password_file=str(authority))
    missing = (
        replace(base, ca_file=absent),
        replace(base, cert_file=absent, key_file=str(authority)),
        replace(base, cert_file=str(authority), key_file=absent),
        replace(base, password_file=absent),
    )

    for one in missing:
        with pytest.raises(Fatal, match=f"cannot be read: {absent}: No such file"):
            connection(one)
    with pytest.raises(Fatal, match=f"cannot be used: .*{authority}"):
        connection(replace(base, ca_file=str(authority)))


async def test_a_broker_that_is_not_there(unused_tcp_port: int) -> None:
    """Opening fails within the bounded time and names the log."""
    with pytest.raises(LogUnavailable, match=f"kafka://127.0.0.1:{unused_tcp_port}/flyball"):
        await open_log(f"kafka://127.0.0.1:{unused_tcp_port}/flyball")


async def test_a_broker_that_never_answers(unused_tcp_port: int) -> None:
    """A port that accepts and then says nothing is given up in time."""
    over = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(silent, "127.0.0.1", unused_tcp_port)
    settings = KafkaSettings(bootstrap=(f"127.0.0.1:{unused_tcp_port}",), connect_timeout_s=0.5)
    try:
        with pytest.raises(LogUnavailable, match="no answer in time"):
            await open_log(settings.where, kafka=settings)
    finally:
        over.set()
        await asyncio.sleep(0.05)
        server.close()
        await server.wait_closed()
