"""A fleet whose parts are of two installed versions, as processes on loopback, and what it left in its log.

Each part can be stopped and started again in either version over the same files. Nothing here decides what is
right: tests read the answers of the operator's commands and the records.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import prometheus_client.parser

from flyball_cli.processes import free_port
from flyball_core.fencing import Version
from flyball_core.frames import Frame
from flyball_core.inputs import Ack, AckStatus, Attach, Input
from flyball_log import open_log, scan
from flyball_log.interface import Log, Topic
from flyball_proto.codec import decode_input
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

_COMMANDS = {"controller": ("controller",), "agent": ("agent",), "gateway": ("gateway",), "engines": ("twin", "serve")}


@dataclass(slots=True)
class Part:
    """One part: its command, its file, where it answers 200 once it is ready."""

    name: str
    service: str
    file: Path
    ready: str
    actor: Actor | None = None


class MixedFleet:
    """Parts in one folder, by name. `add` them, then `start` each in a version."""

    def __init__(self, actors: Actors, folder: Path, log: str = "log") -> None:
        self.folder = folder
        self.log = log if "://" in log else str(folder / log)
        self.parts: dict[str, Part] = {}
        self._actors = actors
        self._ports: dict[str, str] = {}

    def at(self, door: str) -> str:
        """HOST:PORT of a door by its name, the same at every start."""
        if door not in self._ports:
            taken = set(self._ports.values())
            while (place := f"127.0.0.1:{free_port()}") in taken:
                pass
            self._ports[door] = place
        return self._ports[door]

    def add(self, name: str, service: str, section: str, ready: str) -> None:
        """A part whose file has this section; `ready` is a door and path."""
        door, _, path = ready.partition("/")
        file = self.folder / f"{name}.yaml"
        file.write_text(
            f"log: {self.log}\nstate: state\ntls: none\nlogs: {{format: json}}\n{service_key(service)}:\n{section}"
        )
        self.parts[name] = Part(name, service, file, f"{self.at(door)}/{path}")

    async def start(self, name: str, version: Installed, *, ready: bool = True) -> None:
        """Start a part in a version, over whatever it kept, and wait until it is ready."""
        part = self.parts[name]
        part.actor = self._actors.start(
            name, *_COMMANDS[part.service], "--config", str(part.file), paths=(version.folder,)
        )
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

    def operate(self, version: Installed, *arguments: str, doors: tuple[str, ...] = ("controller",)) -> Said:
        """An operator's command of this version, given to the controllers at these doors."""
        places = [word for door in doors for word in ("--controller", self.at(door))]
        return version.call(*arguments, *places)

    async def status(self, version: Installed, doors: tuple[str, ...] = ("controller",)) -> dict[str, Any]:
        """The fleet's status as this version's command tells it, once nothing needs attention."""

        def ask() -> dict[str, Any] | None:
            said = self.operate(version, "status", "--json", doors=doors)
            answer: dict[str, Any] = said.document if said.out else {"said": said.err}
            seen.append(answer)
            return answer if said.code == 0 and answer.get("pools") else None

        seen: list[dict[str, Any]] = []
        try:
            found: dict[str, Any] = await until("a healthy fleet", ask, READY_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: {json.dumps(seen[-1])[:4000]}") from error
        return found

    async def metric(self, door: str, name: str) -> float:
        """The sum of a metric on a part's page; 0 if it is not there."""
        async with aiohttp.ClientSession() as session, session.get(f"http://{self.at(door)}/metrics") as answer:
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


def service_key(service: str) -> str:
    """The section of the configuration file that a service reads."""
    return "twin" if service == "engines" else service


def pool_of(status: dict[str, Any], name: str = POOL) -> dict[str, Any]:
    """One pool of a status."""
    [found] = [pool for pool in status["pools"] if pool["pool"] == name]
    pool: dict[str, Any] = found
    return pool


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


@dataclass(slots=True)
class Applied:
    """What one log says of receivers and frames, in its order."""

    acks: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))
    """By target: the versions that it took."""
    attaches: dict[str, list[tuple[str, Version | None]]] = field(default_factory=lambda: defaultdict(list))
    """By target: incarnation, and the version that it said it held."""
    frames: dict[tuple[str, str, str], dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """By agent, boot and pool: the offset at which each sequence number first stands."""

    def decreases(self) -> list[str]:
        """Targets that took an older version after a newer one."""
        return [
            f"{target} took {after} after {before}"
            for target, versions in self.acks.items()
            for before, after in zip(versions, versions[1:], strict=False)
            if (after.epoch, after.revision) < (before.epoch, before.revision)
        ]

    def holes(self) -> list[str]:
        """Sequence numbers that are missing below the highest of their boot."""
        return [
            f"{place}: {sorted(set(range(max(seen) + 1)) - seen.keys())}"
            for place, seen in self.frames.items()
            if len(seen) != max(seen) + 1
        ]


async def applied_in(log: Log) -> Applied:
    """Read the whole of a log's inputs."""
    found = Applied()
    for partition in range(log.partitions):
        async for records in scan(log, Topic.INPUTS, partition):
            for record in records:
                _note(found, decode_input(record.offset, record.value))
    return found


def _note(found: Applied, item: Input) -> None:
    body = item.body
    if isinstance(body, Ack) and body.status is not AckStatus.NACK:
        found.acks[body.target].append(body.version)
    elif isinstance(body, Attach) and body.attached:
        found.attaches[body.target].append((body.incarnation, body.held))
    elif isinstance(body, Frame):
        found.frames[body.agent, body.boot, body.pool].setdefault(body.seq, item.offset)


async def read_applied(where: str) -> Applied:
    """The same of a log by its place, whoever writes it meanwhile."""
    log = await open_log(where, read_only=True)
    try:
        return await applied_in(log)
    finally:
        await log.close()
