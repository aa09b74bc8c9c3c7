"""A small fleet of real processes: controllers on one log, and engines with production receivers in one process each.

It writes their files, starts nothing by itself, and asks what they say of themselves. Nothing here waits longer
for an answer than `ASK_S`, for some of those who are asked are frozen, or gone.
"""

import asyncio
import json
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from flyball_agents.spool import Spool
from flyball_cli.processes import FLYBALL
from flyball_core.inputs import Claim
from flyball_core.knobs import BATCH_CAP
from flyball_log import Log, Topic, open_log, scan
from flyball_log.kafka import create_topics, settings_for
from flyball_proto.codec import decode_input
from flyball_proto.v1 import common_pb2, services_pb2 as pb
from harness.controller_calls import metric, page, pin, status
from laboratory import lab_agent
from laboratory.arriving import agent_file
from laboratory.checker import judge
from laboratory.processes import Actor, Actors
from laboratory.record import read_record
from laboratory.verdict import Verdict

POOL = "chat"
ASK_S = 2.0

POLICY = """\
version: 1
mode: control
lanes:
  realtime: {priority: 0, ttft: 2s, tpot: 30ms, longest_wait: 20s}
knobs:
  max_active_requests: {min: 4, max: 128}
"""

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to whoever connects: what is started again finds its port still free."""


async def new_topics(broker: str, partitions: int) -> str:
    """A new log in Kafka, as `flyball topics create --dev` makes it; its name."""
    where = f"kafka://{broker}/test-{uuid.uuid4().hex[:12]}"
    await create_topics(settings_for(where), partitions=partitions, replication=1, dev=True)
    return where


def lasting_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that no outgoing connection is given meanwhile."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass(slots=True)
class Fleet:
    """Controllers on one log, by name, and the processes of engines."""

    actors: Actors
    log: str
    tick_s: float = 0.2
    partitions: int = 1
    policies: Mapping[str, str] = field(default_factory=lambda: {POOL: POLICY})
    doors: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By controller: its gRPC door and its HTTP door, HOST:PORT, the same in every life."""

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        return self.actors.folder

    @property
    def record(self) -> Path:
        """Where the engines write what they applied."""
        return self.folder / "record"

    def controller(self, name: str, module: str = FLYBALL) -> Actor:
        """A controller, not started yet. `module` is one of the laboratory's that breaks something in it on purpose."""
        self.doors[name] = (f"127.0.0.1:{lasting_port()}", f"127.0.0.1:{lasting_port()}")
        grpc_door, http_door = self.doors[name]
        lines = [f"log: {self.log}", f"state: state/{name}", "tls: none", "controller:", f"  name: {name}"]
        lines += [f"  listen: {grpc_door}", f"  http: {http_door}", f"  tick: {round(self.tick_s * 1000)}ms"]
        lines += [f"  partitions: {self.partitions}", "  policies:"]
        for pool, text in self.policies.items():
            (self.folder / f"{pool}.policy.yaml").write_text(text)
            lines.append(f"    {pool}: {pool}.policy.yaml")
        file = self.folder / f"{name}.yaml"
        file.write_text("\n".join(lines) + "\n")
        return self.actors.add(name, "controller", "--config", str(file), module=module)

    def engines(
        self, name: str, engines: Sequence[str], *more: str, pool: str = POOL, controllers: Iterable[str] = ()
    ) -> Actor:
        """Engines of a pool in one process, not started yet; they seek all controllers unless told which.

        `more` are further arguments of `lab_engines`.
        """
        doors = ",".join(self.doors[one][0] for one in controllers or self.doors)
        words = ["--controllers", doors, "--engines", ",".join(engines), "--pool", pool, "--name", name]
        words += ["--state", str(self.folder / "state" / name), "--record", str(self.record), "--no-fsync"]
        return self.actors.add(name, *words, *more, module="laboratory.lab_engines")

    def agent(self, name: str, engines: int, *more: str, pools: Iterable[str] = (POOL,)) -> Actor:
        """An agent, not started yet, whose telemetry tells of engines called NAME-POOL-0 and on in each pool.

        `more` are further arguments of `lab_agent`.
        """
        file = agent_file(self.folder, name, log=self.log, controllers=[door for door, _ in self.doors.values()])
        words = ["--config", str(file), "--record", str(self.record), "--pools", ",".join(pools)]
        return self.actors.add(name, *words, "--engines", str(engines), *more, module=lab_agent.MODULE)

    async def judged(self) -> Verdict:
        """What the checker makes of the record and the log; both must stand still.

        What agents had not sent when they were stopped lies in their spools, and is not missed.
        """
        record, waiting = read_record(self.record), spooled(self.folder)
        record.sampled = [one for one in record.sampled if one.what != "synced" or one.identity[1:] not in waiting]
        log = await open_log(self.log, read_only=True)
        try:
            return await judge(record, log)
        finally:
            await log.close()

    async def claims(self) -> dict[int, list[tuple[int, str]]]:
        """By partition, every claim: its offset, and whose it is."""
        log = await open_log(self.log, read_only=True)
        try:
            return {
                partition: [claim async for claim in _claims(log, partition)] for partition in range(log.partitions)
            }
        finally:
            await log.close()

    async def says(self, name: str) -> pb.StatusResponse | None:
        """What a controller says of itself and its pools; None if it does not answer, or only why it cannot yet."""
        actor = self.actors.all[name]
        if not actor.running or actor.frozen:
            return None
        try:
            return await status(self.doors[name][0], within_s=ASK_S)
        except grpc.aio.AioRpcError:
            return None

    async def pool(self, pool: str = POOL) -> pb.PoolStatus | None:
        """A pool as its owner tells of it, the one of the later claim if two do; None while nobody does."""
        told = [answer for name in self.doors if (answer := await self.says(name)) is not None]
        found = [one for answer in told for one in answer.pools if one.pool == pool]
        return max(found, key=lambda one: one.epoch, default=None)

    async def must_own(self, pool: str = POOL) -> pb.PoolStatus:
        """The same; AssertionError while nobody does."""
        told = await self.pool(pool)
        assert told is not None, f"nobody owns {pool}"
        return told

    async def owner(self, pool: str = POOL) -> str:
        """Which controller owns a pool; empty while nobody does."""
        told = await self.pool(pool)
        return "" if told is None else told.owner

    async def attached(self, engines: Iterable[str], pool: str = POOL) -> bool:
        """Whether the pool's owner knows these as attached."""
        told = await self.pool(pool)
        return told is not None and {*engines} <= {one.target for one in told.targets if one.attached}

    async def ready(self, name: str) -> bool:
        """Whether a controller says that it waits for nothing."""
        return await self.waits_for(name) == {}

    async def settles(self, engines: Iterable[str], within_s: float, *, pool: str = POOL) -> Mapping[str, int]:
        """The pins in force, by engine, once each of these has one and holds it. AssertionError after `within_s`."""
        end_s = time.monotonic() + within_s
        while True:
            told = await self.pool(pool)
            pins = {} if told is None else {one.target: one.value.integer for one in told.overrides}
            caps = {name: pins[name] for name in engines if name in pins}
            left = [name for name in engines if name not in pins] + ([] if told is None else unsettled(told, caps))
            if told is not None and not left:
                return caps
            assert time.monotonic() < end_s, f"not settled within {within_s:.1f} s: {left or 'nobody owns the pool'}"
            await asyncio.sleep(0.1)

    async def waits_for(self, name: str) -> Mapping[str, str] | None:
        """What a controller says at `/ready` that it waits for, empty if it is ready; None if nobody answers."""
        try:
            _, text = await page(self.doors[name][1], "/ready")
        except (aiohttp.ClientError, OSError):
            return None
        waiting: dict[str, str] = json.loads(text)["waiting_for"]
        return waiting

    async def metric(self, name: str, of: str, **labels: str) -> float:
        """One of a controller's numbers."""
        return await metric(self.doors[name][1], of, **labels)

    async def order(self, name: str, engine: str, cap: int, *, pool: str = POOL, within_s: float = ASK_S) -> str:
        """Pin an engine's cap at a controller's door: `taken`, `refused`, `on_record`, or the code it failed with."""
        try:
            answer = await pin(
                self.doors[name][0], cap, pool=pool, engine=engine, override_id=f"pin-{engine}", within_s=within_s
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return pb.WriteOutcome.Name(answer.outcome).removeprefix("WRITE_OUTCOME_").lower()


async def _claims(log: Log, partition: int) -> AsyncIterator[tuple[int, str]]:
    async for records in scan(log, Topic.INPUTS, partition):
        for record in records:
            body = decode_input(record.offset, record.value).body
            if isinstance(body, Claim):
                yield record.offset, body.owner


def spooled(folder: Path) -> set[tuple[str, str, int]]:
    """Boot, pool and sequence number of each frame on disk in the spools below a folder, whose agents do not run."""
    found: set[tuple[str, str, int]] = set()
    for place in folder.glob("**/spool"):
        spool = Spool(place)
        found.update(ticket.key for ticket in spool.oldest(spool.waiting))
        spool.close()
    return found


def place(version: common_pb2.Version) -> tuple[int, int]:
    """Where a version stands in the order of its partition."""
    return version.epoch, version.revision


def unsettled(pool: pb.PoolStatus, caps: Mapping[str, int]) -> list[str]:
    """Who of these engines does not hold this cap in what the claim in force told it last, and what it does instead."""
    told = {one.target: one for one in pool.targets}
    found = []
    for name, cap in caps.items():
        one = told.get(name, pb.TargetStatus())
        held, versions = one.effective[BATCH_CAP].integer, (place(one.told), place(one.acked))
        alright = one.attached and not one.trouble.startswith(("nack", "diverged", "holds"))
        if not alright or held != cap or versions[0] != versions[1] or one.told.epoch != pool.epoch:
            found.append(
                f"{name} {one.trouble or 'serves'}: is to hold {cap}, wanted {one.wanted[BATCH_CAP].integer}, "
                f"holds {held}; told, acknowledged {versions} under claim {pool.epoch}"
            )
    return found


def events(lines: str, event: str) -> list[tuple[float, dict[str, Any]]]:
    """The log lines of an event in what a service wrote, each with its wall time in Unix seconds."""
    found = []
    for line in lines.splitlines():
        if line.startswith("{") and f'"{event}"' in line:
            said = json.loads(line)
            if said.get("event") == event:
                found.append((datetime.fromisoformat(said["time"]).timestamp(), said))
    return found
