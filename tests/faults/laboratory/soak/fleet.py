"""The fleet of the soak: two controllers on one Kafka, small engines behind a gateway, agents, many receivers.

Half of every kind may be killed; the other half is only frozen or cut off, so that what it holds can be watched over
the whole soak. Everything listens on 127.0.0.1.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flyball_cli.processes import free_port
from laboratory.processes import Actor, Actors

POOL = "chat"
MODEL = "flyball-twin"
CONTROLLERS = ("controller-0", "controller-1")
ENGINES = ("engine-0", "engine-1")
RECEIVERS = ("receivers-0", "receivers-1")
RECEIVERS_EACH = 10
AGENTS = ("agent-0", "agent-1")
GATEWAYS = ("gateway-0", "gateway-1")

POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 3s, tpot: 60ms, longest_wait: 30s}
  bulk: {priority: 10, end_to_end: 60s, longest_wait: 60s}
knobs:
  max_active_requests: {min: 4, max: 128}
variants: {relaunch: []}
guard: {raise_dwell: 5s}
"""

_SCRIPT = Path(__file__).resolve().parents[4] / "scripts" / "kafka_broker.py"


def engines_of(receivers: str) -> tuple[str, ...]:
    """The engines of one process of receivers: those that the agent of the same number tells of."""
    agent = AGENTS[RECEIVERS.index(receivers)]
    return tuple(f"{agent}-{POOL}-{number}" for number in range(RECEIVERS_EACH))


@dataclass(slots=True)
class Broker:
    """A Kafka of the soak's own, by the project's script."""

    folder: Path
    address: str = ""

    def start(self) -> None:
        """Start it, or start it again at the same place. Raises `subprocess.CalledProcessError`."""
        self.address = self._run("start")

    def stop(self) -> None:
        """Stop it in good order."""
        self._run("stop")

    @property
    def pid(self) -> int:
        """Its process."""
        return int(json.loads((self.folder / "broker.json").read_text())["pid"])

    def _run(self, verb: str) -> str:
        command = [sys.executable, str(_SCRIPT), "--dir", str(self.folder), verb]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(slots=True)
class SoakFleet:
    """Files and parts, none of them started yet."""

    folder: Path
    actors: Actors
    broker: Broker
    ports: dict[str, int] = field(default_factory=dict)
    through: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Where parts find the controllers that do not reach them directly."""

    @property
    def log(self) -> str:
        """The log's name."""
        return f"kafka://{self.broker.address}/soak"

    @property
    def record(self) -> Path:
        """Where the parts write what they did."""
        return self.folder / "record"

    def at(self, door: str) -> str:
        """HOST:PORT of a door, the same at every call."""
        if door not in self.ports:
            self.ports[door] = free_port()
        return f"127.0.0.1:{self.ports[door]}"

    def _controllers(self) -> tuple[str, ...]:
        return tuple(self.at(name) for name in CONTROLLERS)

    def write(self) -> None:
        """Every part's file, and the parts."""
        controllers = f"[{', '.join(self._controllers())}]"
        (self.folder / "policy.yaml").write_text(POLICY)
        for name in CONTROLLERS:
            self._service(
                "controller",
                name,
                f"  name: {name}\n  listen: {self.at(name)}\n  http: {self.at(name + '-http')}\n"
                f"  policies: {{{POOL}: policy.yaml}}\n",
            )
        for name in ENGINES:
            seat = f"    - {{engine: {name}, listen: {self.at(name)}}}"
            self._service(
                "twin",
                name,
                f"  pool: {POOL}\n  controllers: {controllers}\n  engines:\n{seat}\n",
                verb=("serve",),
            )
        routed = "\n".join(f"    - {{engine: {name}, url: 'http://{self.at(name)}'}}" for name in ENGINES)
        for name in GATEWAYS:
            self._service(
                "gateway",
                name,
                f"  pool: {POOL}\n  name: {name}\n  listen: {self.at(name)}\n  http: {self.at(name + '-http')}\n"
                f"  controllers: {controllers}\n  engines:\n{routed}\n",
            )
        self._agents()
        for name in RECEIVERS:
            engines = ",".join(engines_of(name))
            self.actors.add(
                name,
                *("--controllers", ",".join(self.through.get(name, self._controllers())), "--engines", engines),
                *("--name", name, "--pool", POOL, "--state", str(self.folder / "state" / name)),
                *("--record", str(self.record), "--no-fsync"),
                module="laboratory.lab_engines",
            )

    def _agents(self) -> None:
        pages = "\n".join(
            f"    - {{engine: {name}, pool: {POOL}, metrics: 'http://{self.at(name)}/metrics'}}" for name in ENGINES
        )
        gates = "\n".join(
            f"    - {{gateway: {name}, pool: {POOL}, metrics: 'http://{self.at(name + '-http')}/metrics'}}"
            for name in GATEWAYS
        )
        sections: Mapping[str, str] = {
            AGENTS[0]: f"  engines:\n{pages}\n  gateways:\n{gates}\n",
            AGENTS[1]: "",
        }
        for name, section in sections.items():
            text = f"  name: {name}\n  http: {self.at(name)}\n  gpus: none\n{section}"
            file = self._file(name, f"agent:\n{text}")
            self.actors.add(
                name,
                *("--config", str(file), "--record", str(self.record)),
                *("--pools", POOL, "--engines", str(RECEIVERS_EACH)),
                module="laboratory.lab_agent",
            )

    def _service(self, section: str, name: str, text: str, verb: tuple[str, ...] = ()) -> Actor:
        file = self._file(name, f"{section}:\n{text}")
        return self.actors.add(name, section, *verb, "--config", str(file))

    def _file(self, name: str, text: str) -> Path:
        file = self.folder / f"{name}.yaml"
        file.write_text(f"log: {self.log}\ntls: none\nstate: state/{name}\nlogs: {{level: info, format: json}}\n{text}")
        return file
