"""A run in virtual time through the production code: agents, log, owner, pusher, receivers.

A beat is `Scenario.beat_s` of virtual time, one second by default: the fleets advance, the agents sample, spool and
ship, the owner ticks, the pusher pushes, the receivers answer. The order within a beat is
fixed and everything that could be random is seeded, so a run is a function of its scenario
and seed, whichever log it goes through. Where the scenario compares, an ungoverned fleet of
the same engines runs beside the governed one in mode `observe`, watched by agents of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flyball_controller.fingerprint import own_fingerprint
from flyball_controller.machine import standard_seams
from flyball_controller.owner import Owner
from flyball_controller.pusher import Pusher
from flyball_core.errors import Rejected
from flyball_core.ids import OwnerId, PoolId
from flyball_core.inputs import PolicyText
from flyball_core.outputs import DecisionRecord
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import encode_input
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.fleet.outcomes import Record
from flyball_twin.governed.agents import GATEWAY, FleetAgents, Shipped
from flyball_twin.governed.clocks import NodeClock, VirtualClock
from flyball_twin.governed.nodes import check_node_faults, nodes_of
from flyball_twin.governed.observing import Observed, Observer
from flyball_twin.governed.scorecard import Scorecard
from flyball_twin.governed.seats import EngineSeat, GatewaySeat
from flyball_twin.scenario.model import Scenario

GOVERNED = "flyball"
UNGOVERNED = "static"
"""What the two fleets are called."""

WALL_AT_START_S = 1_700_092_800.0
"""2023-11-16, 00:00 UTC: the day of the chat trace. A wall time that does not run makes runs alike."""


def pool_in_log(fleet: str, pool: PoolId) -> PoolId:
    """What a fleet's pool is called in the log: the governed fleet's as it is, the other's with `static-` before it."""
    return pool if fleet == GOVERNED else PoolId(f"{UNGOVERNED}-{pool}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Where every frame went: sent = delivered + duplicate + rejected + dropped; late ones are delivered."""

    sent: int
    delivered: int
    duplicate: int
    rejected: int
    dropped: int
    late: int
    spooled: int
    """Never sent: still on the disk of nodes that were cut off to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A fleet of the run, what it is called, and what was seen of it."""

    name: str
    fleet: Fleet
    card: Scorecard
    agents: FleetAgents
    pools: Mapping[PoolId, PoolId]
    """The name in the log of each of its pools."""


class Life:
    """One or two fleets, one of them governed, over one log. Drive it with `start`, `beat` and `finish`."""

    def __init__(
        self,
        log: Log,
        scenario: Scenario,
        seed: int,
        build: Callable[[Record], Fleet],
        folder: Path,
    ) -> None:
        """`build` makes a fleet at time 0, alike each time; `folder` takes spools and receivers' stores.

        The fleet it makes tells the record that it is given. `folder` must be new to the run. Raises `Rejected` for a
        fault of a node that there is not.
        """
        self.scenario = scenario
        self.clock = VirtualClock(WALL_AT_START_S)
        self._log, self._folder, self._seed, self._beat_s = log, folder, seed, scenario.beat_s
        nodes = nodes_of(scenario.pools)
        check_node_faults(nodes, scenario.faults)
        self._nodes = {node: NodeClock(self.clock, node.name, scenario.faults) for node in nodes}
        names = (UNGOVERNED, GOVERNED) if scenario.compare else (GOVERNED,)
        self.fleets = {name: self._watched(name, build) for name in names}
        self._owner = Owner(log, OwnerId("twin"), standard_seams, own_fingerprint())
        self._pusher = Pusher(log)
        self._observer = Observer(log)
        every = [named for watched in self.fleets.values() for named in watched.pools.values()]
        if len(set(every)) != len(every):
            raise Rejected(f"a pool may not be called as the ungoverned one of another: {', '.join(sorted(every))}")
        self._partitions = sorted({log.partition_of(pool) for pool in every})
        self._seats = self._receivers(self.fleets[GOVERNED].fleet)
        self._ended = False

    def _watched(self, name: str, build: Callable[[Record], Fleet]) -> Watched:
        card = Scorecard(self.scenario)
        fleet = build(card.record)
        pools = {plan.pool: pool_in_log(name, plan.pool) for plan in self.scenario.pools}
        spools = self._folder / "spools" / name
        return Watched(
            name=name,
            fleet=fleet,
            card=card,
            agents=FleetAgents(self._log, fleet, pools, self._nodes, spools, self._seed),
            pools=pools,
        )

    def _receivers(self, fleet: Fleet) -> list[EngineSeat | GatewaySeat]:
        """A receiver for each engine, and one for each pool of the gateway, which stands on the first node."""
        folder, seed = self._folder / "receivers", self._seed
        seats: list[EngineSeat | GatewaySeat] = [
            EngineSeat(fleet, place.pool, place.engine, folder, clock, seed)
            for node, clock in self._nodes.items()
            for place in node.places
        ]
        first = next(iter(self._nodes.values()))
        return [*seats, *(GatewaySeat(fleet, plan.pool, GATEWAY, folder, first, seed) for plan in self.scenario.pools)]

    @property
    def observed(self) -> Observed:
        """What the log has told so far."""
        return self._observer.seen

    async def start(self) -> None:
        """Claim, order, attach."""
        for partition in self._partitions:
            await self._owner.take(partition, self.clock.wall_s)
        for plan in self.scenario.pools:
            if plan.policy:
                order = PolicyText(pool=plan.pool, text=plan.policy, author="scenario")
                entry = Entry(plan.pool.encode(), encode_input(order))
                await self._log.append(Topic.INPUTS, self._log.partition_of(plan.pool), [entry])
        await self._follow()
        for partition in self._partitions:
            await self._owner.tick(partition, 0.0, self.clock.wall_s)

    async def beat(self) -> list[DecisionRecord]:
        """One beat of virtual time; what was newly decided."""
        self.clock.now_s += self._beat_s
        for watched in self.fleets.values():
            watched.fleet.run_until(self.clock.now_s)
            watched.card.trail.look(watched.fleet)
        for watched in self.fleets.values():
            await watched.agents.beat()
        await self._follow()
        for partition in self._partitions:
            await self._owner.tick(partition, self._beat_s, self.clock.wall_s)
        await self._pusher.poll()
        await self._answer()
        return await self._observer.poll()

    async def finish(self) -> Frames:
        """Close the fleets, ship what is still spooled, tick over it, and say where every frame went."""
        if not self._ended:
            self._ended = True
            for watched in self.fleets.values():
                watched.fleet.close()
                await watched.agents.drain()
            for partition in self._partitions:
                await self._owner.tick(partition, self._beat_s, self.clock.wall_s + self._beat_s)
            await self._observer.poll()
        return self._frames()

    async def _follow(self) -> None:
        for seat in self._seats:
            await seat.follow(self._pusher)
        await self._answer()

    async def _answer(self) -> None:
        answers = [ack for seat in self._seats for ack in seat.fetch()]
        if answers:
            await self._pusher.acked(*answers)

    def _frames(self) -> Frames:
        counts: dict[str, int] = {}
        for tick in self.observed.ticks.values():
            for name, number in tick.counts.items():
                counts[name] = counts.get(name, 0) + number
        return _accounted([watched.agents.shipped() for watched in self.fleets.values()], counts)


def _accounted(shipped: list[Shipped], counts: Mapping[str, int]) -> Frames:
    dropped = sum(agent.dropped for agent in shipped)
    sent = sum(agent.sent for agent in shipped) + dropped
    found = Frames(
        sent=sent,
        delivered=counts.get("delivered", 0),
        duplicate=counts.get("duplicate", 0),
        rejected=counts.get("rejected", 0),
        dropped=dropped,
        late=counts.get("late", 0),
        spooled=sum(agent.waiting for agent in shipped),
    )
    if found.sent != found.delivered + found.duplicate + found.rejected + found.dropped:
        raise Rejected(f"frames do not add up: {found}")  # promise 5; a lost frame must never pass unnoticed
    return found
