"""A small fleet of real processes: controllers on one log, and engines with production receivers in one process each.

It writes their files, starts nothing by itself, and asks what they say of themselves. Nothing here waits longer
for an answer than `ASK_S`, for some of those who are asked are frozen, or gone.
"""

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from flyball_cli.processes import FLYBALL
from flyball_core.knobs import BATCH_CAP
from flyball_proto.v1 import common_pb2, services_pb2 as pb
from harness.controller_calls import metric, page, pin, status
from laboratory.processes import Actor, Actors

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
        """A controller, not started yet. `module` is one of the laboratory that breaks something in it on purpose."""
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

    async def settles(self, engines: Iterable[str], within_s: float, *, pool: str = POOL) -> Mapping[str, int]:
        """The pins in force, by engine, once each of these engines has one and holds it. AssertionError after `within_s`."""
        end_s = time.monotonic() + within_s
        while True:
            told = await self.pool(pool)
            caps = {} if told is None else {one.target: one.value.integer for one in told.overrides}
            unpinned = [name for name in engines if name not in caps]
            left = unpinned if told is None else [*unpinned, *unsettled(told, caps)]
            if told is not None and not left:
                return caps
            assert time.monotonic() < end_s, f"not settled within {within_s:.1f} s: {left}"
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
        """Pin an engine's cap through a controller's door: `taken`, `refused`, `on_record`, or the code it failed with."""
        try:
            answer = await pin(
                self.doors[name][0], cap, pool=pool, engine=engine, override_id=f"pin-{engine}", within_s=within_s
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return pb.WriteOutcome.Name(answer.outcome).removeprefix("WRITE_OUTCOME_").lower()


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
