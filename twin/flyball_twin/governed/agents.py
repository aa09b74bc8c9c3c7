"""Node agents of a simulated fleet: life's own agent core, on the run's clock.

Each node has an agent; the first node's agent watches the gateway too. An agent spools on disk
and ships through the log like any other. While its node is cut off its appends fail, as they
would, and what it spooled goes out late.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball_agents.log_appender import LogAppender
from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import PooledEngine, PooledGateway, Reading
from flyball_agents.shipper import Shipment, Shipper
from flyball_agents.spool import Spool
from flyball_core.errors import LogUnavailable
from flyball_core.ids import AgentId, BootId, GatewayId, PoolId
from flyball_log.interface import Log
from flyball_proto.codec import encode_frame
from flyball_twin.fleet.fleet import Fleet
from flyball_twin.governed.clocks import NodeClock
from flyball_twin.governed.doors import GatewayProbe, Probe
from flyball_twin.governed.nodes import Node

DRAIN_BEATS = 3600
"""Beats that the last frames get to be shipped in: at 50 a second, those of a day's loss."""

GATEWAY = GatewayId("gateway-0")
"""The one gateway of a fleet, in front of all its pools."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What a fleet's agents handed to the log, repeats included, what they dropped, and what they hold still."""

    sent: int
    dropped: int
    waiting: int


class NodeLink:
    """A node's way into the log. It counts what it lets through, and fails while the node is cut off."""

    def __init__(self, log: Log, clock: NodeClock) -> None:
        self._appender = LogAppender(log)
        self.clock = clock
        self.sent = 0
        """Frames handed to the log, repeats included."""

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Append as `LogAppender.append`. Raises `LogUnavailable` while the node is cut off."""
        if self.clock.cut_off:
            raise LogUnavailable("the node reaches no log")
        self.sent += len(shipments)
        await self._appender.append(shipments)


class NodeSampler:
    """One node of a fleet as a sampler: its GPUs, the engines on them, perhaps the gateway."""

    def __init__(self, probes: Sequence[tuple[PoolId, Probe]], gateways: Sequence[tuple[PoolId, GatewayProbe]]) -> None:
        self.name = "twin"
        self._probes = tuple(probes)
        self._gateways = tuple(gateways)

    def sample(self, now_s: float) -> Reading:
        """Everything on this node now."""
        seen = [(pool, *probe.sample(now_s)) for pool, probe in self._probes]
        return Reading(
            now_s,
            gpus=tuple(gpu for _, gpus, _ in seen for gpu in gpus),
            engines=tuple(PooledEngine(pool, engine) for pool, _, engine in seen if engine is not None),
            gateways=tuple(PooledGateway(pool, gateway.sample()) for pool, gateway in self._gateways),
        )


@dataclass(frozen=True, slots=True)
class _Agent:
    agent: NodeAgent
    shipper: Shipper
    spool: Spool
    link: NodeLink

    @property
    def clock(self) -> NodeClock:
        return self.link.clock

    def tick(self) -> None:
        self.agent.tick(self.clock.now_s, self.clock.wall_s)

    async def ship(self, now_s: float) -> None:
        batch = self.shipper.next_batch(now_s)
        if batch is not None:
            self.shipper.conclude(batch, await self.shipper.ship(self.link, batch), now_s)


def _agent(name: str, sampler: NodeSampler, link: NodeLink, folder: Path, seed: int) -> _Agent:
    spool = Spool(folder)
    shipper = Shipper(spool, random.Random(f"{seed} {name}"))
    agent = NodeAgent(
        agent=AgentId(name),
        boot=BootId(f"{name}-{seed}"),
        samplers=[sampler],
        spool=spool,
        shipper=shipper,
        encode=encode_frame,
    )
    return _Agent(agent, shipper, spool, link)


class FleetAgents:
    """All agents of one fleet, driven beat by beat."""

    def __init__(
        self,
        log: Log,
        fleet: Fleet,
        pools: Mapping[PoolId, PoolId],
        nodes: Mapping[Node, NodeClock],
        folder: Path,
        seed: int,
    ) -> None:
        """`pools` gives each pool of the fleet its name in the log; `folder` takes the spools.

        The agents are called as their nodes, with the folder's name before it.
        """
        self._agents: list[_Agent] = []
        for index, (node, clock) in enumerate(nodes.items()):
            probes = [(pools[place.pool], Probe(fleet.engines[place.engine], place.gpus)) for place in node.places]
            gateways = (
                [] if index else [(pools[pool], GatewayProbe(fleet.pools[pool].gateway, GATEWAY)) for pool in pools]
            )
            name = f"{folder.name}-{node.name}"
            self._agents.append(_agent(name, NodeSampler(probes, gateways), NodeLink(log, clock), folder / name, seed))

    async def beat(self) -> None:
        """Sample, spool, ship."""
        for one in self._agents:
            one.tick()
            await one.ship(one.clock.now_s)

    async def drain(self) -> None:
        """Ship what still waits, but for nodes that are cut off. Raises `LogUnavailable` if the log takes no more."""
        for one in self._agents:
            if one.clock.cut_off:
                continue
            for beat in range(DRAIN_BEATS):
                if not one.spool.waiting:
                    break
                await one.ship(one.clock.now_s + beat)
            if one.spool.waiting:
                raise LogUnavailable(f"{one.spool.waiting} frames of {one.agent.agent} could not be shipped")

    def shipped(self) -> Shipped:
        """Where the frames of all nodes went."""
        return Shipped(
            sent=sum(one.link.sent for one in self._agents),
            dropped=sum(one.spool.accounting.dropped.total() for one in self._agents),
            waiting=sum(one.spool.waiting for one in self._agents),
        )
