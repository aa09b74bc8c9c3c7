"""Two controllers of two versions in one group of a real Kafka, each taking over from the other after kill -9.

Agents and engines are of both versions too: the older agent watches the newer engine, and the other way round.
"""

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from installed_versions import Installed, Versions
from laboratory.processes import Actors, until
from mixed_fleet import KNOB, POOL, MixedFleet, held, orders, pool_of
from recorded_inputs import Recorded, read_recorded

pytestmark = pytest.mark.timeout(240)

ENGINES = ("engine-older", "engine-newer")
CONTROLLERS = ("older", "newer")
PARTITIONS = 2
PIN = 200
TAKEOVER_S = 60.0
"""A group waits 10 s for a member that was killed."""


@dataclass(slots=True)
class Takeover:
    """One kill, and what the other one made of it."""

    killed: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(slots=True)
class Story:
    """Everything that was seen."""

    shares: dict[str, int] = field(default_factory=dict)
    """By controller: the partitions that it owned when both ran."""
    takeovers: list[Takeover] = field(default_factory=list)
    recorded: Recorded = field(default_factory=Recorded)


class Play:
    """Plays the story and writes down what is seen."""

    def __init__(self, fleet: MixedFleet, versions: Versions) -> None:
        self.fleet = fleet
        self.versions: dict[str, Installed] = {"older": versions.older, "newer": versions.newer}
        self.story = Story()

    async def settled(self, *controllers: str) -> dict[str, Any]:
        """The status once these controllers share all partitions, each with some, and all engines are attached."""

        async def ask() -> dict[str, Any] | None:
            found = await self.fleet.status(self.versions["newer"], there=ENGINES, controllers=controllers)
            shares = {one["controller"]: len(one["owned"]) for one in found["controllers"]}
            self.story.shares.update(shares if len(shares) == len(CONTROLLERS) else {})
            fresh = pool_of(found)["tick_age_s"] < 5.0
            return found if all(shares.values()) and sum(shares.values()) == PARTITIONS and fresh else None

        found: dict[str, Any] = await until(f"{controllers} share the partitions", ask, TAKEOVER_S)
        return found

    async def take_over(self, killed: str) -> None:
        """Kill one controller, and wait until the other owns everything and all is well."""
        [other] = [name for name in CONTROLLERS if name != killed]
        before = await self.settled(*CONTROLLERS)
        self.fleet.actor(killed).kill()
        self.story.takeovers.append(Takeover(killed, before, await self.settled(other)))

    def order(self, version: str, *words: str) -> None:
        """An order of alice, given with the command of this version; it must be taken."""
        said = self.fleet.operate(self.versions[version], *words, "--author", "alice")
        assert 0 == said.code, said

    async def run(self) -> Story:
        """Both start; then each is killed and comes back, or would."""
        fleet = self.fleet
        agents = [fleet.start(f"agent-{name}", self.versions[name], ready=False) for name in CONTROLLERS]
        engines = [fleet.start(f"engines-{name}", self.versions[name]) for name in CONTROLLERS]
        await asyncio.gather(*agents, *engines)
        await asyncio.gather(*[fleet.start(name, self.versions[name]) for name in CONTROLLERS])
        await self.settled(*CONTROLLERS)
        self.order("older", "policy", "apply", POOL, str(fleet.folder / f"{POOL}.yaml"))
        self.order(
            "newer", "override", "set", POOL, KNOB, str(PIN), "--for", "30m", "--wait", "40s", "--reason", "held"
        )
        await self.take_over("older")
        await fleet.start("older", self.versions["older"])
        await self.take_over("newer")
        self.story.recorded = await read_recorded(fleet.log)
        return self.story


@pytest.fixture(scope="module")
def story(versions: Versions, kafka_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The story, played over topics of its own that the older version made."""
    folder, where = tmp_path_factory.mktemp("group"), f"kafka://{kafka_broker}/upgrade-{uuid.uuid4().hex[:12]}"
    made = versions.older.call("topics", "create", where, "--partitions", str(PARTITIONS), "--dev")
    assert 0 == made.code, made
    assert 0 == versions.newer.call("topics", "check", where, "--dev").code
    with Actors(folder) as actors:
        fleet = MixedFleet(actors, folder, controllers=CONTROLLERS, log=where)
        for name, engine in zip(CONTROLLERS, ENGINES, strict=True):
            fleet.add_controller(name)
            fleet.add_engines(f"engines-{name}", [engine])
        for name, engine in zip(CONTROLLERS, reversed(ENGINES), strict=True):
            fleet.add_agent(f"agent-{name}", [engine])
        return asyncio.run(Play(fleet, versions).run())


def test_controllers_of_two_versions_share_the_partitions(story: Story) -> None:
    """Each owns one of the two, at the same time, in one group."""
    assert {"older": 1, "newer": 1} == story.shares


def test_each_takes_over_from_the_other(story: Story) -> None:
    """After kill -9 of either, the other owns everything under a later epoch, with both agents fresh."""
    assert ["older", "newer"] == [one.killed for one in story.takeovers]
    for one in story.takeovers:
        [other] = [name for name in CONTROLLERS if name != one.killed]
        pool = pool_of(one.after)

        assert other == pool["owner"]
        assert pool["epoch"] >= pool_of(one.before)["epoch"]
        assert {"agent-older", "agent-newer"} == {agent["agent"] for agent in pool["agents"] if not agent["stale"]}
    first, second = (pool_of(one.after)["epoch"] for one in story.takeovers)
    assert second > first


def test_orders_and_settings_stand_through_both_takeovers(story: Story) -> None:
    """Policy, mode and pin are the same before and after, and every engine holds the pin all along."""
    for one in story.takeovers:
        assert orders(one.before) == orders(one.after)
        assert dict.fromkeys(ENGINES, PIN) == {name: settings[KNOB] for name, settings in held(one.before).items()}
        assert held(one.before) == held(one.after)
    assert "alice" == orders(story.takeovers[-1].after)["policy"]


def test_no_receiver_goes_back_and_no_frame_is_missing(story: Story) -> None:
    """In all of the log no receiver takes an older version than it had, and no sequence number is missing."""
    assert [] == story.recorded.went_back()
    assert [] == story.recorded.holes()
    for agent in CONTROLLERS:
        assert any(name == f"agent-{agent}" for name, _, _ in story.recorded.frames)
