"""The fleet of the soak: two controllers on one Kafka, small engines behind gateways, agents, many receivers.

Half of every kind may be killed; the other half is only frozen or cut off, so that what it holds can be watched over
the whole soak. Everything listens on 127.0.0.1.
"""

from dataclasses import dataclass, field
from pathlib import Path

from laboratory.fleet import POOL, Fleet, lasting_port
from laboratory.processes import Actor

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


def engines_of(receivers: str) -> tuple[str, ...]:
    """The engines of one process of receivers: those that the agent of the same number tells of."""
    agent = AGENTS[RECEIVERS.index(receivers)]
    return tuple(f"{agent}-{POOL}-{number}" for number in range(RECEIVERS_EACH))


@dataclass(slots=True)
class SoakFleet:
    """Files and parts, none of them started yet."""

    fleet: Fleet
    ports: dict[str, int] = field(default_factory=dict)
    through: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Where parts find the controllers that do not reach them directly."""

    def at(self, door: str) -> str:
        """HOST:PORT of a door of an engine or gateway, the same at every call."""
        if door not in self.ports:
            self.ports[door] = lasting_port()
        return f"127.0.0.1:{self.ports[door]}"

    def add_controllers(self) -> tuple[str, ...]:
        """The controllers; their doors."""
        for name in CONTROLLERS:
            self.fleet.controller(name)
        return tuple(self.fleet.doors[name][0] for name in CONTROLLERS)

    def add_others(self) -> None:
        """Everybody else."""
        doors = tuple(self.fleet.doors[name][0] for name in CONTROLLERS)
        controllers = f"[{', '.join(doors)}]"
        for name in ENGINES:
            seat = f"    - {{engine: {name}, listen: {self.at(name)}}}"
            text = f"  pool: {POOL}\n  controllers: {controllers}\n  engines:\n{seat}\n"
            self._service("twin", name, text, "serve")
        routed = "\n".join(f"    - {{engine: {name}, url: 'http://{self.at(name)}'}}" for name in ENGINES)
        for name in GATEWAYS:
            text = f"  pool: {POOL}\n  name: {name}\n  listen: {self.at(name)}\n  http: {self.at(name + '-http')}\n"
            self._service("gateway", name, f"{text}  controllers: {controllers}\n  engines:\n{routed}\n")
        for name in AGENTS:
            self.fleet.agent(name, RECEIVERS_EACH)
        self._have_scraped(AGENTS[0])
        for name in RECEIVERS:
            words = ["--controllers", ",".join(self.through.get(name, doors)), "--engines", ",".join(engines_of(name))]
            words += ["--name", name, "--pool", POOL, "--state", str(self.fleet.folder / "state" / name)]
            words += ["--record", str(self.fleet.record), "--no-fsync"]
            self.fleet.actors.add(name, *words, module="laboratory.lab_engines")

    def _have_scraped(self, agent: str) -> None:
        """Give an agent the small engines and the gateways to look at as well."""
        pages = [
            f"    - {{engine: {name}, pool: {POOL}, metrics: 'http://{self.at(name)}/metrics'}}" for name in ENGINES
        ]
        gates = [
            f"    - {{gateway: {name}, pool: {POOL}, metrics: 'http://{self.at(name + '-http')}/metrics'}}"
            for name in GATEWAYS
        ]
        file = self.fleet.folder / f"{agent}.yaml"
        named = "\n".join(["  engines:", *pages, "  gateways:", *gates])
        file.write_text(file.read_text().replace("  engines: []", named))

    def kept(self, name: str) -> Path:
        """The folder of what a part keeps on disk."""
        folder = self.fleet.folder
        return folder / name if name in AGENTS else folder / "state" / name

    def _service(self, section: str, name: str, text: str, *verb: str) -> Actor:
        file = self.fleet.folder / f"{name}.yaml"
        file.write_text(f"log: {self.fleet.log}\ntls: none\nstate: state/{name}\n{section}:\n{text}")
        return self.fleet.actors.add(name, section, *verb, "--config", str(file))
