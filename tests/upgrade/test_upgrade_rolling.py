"""One fleet on one embedded log, its parts of two versions: upgraded, rolled back, and upgraded again.

The story is played once, every part a process. In each act the controller is of the one version and all other parts are
of the other, so that each pair of parts meets both ways round.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from flyball_controller.machine.export import SCHEMA
from flyball_log import fold, open_log
from flyball_log.interface import Topic
from flyball_proto.codec import decode_checkpoint
from harness.invariants import Findings, check_log
from installed_versions import Installed, Said, Versions
from laboratory.processes import Actors, until
from mixed_fleet import KNOB, POOL, QUIET, MixedFleet, attached, held, orders, pool_of
from recorded_inputs import Recorded, read_recorded

RECEIVING = ("engines", "gateway")
ENGINES = ("engine-0", "engine-1")
PINS = (200, 190)

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 40.0
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
    recorded: Recorded = field(default_factory=Recorded)
    findings: Findings = field(default_factory=Findings)
    log: str = ""


class Play:
    """Plays the story and writes down what is seen."""

    def __init__(self, fleet: MixedFleet, versions: Versions) -> None:
        self.fleet = fleet
        self.versions = versions
        self.story = Story(log=fleet.log)

    async def open_act(self, controller: Installed, others: Installed, *start: str) -> None:
        """The controller starts, then these parts; what operators of both versions see before they order anything."""
        await self.fleet.start("controller", controller)
        taken = (await until("a claim", lambda: self.claims(len(self.story.acts)), PATIENCE_S))[-1]
        await self.start(others, *start)
        both = (self.versions.older, self.versions.newer)
        found = [await self.fleet.status(one, there={*ENGINES, "gateway"}) for one in both]
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
        span = ("--for", "30m", "--wait", "40s", "--reason", "held", "--author", "alice", "--json")
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

        await until(f"states of schema {schema} only", stored, PATIENCE_S)

    async def exchange_agent(self, into: Installed) -> None:
        """While no controller runs: an agent with unsent frames in its spool gives way to the other version."""
        boot = pool_of(self.story.acts[-1].left)["agents"][0]["boot"]

        async def unsent() -> int:
            found = int(await self.fleet.metric("agent", "flyball_agent_spool_frames"))
            return found if found >= UNSENT else 0

        self.story.unsent.append((boot, await until("unsent frames", unsent, PATIENCE_S)))
        self.fleet.stop("agent")
        await self.fleet.start("agent", into, ready=False)

    async def start(self, version: Installed, *names: str) -> None:
        """Start parts in a version."""
        await asyncio.gather(*[self.fleet.start(name, version) for name in names])

    def stop(self, *names: str) -> None:
        """Stop parts in good order."""
        for name in names:
            self.fleet.stop(name)

    def order(self, version: Installed, *words: str) -> None:
        """An order of alice, given with the command of this version; it must be taken."""
        said = self.fleet.operate(version, *words, "--author", "alice")
        assert 0 == said.code, said.out + said.err

    async def run(self) -> Story:
        """All acts. Receivers of an older controller start after it: see `docs/upgrade.md`, "Known of 0.1.0"."""
        older, newer = self.versions.older, self.versions.newer
        await self.fleet.start("agent", newer, ready=False)
        await self.open_act(older, newer, *RECEIVING)
        self.order(newer, "policy", "apply", POOL, str(self.fleet.folder / f"{POOL}.yaml"))
        self.order(newer, "pause", QUIET, "--reason", "held")
        self.pin(newer, PINS[0])
        await self.checkpointed(SCHEMA - 1)
        await self.close_act()
        await self.exchange_agent(older)
        self.stop(*RECEIVING)
        await self.start(older, *RECEIVING)
        await self.open_act(newer, older)
        self.order(older, "override", "clear", POOL, "--all")
        self.pin(older, PINS[1])
        await self.checkpointed(SCHEMA)
        await self.close_act()
        await self.exchange_agent(newer)
        self.stop(*RECEIVING)
        await self.open_act(older, newer, *RECEIVING)
        await self.close_act()
        await self.open_act(newer, newer)
        await self.close_act()
        return await self.ended()

    async def ended(self) -> Story:
        """The story, once everything has ended."""
        story = self.story
        story.dropped = await self.fleet.metric("agent", "flyball_agent_frames_dropped_total")
        self.stop("agent", *RECEIVING)
        story.recorded = await read_recorded(story.log)
        log = await open_log(story.log, read_only=True)
        story.findings = await check_log(log)
        await log.close()
        return story


@pytest.fixture(scope="module")
def story(versions: Versions, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The story, played."""
    folder = tmp_path_factory.mktemp("rolling")
    with Actors(folder) as actors:
        fleet = MixedFleet(actors, folder, controllers=("controller",))
        fleet.add_controller("controller")
        fleet.add_agent("agent", ENGINES)
        fleet.add_engines("engines", ENGINES)
        fleet.add_gateway("gateway", ENGINES)
        return asyncio.run(Play(fleet, versions).run())


def test_every_pair_of_parts_works_both_ways_round(story: Story, versions: Versions) -> None:
    """Telemetry is fresh, all receivers are attached, clients are served, and both versions' commands say so."""
    older, newer = versions.older.version, versions.newer.version
    assert [(older, newer), (newer, older), (older, newer), (newer, newer)] == [
        (act.controller, act.others) for act in story.acts
    ]
    for act in story.acts:
        assert 200 == act.served
        for status in act.found:
            pool = pool_of(status)
            assert status["healthy"]
            assert {*ENGINES, "gateway"} == attached(status)
            assert ["agent"] == [agent["agent"] for agent in pool["agents"] if not agent["stale"]]
            assert [False, False] == [engine["stale"] for engine in pool["engines"]]


def test_a_pin_is_applied_and_acknowledged_across_versions(story: Story) -> None:
    """Pinned through one version's command at the other's controller: every receiver holds it and has said so."""
    for said, value, act in zip(story.pins, PINS, story.acts, strict=False):
        assert 0 == said.code, said
        assert list(ENGINES) == sorted(one["name"] for one in said.document["receivers"])
        assert {value} == {settings[KNOB] for settings in held(act.left).values()}


def test_orders_stand_through_every_takeover(story: Story) -> None:
    """Policy, mode, overrides with author and expiry, and a pause are after each takeover what they were before."""
    for before, after in pairwise(story.acts):
        for status in after.found:
            assert orders(before.left) == orders(status)
            assert orders(before.left, QUIET) == orders(status, QUIET)
    last = story.acts[-1].left
    assert ("alice", "control", False) == tuple(orders(last)[name] for name in ("policy", "mode", "paused"))
    assert [(KNOB, PINS[-1], "alice")] == [pin[:3] for pin in orders(last)["overrides"]]
    assert ("advise", True) == tuple(orders(last, QUIET)[name] for name in ("mode", "paused"))


def test_no_setting_moves_by_a_takeover(story: Story) -> None:
    """Every engine holds after each takeover what it held before."""
    for before, after in pairwise(story.acts):
        for status in after.found:
            assert held(before.left) == held(status)


def test_the_newer_goes_on_from_the_olders_state(story: Story, versions: Versions) -> None:
    """It refuses nothing that it finds, whichever of the two wrote it."""
    for act in story.acts:
        assert act.controller == versions.older.version or act.refused == []


def test_the_older_refuses_the_newers_state_in_a_sentence(story: Story) -> None:
    """Rolled back, it says that a newer Flyball wrote what is stored, and goes on from the inputs."""
    refused = story.acts[2].refused
    said = f"the state is of schema {SCHEMA}, written by a newer Flyball; this one knows {SCHEMA - 1}"

    assert refused
    assert all(one.endswith(said) for one in refused)


def test_epochs_grow_and_no_receiver_goes_back(story: Story) -> None:
    """In all of the log no receiver takes an older version, or comes back holding one older than it had taken."""
    epochs = [act.epoch for act in story.acts]

    assert sorted(set(epochs)) == epochs
    assert [] == story.recorded.went_back()
    assert [] == story.findings.all
    for target in (*ENGINES, "gateway"):
        taken = {one.version.epoch for one in story.recorded.heard[target] if one.version is not None}
        assert set(epochs) == taken, target


def test_a_receivers_setting_survives_its_exchange(story: Story) -> None:
    """A receiver of the other version over the same folder says that it holds what the one before it took last."""
    for target in (*ENGINES, "gateway"):
        said = story.recorded.heard[target]
        lives = [
            (before, after)
            for before, after in pairwise(said)
            if after.attach and after.incarnation != before.incarnation
        ]

        assert 2 == len(lives), target
        assert all(after.version is not None for _, after in lives)


def test_no_frame_is_lost_in_an_agents_exchange(story: Story) -> None:
    """Frames that one version left in its spool are sent by the other: none is missing, none was given up."""
    epochs = [act.epoch for act in story.acts[1:]]
    for (boot, unsent), epoch in zip(story.unsent, epochs, strict=False):
        offsets = story.recorded.frames["agent", boot, POOL].values()

        assert unsent >= UNSENT
        assert unsent <= sum(offset > epoch for offset in offsets)
    assert 0 == story.dropped
    assert [] == story.recorded.holes()


def test_a_log_of_both_is_compared_by_each(story: Story, versions: Versions) -> None:
    """Each names the other's claims; it ends with code 3, or with 1 and an alarm or feature that only one has."""
    for reader in (versions.older, versions.newer):
        said = reader.call("replay", story.log)
        other = versions.other(reader)

        assert 2 == said.out.count(f"flyball {other.version}, here {reader.version}")
        assert (3, True) == (said.code, said.out.startswith("within tolerance")) or (
            (1, True) == (said.code, said.out.startswith("different"))
            and ("alarm" in said.out.lower() or (reader is versions.older and "features." in said.out))
        ), said.out
