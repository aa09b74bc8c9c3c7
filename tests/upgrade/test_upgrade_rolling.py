"""One fleet on one embedded log, its parts of two versions: upgraded, rolled back, and upgraded again.

The story is played once, every part a process. In each act all of the plane but the controller is of the one version and
the controller of the other, so that each pair of parts meets both ways round.
"""

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flyball_controller.checkpoints import find_checkpoint
from flyball_controller.machine.export import SCHEMA
from flyball_log import fold, open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_checkpoint
from harness.invariants import Findings, check_log
from installed_versions import Installed, Said, Versions
from laboratory.processes import Actors, until
from mixed_fleet import KNOB, POLICY, POOL, QUIET, Applied, MixedFleet, held, orders, pool_of, read_applied

OTHERS = ("engines", "gateway", "agent")
"""Everything but the controller."""

pytestmark = pytest.mark.timeout(240)

CHECKPOINT_S = 40.0
UNSENT = 6
"""Frames that an agent has in its spool before it is exchanged."""


@dataclass(slots=True)
class Act:
    """What was seen while a controller of one version governed parts of the other."""

    controller: str
    others: str
    epoch: int
    refused: list[str]
    """Why stored states were not taken."""
    found: list[dict[str, Any]]
    """The status before anything is ordered, as the commands of the older and of the newer version tell it."""
    served: int = 0
    """What the gateway answered to a client."""
    left: dict[str, Any] = field(default_factory=dict)
    """The status before the controller ends."""


@dataclass(slots=True)
class Story:
    """Everything that was seen."""

    acts: list[Act] = field(default_factory=list)
    pins: list[Said] = field(default_factory=list)
    unsent: list[tuple[str, int]] = field(default_factory=list)
    """The boots of agents that ended with frames in their spool, and how many."""
    dropped: float = 0.0
    applied: Applied = field(default_factory=Applied)
    findings: Findings = field(default_factory=Findings)
    log: str = ""


def describe(fleet: MixedFleet) -> None:
    """Two engines and a gateway, an agent that watches them, a controller."""
    (fleet.folder / "policy.yaml").write_text(POLICY.format(mode="control"))
    (fleet.folder / "quiet.yaml").write_text(POLICY.format(mode="advise"))
    at = fleet.at
    names = ("engine-0", "engine-1")
    fleet.add(
        "controller",
        "controller",
        f"  {{name: one, listen: '{at('controller')}', http: '{at('controller-http')}', tick: 100ms,\n"
        f"   policies: {{{QUIET}: quiet.yaml}}}}\n",
        "controller-http/ready",
    )
    scraped = "".join(
        f"    - {{engine: {name}, pool: {POOL}, metrics: 'http://{at(name)}/metrics', variant: graphs}}\n"
        for name in names
    )
    fleet.add(
        "agent",
        "agent",
        f"  name: node\n  http: '{at('agent-http')}'\n  period: 200ms\n  gpus: none\n"
        f"  controllers: ['{at('controller')}']\n  engines:\n{scraped}",
        "agent-http/ready",
    )
    routed = "".join(f"    - {{engine: {name}, url: 'http://{at(name)}'}}\n" for name in names)
    fleet.add(
        "gateway",
        "gateway",
        f"  name: door\n  pool: {POOL}\n  listen: '{at('gateway')}'\n  http: '{at('gateway-http')}'\n"
        f"  controllers: ['{at('controller')}']\n  engines:\n{routed}",
        "gateway-http/ready",
    )
    served = "".join(f"    - {{engine: {name}, listen: '{at(name)}'}}\n" for name in names)
    fleet.add(
        "engines",
        "engines",
        f"  pool: {POOL}\n  controllers: ['{at('controller')}']\n  engines:\n{served}",
        "engine-1/health",
    )


class Play:
    """Plays the story and writes down what is seen."""

    def __init__(self, fleet: MixedFleet, versions: Versions) -> None:
        self.fleet = fleet
        self.versions = versions
        self.story = Story(log=fleet.log)

    async def open_act(self, controller: Installed, others: Installed) -> None:
        """The controller starts; what operators of both versions see before they order anything."""
        await self.fleet.start("controller", controller)
        taken = (await until("a claim", lambda: self.claims(len(self.story.acts)), CHECKPOINT_S))[-1]
        found = [await self.fleet.status(one) for one in (self.versions.older, self.versions.newer)]
        self.story.acts.append(
            Act(controller.version, others.version, taken["epoch"], taken["refused"], found, await self.fleet.serves())
        )

    def claims(self, before: int) -> list[dict[str, Any]]:
        """The claims that the controller logged, once there are more than before."""
        found = self.fleet.said("controller", "partition_taken")
        return found if len(found) > before else []

    async def close_act(self) -> None:
        """What stands when the controller ends; then it ends."""
        self.story.acts[-1].left = await self.fleet.status(self.versions.newer)
        self.fleet.stop("controller")

    def pin(self, version: Installed, value: int) -> None:
        """Pin the knob of all engines and wait for their answers."""
        span = ("--for", "30m", "--reason", "held", "--author", "alice", "--json")
        self.story.pins.append(self.fleet.operate(version, "override", "set", POOL, KNOB, str(value), *span))

    async def checkpointed(self, schema: int) -> None:
        """Wait until nothing but states of this schema is stored, so that the next owner has no other."""

        async def stored() -> bool:
            log = await open_log(self.story.log, read_only=True)
            try:
                records = await fold(log, Topic.STATE, 0)
            finally:
                await log.close()
            values = [record.value for record in records.values() if record.value is not None]
            return bool(values) and {schema} == {decode_checkpoint(value).schema for value in values}

        await until(f"states of schema {schema} only", stored, CHECKPOINT_S)

    async def exchange_others(self, into: Installed) -> None:
        """While no controller runs, all others are exchanged: the agent with unsent frames in its spool."""
        fleet = self.fleet
        boot = pool_of(self.story.acts[-1].left)["agents"][0]["boot"]

        async def unsent() -> int:
            return int(await fleet.metric("agent-http", "flyball_agent_spool_frames"))

        async def enough() -> bool:
            return await unsent() >= UNSENT

        await until("unsent frames", enough, CHECKPOINT_S)
        self.story.unsent.append((boot, await unsent()))
        for name in OTHERS:
            fleet.stop(name)
        await self.start_others(into)

    async def start_others(self, version: Installed) -> None:
        """All but the controller; the agent is not ready before there is one."""
        await asyncio.gather(*[self.fleet.start(name, version, ready=name == "engines") for name in OTHERS])

    def order(self, version: Installed, *words: str) -> None:
        """An order of alice, given with the command of this version; it must be taken."""
        said = self.fleet.operate(version, *words, "--author", "alice")
        assert 0 == said.code, said.out + said.err

    async def run(self) -> Story:
        """All acts."""
        older, newer = self.versions.older, self.versions.newer
        policy = str(self.fleet.folder / "policy.yaml")
        await self.start_others(newer)
        await self.open_act(older, newer)
        self.order(newer, "policy", "apply", POOL, policy)
        self.order(newer, "pause", QUIET, "--reason", "held")
        self.pin(newer, 48)
        await self.checkpointed(SCHEMA - 1)
        await self.close_act()
        await self.exchange_others(older)
        await self.open_act(newer, older)
        self.pin(older, 40)
        await self.checkpointed(SCHEMA)
        await self.close_act()
        await self.exchange_others(newer)
        await self.open_act(older, newer)
        await self.close_act()
        await self.open_act(newer, newer)
        await self.close_act()
        return await self.ended()

    async def ended(self) -> Story:
        """The story, once everything has ended."""
        story = self.story
        story.dropped = await self.fleet.metric("agent-http", "flyball_agent_frames_dropped_total")
        for name in OTHERS:
            self.fleet.stop(name)
        story.applied = await read_applied(story.log)
        log = await open_log(story.log, read_only=True)
        story.findings = await check_log(log)
        await log.close()
        return story


@pytest.fixture(scope="module")
def story(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The story, played."""
    folder = tmp_path_factory.mktemp("rolling")
    with Actors(folder) as actors:
        fleet = MixedFleet(actors, folder)
        describe(fleet)
        return asyncio.run(Play(fleet, versions).run())


def test_debug(story):
    """x"""
    for act in story.acts:
        print(act.controller, act.others, act.epoch, act.refused, act.served, orders(act.left), held(act.left))
    print(story.unsent, story.dropped, story.findings, story.applied.holes(), story.applied.decreases())
    print({k: [(i, str(v)) for i, v in x] for k, x in story.applied.attaches.items()})
    print({k: [str(v) for v in x] for k, x in story.applied.acks.items()})
    assert 0
