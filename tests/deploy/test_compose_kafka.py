"""The compose file's broker settings, tried with Apache Kafka itself: a certificate is asked of everybody.

The log's commands reach it as the services do, with what the compose file's configuration says.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flyball_cli.bench_fleet import ScriptedPool
from flyball_cli.bench_homes import fill
from flyball_core.errors import LogUnavailable
from flyball_log.kafka import KafkaSettings, check_topics, settings_for
from flyball_service.health import Health
from flyball_service.kafka import LOG, kafka_settings, open_log_patiently
from flyball_service.reading import read_config
from project_paths import COMPOSE, ROOT

_PREREQUISITE_MISSING = 3
_START_S = 60.0
_BIN = Path(sys.executable).parent


def run(*command: str, cwd: Path) -> str:
    """Run a command with the installed `flyball` on the path; what it said, if all went well."""
    env = {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=_START_S)

    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jars() -> str:
    """Kafka's class path. Skips the test without Java or Maven, or fails it if nothing may be missing."""
    command = [sys.executable, str(ROOT / "scripts" / "kafka_broker.py"), "install"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == _PREREQUISITE_MISSING and os.environ.get("FLYBALL_REQUIRE") != "all":
        pytest.skip(done.stderr.strip())

    assert done.returncode == 0, done.stderr
    return f"{ROOT / '.flyball' / 'kafka' / 'libs'}/*"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(server.getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
    return ports


@contextmanager
def broker(folder: Path, settings: str, port: int) -> Iterator[None]:
    """A broker with these settings, from when it listens until it has ended."""
    java, classes = shutil.which("java"), jars()
    assert java is not None
    file = folder / "server.properties"
    file.write_text(settings)
    base = [java, "-Xmx384m", "-cp", classes]
    run(*base, "kafka.tools.StorageTool", "format", "-t", "RmxZYmFsbFRyeU91dDAwMQ", "-c", str(file), cwd=folder)
    with (folder / "broker.out").open("wb") as out:
        process = subprocess.Popen([*base, "kafka.Kafka", str(file)], stdout=out, stderr=out, cwd=folder)
    try:
        until_s = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < until_s:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compose file's configuration, beside a broker with the compose file's settings and certificates."""
    folder = tmp_path_factory.mktemp("compose")
    local, tls, quorum = free_ports(3)
    own, kafka = folder / "tls", folder / "kafka-tls"
    kafka.mkdir()
    run("sh", str(COMPOSE / "make-certificates"), str(own), str(kafka), cwd=folder)
    text = (COMPOSE / "kafka" / "server.properties").read_text()
    for old, new in {
        ":9092": f":{local}",
        "kafka:9093": f"localhost:{tls}",
        "SSL://:9093": f"SSL://127.0.0.1:{tls}",
        ":9094": f":{quorum}",
        "/etc/kafka/tls": str(kafka),
        "/var/lib/kafka/data": str(folder / "data"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    config = (COMPOSE / "flyball.yaml").read_text().replace("kafka:9093", f"localhost:{tls}")
    (folder / "flyball.yaml").write_text(config.replace("/etc/flyball-tls", str(own)))
    with broker(folder, text, tls):
        yield folder / "flyball.yaml"


@pytest.fixture
def settings(file: Path) -> KafkaSettings:
    """How the services connect."""
    found = kafka_settings(read_config(file))
    assert found is not None
    return found


@pytest.fixture
def small(file: Path) -> Path:
    """The same configuration for a log of its own, whose topics are not made yet."""
    other = file.with_name("small.yaml")
    where = read_config(file).log
    other.write_text(file.read_text().replace(where, where.replace("/flyball", "/small")))
    return other


def test_topics_are_made_and_checked_by_certificate(file: Path) -> None:
    """The compose file's own command makes them, from the configuration alone; it and `check` find them afterwards."""
    topics = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["topics"]
    command = ["flyball", *(str(file) if word.endswith(".yaml") else word for word in topics["command"])]

    made = json.loads(run(*command, "--json", cwd=file.parent))
    again = json.loads(run(*command, "--json", cwd=file.parent))
    checked = json.loads(run("flyball", "topics", "check", "--config", str(file), "--dev", "--json", cwd=file.parent))

    assert (5, 0) == (len(made["created"]), len(again["created"]))
    assert made["log_id"] == again["log_id"]
    assert read_config(file).log == made["log"] == checked["log"]
    assert checked["ok"]


async def test_a_log_is_replayed_and_explained_by_certificate(file: Path, small: Path) -> None:
    """A service says how its topics are made and goes on with them; what an owner recorded over TLS is read over TLS.

    The log may be named by the file, or by hand with the file's certificates.
    """
    where, health = read_config(small).log, Health()
    opening = asyncio.create_task(open_log_patiently(read_config(small), health, asyncio.Event()))
    while LOG not in health.waiting:
        await asyncio.sleep(0.05)

    assert f"`flyball topics create {where} --config {small}`" in health.waiting[LOG]
    run("flyball", "topics", "create", where, "--config", str(file), "--dev", "--partitions", "1", cwd=file.parent)
    log = await asyncio.wait_for(opening, _START_S)
    assert log is not None
    try:
        await fill(log, ScriptedPool("chat", nodes=1, per_node=2), 8)
    finally:
        await log.close()

    named = json.loads(run("flyball", "replay", "--config", str(small), "--json", cwd=file.parent))
    by_hand = json.loads(run("flyball", "replay", where, "--config", str(file), "--json", cwd=file.parent))
    told = json.loads(run("flyball", "explain", "--log", "--config", str(small), "--json", cwd=file.parent))

    assert ("identical", 8, where) == (named["verdict"], named["ticks"], named["log"])
    assert named == by_hand
    assert (where, "chat") == (told["log"], told["pool"])


async def test_the_broker_answers_nobody_without_a_certificate(settings: KafkaSettings) -> None:
    """A plain connection to the listener of the services comes to nothing."""
    plain = replace(settings_for(settings.where), connect_timeout_s=2.0)

    with pytest.raises(LogUnavailable):
        await check_topics(plain, dev=True)
