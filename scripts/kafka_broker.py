"""Gets and runs one Apache Kafka broker (KRaft mode) on the loopback interface, for development and tests.

    scripts/kafka install          copy the jars named in deploy/kafka/pom.xml, through Maven
    scripts/kafka start [--port N] start the broker (or find it running) and print HOST:PORT
    scripts/kafka status           print HOST:PORT; exit 1 if it does not answer
    scripts/kafka stop             stop it; its data stay
    scripts/kafka start --tls DIR  the same over mutual TLS alone, with the broker's tls.crt, tls.key and ca.crt in DIR;
                                   a certificate then may do what deploy/kafka/grant-roles has granted its role

Everything is kept under .flyball/kafka (or --dir). Needs Java 17 or newer and Maven; exits with 3
and one clear line without them. Standard library only. Refuses to listen beyond 127.0.0.1.
"""

import argparse
import base64
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "kafka"
HOME = ROOT / ".flyball" / "kafka"
HOST = "127.0.0.1"
LEAST_JAVA = 17
START_S = 60.0
STOP_S = 20.0
REPLY = struct.Struct(">iih")  # size, correlation id, error code
EXIT_FAILED = 1
EXIT_PREREQUISITE = 3


class Failed(Exception):
    """Said in one line; `code` is the exit status."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker as it was started: its ports, its process and its certificate."""

    port: int
    controller_port: int
    pid: int
    tls: Path | None = None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others of this script out of `folder` meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_java() -> str:
    """The `java` to run. Raises `Failed` unless there is one that is new enough."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise Failed(f"Kafka needs Java {LEAST_JAVA} or newer; there is no `java` on the path", EXIT_PREREQUISITE)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < LEAST_JAVA:
        first = said.strip().splitlines()[0] if said.strip() else "something that does not tell its version"
        raise Failed(f"Kafka needs Java {LEAST_JAVA} or newer; `java` is {first}", EXIT_PREREQUISITE)
    return java


def install(libs: Path) -> None:
    """Copy the jars to `libs` unless those of this recipe are there already."""
    find_java()
    recipe = (RECIPE / "pom.xml").read_bytes()
    done = libs / "pom.xml"
    with alone(libs.parent):
        if done.exists() and done.read_bytes() == recipe:
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise Failed("getting Kafka needs Maven; there is no `mvn` on the path", EXIT_PREREQUISITE)
        shutil.rmtree(libs, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(RECIPE / "pom.xml"), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={libs}", "-DincludeScope=runtime"]
        got = subprocess.run(command, capture_output=True, text=True, check=False)
        if got.returncode:
            lines = (got.stdout + got.stderr).strip().splitlines() or ["it said nothing"]
            raise Failed(f"Maven could not get Kafka's jars: {lines[0]}", EXIT_PREREQUISITE)
        done.write_bytes(recipe)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def answers(port: int, tls: Path | None) -> bool:
    """Whether a Kafka broker serves requests on `port`: asks for its API versions, over TLS as the broker itself."""
    request = struct.pack(">hhih", 18, 0, 7, -1)
    try:
        with ExitStack() as closing:
            connection = closing.enter_context(socket.create_connection((HOST, port), timeout=2))
            if tls is not None:
                context = ssl.create_default_context(cafile=str(tls / "ca.crt"))
                context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
                connection = closing.enter_context(context.wrap_socket(connection, server_hostname=HOST))
            connection.sendall(struct.pack(">i", len(request)) + request)
            reply = connection.recv(REPLY.size)
    except OSError:
        return False
    return len(reply) == REPLY.size and REPLY.unpack(reply)[1:] == (7, 0)


def last_broker(folder: Path) -> Broker | None:
    """The broker last started in `folder`, running or not."""
    try:
        said = json.loads((folder / "broker.json").read_text())
        return Broker(
            port=int(said["port"]),
            controller_port=int(said["controller_port"]),
            pid=int(said["pid"]),
            tls=Path(said["tls"]) if said.get("tls") else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs(folder: Path, broker: Broker) -> bool:
    """Whether the process is there and is this folder's broker, not another one that got its number."""
    try:
        command = Path(f"/proc/{broker.pid}/cmdline").read_bytes()
        state = Path(f"/proc/{broker.pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and str(folder / "server.properties").encode() in command


def write_settings(folder: Path, port: int, controller_port: int, tls: Path | None) -> None:
    """Fill in the templates; with certificates, those of the settings that differ come last, and hold."""
    values = {"port": port, "controller_port": controller_port, "data": folder / "data", "log": folder / "broker.log"}
    parts = {"server.properties": ["server.properties"], "log4j2.properties": ["log4j2.properties"]}
    if tls is not None:
        parts["server.properties"].append("tls.properties")
        values |= {"broker_pem": folder / "broker.pem", "authority_pem": tls / "ca.crt"}
        pem = folder / "broker.pem"  # Kafka reads key and certificate from one file
        pem.touch(mode=0o600)
        pem.write_text((tls / "tls.key").read_text() + (tls / "tls.crt").read_text())
    for name, sources in parts.items():
        text = "".join((RECIPE / source).read_text() for source in sources)
        (folder / name).write_text(Template(text).substitute(values))


def java_command(folder: Path, libs: Path, heap: str, *arguments: str) -> list[str]:
    """A Java command with Kafka's jars."""
    logging = f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}"
    return [find_java(), f"-Xmx{heap}", "-XX:+UseG1GC", logging, "-cp", f"{libs}/*", *arguments]


def format_storage(folder: Path, libs: Path) -> None:
    """Give a new broker its identity, once."""
    if (folder / "data" / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    # A cluster id that begins with a dash would be read as an option.
    arguments = ["format", "-t", "A" + cluster[1:], "-c", str(folder / "server.properties")]
    command = java_command(folder, libs, "128m", "kafka.tools.StorageTool", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"Kafka could not format its storage: {(done.stdout + done.stderr).strip()[-300:]}")


def start(folder: Path, libs: Path, port: int, tls: Path | None) -> Broker:
    """Start the folder's broker, or find it running; returns when it answers."""
    install(libs)
    with alone(folder):
        last = last_broker(folder)
        if last and runs(folder, last):
            wait_until_answers(folder, last)
            return last
        port = port or (last.port if last else free_port())
        controller_port = last.controller_port if last else free_port()
        if answers(port, tls):
            raise Failed(f"another Kafka broker listens on port {port} already")
        write_settings(folder, port, controller_port, tls)
        format_storage(folder, libs)
        command = java_command(folder, libs, "512m", "-Xms256m", "kafka.Kafka", str(folder / "server.properties"))
        with (folder / "broker.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd=folder
            )
        broker = Broker(port=port, controller_port=controller_port, pid=process.pid, tls=tls)
        said = {"port": port, "controller_port": controller_port, "pid": process.pid, "tls": str(tls or "")}
        (folder / "broker.json").write_text(json.dumps(said))
        wait_until_answers(folder, broker, process)
        return broker


def wait_until_answers(folder: Path, broker: Broker, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Return when the broker serves requests; raise `Failed` if it ended or takes too long."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if answers(broker.port, broker.tls):
            return
        if process is not None and process.poll() is not None:
            raise Failed(f"Kafka ended with status {process.returncode}; see {folder / 'broker.log'}")
        time.sleep(0.1)
    raise Failed(f"Kafka does not answer on port {broker.port} after {START_S:.0f} s; see {folder / 'broker.log'}")


def stop(folder: Path) -> bool:
    """Stop the folder's broker; False if it was not running."""
    with alone(folder):
        broker = last_broker(folder)
        if broker is None or not runs(folder, broker):
            return False
        for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError):
                os.kill(broker.pid, number)
            until = time.monotonic() + patience_s
            while time.monotonic() < until:
                if not runs(folder, broker):
                    return True
                time.sleep(0.05)
        raise Failed(f"process {broker.pid} does not end")


def status(folder: Path) -> Broker:
    """The running broker. Raises `Failed` if there is none that answers."""
    broker = last_broker(folder)
    if broker is None or not runs(folder, broker):
        raise Failed("Kafka is not running")
    if not answers(broker.port, broker.tls):
        raise Failed(f"Kafka runs (process {broker.pid}) but does not answer on port {broker.port}")
    return broker


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(description="Get and run a development Kafka broker.")
    parser.add_argument("verb", choices=["install", "start", "stop", "status"])
    parser.add_argument("--dir", type=Path, default=HOME, help="where the broker keeps its files")
    parser.add_argument("--libs", type=Path, default=HOME / "libs", help="where the jars are")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; default: as before, or a free one")
    parser.add_argument("--tls", type=Path, metavar="DIR", help="the broker's certificate: tls.crt, tls.key, ca.crt")
    asked = parser.parse_args()
    folder, libs = asked.dir.resolve(), asked.libs.resolve()
    try:
        match asked.verb:
            case "install":
                install(libs)
            case "start":
                print(f"{HOST}:{start(folder, libs, asked.port, asked.tls and asked.tls.resolve()).port}")
            case "stop":
                print("stopped" if stop(folder) else "was not running")
            case "status":
                print(f"{HOST}:{status(folder).port}")
    except Failed as error:
        print(f"kafka: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
