"""The fleet of the operator's journey: the installed commands as processes, their files, and waiting for them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

FLYBALL = str(Path(sys.executable).parent / "flyball")
POOL = "chat"
MODEL = "flyball-twin"
ENGINES = ("engine-0", "engine-1", "engine-2", "engine-3")

T = TypeVar("T")


class Unmet(AssertionError):
    """What the journey expected did not come."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


@dataclass(slots=True)
class Stage:
    """A folder with a file for each service, and the processes that run."""

    folder: Path
    kafka: str
    """HOST:PORT of a running broker."""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ["controller", "controller-http", "agent-0", "agent-1", "gateway", "gateway-http", *ENGINES]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))

    @property
    def log(self) -> str:
        """The log's name on a command line."""
        return f"kafka://{self.kafka}/journey-{os.getpid()}"

    def at(self, name: str) -> str:
        """HOST:PORT of one of the doors."""
        return f"127.0.0.1:{self.ports[name]}"

    def until(self, what: str, look: Callable[[], T | None], within_s: float) -> T:
        """What `look` finds, as soon as it is not None or False.

        Raises `Unmet` if that takes too long, or if a process ends meanwhile.
        """
        end_s = time.monotonic() + within_s
        while True:
            found = look()
            if found is not None and found is not False:
                return found
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise Unmet(f"{name} ended by itself, while there should come: {what}\n{self.last_lines(name)}")
            if time.monotonic() > end_s:
                raise Unmet(f"within {within_s:g} s there was not: {what}\n{self.said()}")
            time.sleep(0.3)

    def flyball(self, *arguments: str, expect: int = 0) -> str:
        """Run a command of the operator; its standard output. Raises `Unmet` for another exit code."""
        done = subprocess.run(
            [FLYBALL, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != expect:
            said = f"{done.stdout}{done.stderr}".strip()
            raise Unmet(f"flyball {' '.join(arguments)} ended with {done.returncode}, not {expect}:\n{said}")
        return done.stdout + (done.stderr if expect else "")

    def ask(self, *arguments: str, expect: int = 0) -> str:
        """The same, asking the controller as operator `ada`."""
        return self.flyball(
            *arguments, "--controller", self.at("controller"), "--tls", "certs/operator-ada", expect=expect
        )

    def ask_json(self, *arguments: str, expect: int = 0) -> Any:
        """The same, read as JSON."""
        return json.loads(self.ask(*arguments, "--json", expect=expect))

    def status(self) -> Mapping[str, Any] | None:
        """The pool's status; None while nobody answers or there is no pool."""
        done = subprocess.run(
            [FLYBALL, "status", "--json", "--controller", self.at("controller"), "--tls", "certs/operator-ada"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode > 1:
            return None
        found = json.loads(done.stdout)
        return next((pool for pool in found["pools"] if pool["pool"] == POOL), None)

    def said(self) -> str:
        """The status in words, for whoever has to find out what is wrong."""
        command = [FLYBALL, "status", "--controller", self.at("controller"), "--tls", "certs/operator-ada"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        return (done.stdout + done.stderr).strip()

    def write(self) -> None:
        """Every service's file."""
        shared = f"log: {self.log}\ntls: {{folder: certs}}\nlogs: {{level: info, format: json}}\n"
        peers = f"[{self.at('controller')}]"
        self._file(
            "controller",
            f"controller:\n  name: controller-0\n  listen: {self.at('controller')}\n"
            f"  http: {self.at('controller-http')}\n",
            shared,
        )
        for agent, engines in (("agent-0", ENGINES[:2]), ("agent-1", ENGINES[2:])):
            lines = [f"agent:\n  name: {agent}\n  http: {self.at(agent)}\n  gpus: none\n  engines:"]
            lines += [
                f"    - {{engine: {engine}, pool: {POOL}, metrics: 'http://{self.at(engine)}/metrics'}}"
                for engine in engines
            ]
            if agent == "agent-0":
                page = f"http://{self.at('gateway-http')}/metrics"
                lines.append(f"  gateways:\n    - {{gateway: gateway-0, pool: {POOL}, metrics: '{page}'}}")
            self._file(agent, "\n".join(lines) + "\n", shared)
        for engine in ENGINES:
            seat = f"    - {{engine: {engine}, listen: {self.at(engine)}}}"
            self._file(engine, f"twin:\n  pool: {POOL}\n  controllers: {peers}\n  engines:\n{seat}\n", shared)
        routed = "\n".join(f"    - {{engine: {engine}, url: 'http://{self.at(engine)}'}}" for engine in ENGINES)
        self._file(
            "gateway",
            f"gateway:\n  pool: {POOL}\n  name: gateway-0\n  listen: {self.at('gateway')}\n"
            f"  http: {self.at('gateway-http')}\n  controllers: {peers}\n  engines:\n{routed}\n",
            shared,
        )

    def _file(self, name: str, section: str, shared: str) -> None:
        (self.folder / f"{name}.yaml").write_text(f"{shared}state: state/{name}\n{section}")

    def start(self, name: str) -> None:
        """Start a service, or start it again."""
        verb = ("twin", "serve") if name in ENGINES else (name.split("-", maxsplit=1)[0],)
        with (self.folder / f"{name}.log").open("ab") as lines:
            self.running[name] = subprocess.Popen(
                [FLYBALL, *verb, "--config", f"{name}.yaml"], cwd=self.folder, stdout=lines, stderr=lines
            )

    def kill(self, name: str) -> None:
        """End it as a crash would."""
        self.running[name].kill()
        self.running.pop(name).wait()

    def stop(self, name: str) -> int:
        """Ask it to end; its exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise Unmet(f"{name} did not end within 15 s of SIGTERM\n{self.last_lines(name)}") from None

    def end(self) -> None:
        """End whatever still runs."""
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()
        self.running.clear()

    def last_lines(self, name: str) -> str:
        """The end of what a service wrote."""
        return "\n".join((self.folder / f"{name}.log").read_text().splitlines()[-15:])

    def ready(self, name: str) -> tuple[bool, Mapping[str, str]]:
        """Whether a service says that it is ready, and what it waits for."""
        door = {"controller": "controller-http", "gateway": "gateway-http"}.get(name, name)
        try:
            with urllib.request.urlopen(f"http://{self.at(door)}/ready", timeout=2) as answer:
                return True, json.load(answer)["waiting_for"]
        except urllib.error.HTTPError as answer:
            return False, json.load(answer)["waiting_for"]
        except OSError:
            return False, {}
