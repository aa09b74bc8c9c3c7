"""A fleet whose parts are of two installed versions, as processes on loopback, and what it left in its log.

Each part can be stopped and started again in either version over the same files. Nothing here decides what is
right: tests read the answers of the operator's commands and the records.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import prometheus_client.parser

from flyball_cli.processes import free_port
from installed_versions import Installed, Said
from laboratory.processes import Actor, Actors, until

POOL = "chat"
QUIET = "quiet"
"""A pool of which there is nothing but orders."""
KNOB = "max_active_requests"
READY_S = 40.0

POLICY = """\
version: 1
mode: {mode}
lanes:
  realtime: {{priority: 0, ttft: 2s, tpot: 40ms}}
knobs:
  max_active_requests: {{min: 8, max: 256}}
"""

COMMANDS = {"controller": ("controller",), "agent": ("agent",), "gateway": ("gateway",), "twin": ("twin", "serve")}
"""By section of the configuration file."""


@dataclass(slots=True)
class Part:
    """One part of the fleet."""

    name: str
    command: tuple[str, ...]
    file: Path
    ready: str
    """HOST:PORT/PATH that answers 200 then."""
    actor: Actor | None = None


class MixedFleet:
    """Parts in one folder, by name. `add` them, then `start` each in a version."""

    def __init__(self, actors: Actors, folder: Path, controllers: tuple[str, ...], log: str = "log") -> None:
        """`controllers` names those that all others are told of."""
        self.folder = folder
        self.log = log if "://" in log else str(folder / log)
        self.controllers = controllers
        self.parts: dict[str, Part] = {}
        self._actors = actors
        self._ports: dict[str, str] = {}
        for pool, mode in ((POOL, "control"), (QUIET, "advise")):
            (folder / f"{pool}.yaml").write_text(POLICY.format(mode=mode))

    def at(self, door: str) -> str:
        """HOST:PORT of a door by its name, the same at every start."""
        if door not in self._ports:
            taken = set(self._ports.values())
            while (place := f"127.0.0.1:{free_port()}") in taken:
                pass
            self._ports[door] = place
        return self._ports[door]

    def add_controller(self, name: str) -> None:
        """A controller that knows a policy for the pool `quiet`, and nothing of the other."""
        section = (
            f"  {{name: {name}, listen: '{self.at(name)}', http: '{self.at(f'{name}-http')}', tick: 100ms,\n"
            f"   policies: {{{QUIET}: {QUIET}.yaml}}}}\n"
        )
        self._add(name, "controller", section, f"{self.at(f'{name}-http')}/ready")

    def add_agent(self, name: str, engines: Collection[str]) -> None:
        """An agent that watches these engines."""
        watched = "".join(
            f"    - {{engine: {one}, pool: {POOL}, metrics: 'http://{self.at(one)}/metrics', variant: graphs}}\n"
            for one in engines
        )
        section = f"  name: {name}\n  http: '{self.at(f'{name}-http')}'\n  period: 200ms\n  gpus: none\n{self._told()}"
        self._add(name, "agent", f"{section}  engines:\n{watched}", f"{self.at(f'{name}-http')}/ready")

    def add_gateway(self, name: str, engines: Collection[str]) -> None:
        """A gateway in front of these engines."""
        routed = "".join(f"    - {{engine: {one}, url: 'http://{self.at(one)}'}}\n" for one in engines)
        http = self.at(f"{name}-http")
        section = f"  name: {name}\n  pool: {POOL}\n  listen: '{self.at(name)}'\n  http: '{http}'\n{self._told()}"
        self._add(name, "gateway", f"{section}  engines:\n{routed}", f"{http}/ready")

    def add_engines(self, name: str, engines: Sequence[str]) -> None:
        """A process of small engines with their receivers."""
        served = "".join(f"    - {{engine: {one}, listen: '{self.at(one)}'}}\n" for one in engines)
        section = f"  pool: {POOL}\n{self._told()}  engines:\n{served}"
        self._add(name, "twin", section, f"{self.at(engines[-1])}/health")

    def _told(self) -> str:
        return f"  controllers: [{', '.join(repr(self.at(one)) for one in self.controllers)}]\n"

    def _add(self, name: str, section: str, text: str, ready: str) -> None:
        file = self.folder / f"{name}.yaml"
        file.write_text(f"log: {self.log}\nstate: state\ntls: none\nlogs: {{format: json}}\n{section}:\n{text}")
        self.parts[name] = Part(name, COMMANDS[section], file, ready)

    async def start(self, name: str, version: Installed, *, ready: bool = True) -> None:
        """Start a part in a version, over whatever it kept, and wait until it is ready."""
        part = self.parts[name]
        part.actor = self._actors.start(name, *part.command, "--config", str(part.file), paths=(version.folder,))
        if ready:
            await self.ready(name)

    async def ready(self, name: str) -> None:
        """Wait until a part says that it is ready."""
        http, _, path = self.parts[name].ready.partition("/")
        await self.actor(name).process.ready(http, READY_S, f"/{path}")

    def stop(self, name: str) -> None:
        """End a part in good order."""
        assert 0 == self.actor(name).stop(), self.actor(name).process.last_lines()

    def actor(self, name: str) -> Actor:
        """The process of a part that was started."""
        found = self.parts[name].actor
        assert found is not None, name
        return found

    def said(self, name: str, event: str) -> list[dict[str, Any]]:
        """The log lines of this event that a part wrote, in all its lives."""
        lines = self.actor(name).lines.splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line.get("event") == event]

    def operate(self, version: Installed, *arguments: str, controllers: Collection[str] = ()) -> Said:
        """An operator's command of this version, given to these controllers, or to all."""
        places = [word for door in controllers or self.controllers for word in ("--controller", self.at(door))]
        return version.call(*arguments, *places)

    async def status(
        self, version: Installed, *, there: Collection[str] = (), controllers: Collection[str] = ()
    ) -> dict[str, Any]:
        """The status as this version's command tells it, once nothing needs attention and `there` is attached."""
        answers: list[Said] = []

        def ask() -> dict[str, Any] | None:
            answers.append(self.operate(version, "status", "--json", controllers=controllers))
            if answers[-1].code:
                return None
            answer: dict[str, Any] = answers[-1].document
            return answer if set(there) <= attached(answer) else None

        try:
            found: dict[str, Any] = await until("a healthy fleet", ask, READY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: {answers[-1]}") from error
        return found

    async def metric(self, part: str, name: str) -> float:
        """The sum of a metric on a part's page; 0 if it is not there."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.at(f'{part}-http')}/metrics") as answer,
        ):
            text = await answer.text()
        families = prometheus_client.parser.text_string_to_metric_families(text)
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    async def serves(self) -> int:
        """Ask the gateway for a completion; the status of its answer."""
        question = {"model": "flyball-twin", "prompt": "hello", "max_tokens": 4}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30.0)) as session,
            session.post(f"http://{self.at('gateway')}/v1/completions", json=question) as answer,
        ):
            await answer.read()
            return answer.status


def pool_of(status: dict[str, Any], name: str = POOL) -> dict[str, Any]:
    """One pool of a status."""
    [found] = [pool for pool in status["pools"] if pool["pool"] == name]
    pool: dict[str, Any] = found
    return pool


def attached(status: dict[str, Any]) -> set[str]:
    """The names of all engines and gateways that are attached."""
    receivers = [one for pool in status["pools"] for one in [*pool["engines"], *pool["gateways"]]]
    return {one["name"] for one in receivers if one["attached"]}


def held(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each engine holds, by knob."""
    return {
        engine["name"]: {setting["knob"]: setting["held"] for setting in engine["settings"]}
        for engine in pool_of(status)["engines"]
    }


def orders(status: dict[str, Any], name: str = POOL) -> dict[str, Any]:
    """The standing orders of a pool."""
    pool = pool_of(status, name)
    pins = [(one["knob"], one["value"], one["author"], one["expires_wall_s"]) for one in pool["overrides"]]
    return {"policy": pool["policy_author"], "mode": pool["mode"], "paused": pool["paused"], "overrides": pins}
