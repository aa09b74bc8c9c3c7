"""The compose file's broker settings, tried with Apache Kafka itself: TLS for all, plain on its own loopback only."""

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

from flyball_core.errors import LogUnavailable
from flyball_log.kafka import check_topics, settings_for
from flyball_service.kafka import kafka_settings
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


async def test_the_broker_wants_a_certificate_of_everybody_else(tmp_path: Path) -> None:
    """Topics are made over loopback, as in the compose file; services connect by certificate, and nobody without."""
    local, tls, quorum = free_ports(3)
    own, kafka = tmp_path / "tls", tmp_path / "kafka-tls"
    kafka.mkdir()
    run("sh", str(COMPOSE / "make-certificates"), str(own), str(kafka), cwd=tmp_path)
    text = (COMPOSE / "kafka" / "server.properties").read_text()
    for old, new in {
        ":9092": f":{local}",
        "kafka:9093": f"localhost:{tls}",
        "SSL://:9093": f"SSL://127.0.0.1:{tls}",
        ":9094": f":{quorum}",
        "/etc/kafka/tls": str(kafka),
        "/var/lib/kafka/data": str(tmp_path / "data"),
    }.items():
        assert old in text
        text = text.replace(old, new)
    config = (COMPOSE / "flyball.yaml").read_text().replace("kafka:9093", f"localhost:{tls}")
    (tmp_path / "flyball.yaml").write_text(config.replace("/etc/flyball-tls", str(own)))
    settings = kafka_settings(read_config(tmp_path / "flyball.yaml"))
    assert settings is not None
    with broker(tmp_path, text, local):
        run("flyball", "topics", "create", f"kafka://127.0.0.1:{local}/flyball", "--dev", cwd=tmp_path)

        assert [] == await check_topics(settings, dev=True)
        plain = replace(settings_for(f"kafka://127.0.0.1:{tls}/flyball"), connect_timeout_s=2.0)
        with pytest.raises(LogUnavailable):
            await check_topics(plain, dev=True)
