"""Node agents of a simulated fleet: life's own agent core, on the run's clock.

Two GPUs make a node and each node has an agent; the first node's agent watches the
gateway too. An agent spools on disk and ships through the log like any other.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball_agents.log_appender import LogAppender
from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import PooledEngine, PooledGateway, Reading
from flyball_agents.shipper import Shipper
from flyball_agents.spool import Spool
from flyball_core.errors import LogUnavailable
from flyball_core.ids import AgentId, BootId, GatewayId, PoolId
from flyball_log.interface import Log
from flyball_proto.codec import encode_input
from flyball_twin.doors import GatewayProbe, Probe
from flyball_twin.engine import Engine
from flyball_twin.fleet import Fleet
from flyball_twin.seats import VirtualClock

GPUS_PER_NODE = 2

DRAIN_BEATS = 60
"""Beats that the last frames get to be shipped in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What one fleet's agents handed to the log, repeats included, and what they dropped."""

    sent: int
    dropped: int


class FleetSampler:
    """One node of a fleet as a sampler: its GPUs, the engines on them, perhaps the gateway."""

    def __init__(self, pool: PoolId, probes: Sequence[Probe], gateway: GatewayProbe | None) -> None:
        self.name = "twin"
        self._pool = pool
        self._probes = tuple(probes)
        self._gateway = gateway

    def sample(self, now_s: float) -> Reading:
        """Everything on this node now."""
        seen = [probe.sample(now_s) for probe in self._probes]
        return Reading(
            now_s,
            gpus=tuple(gpu for gpu, _ in seen),
            engines=tuple(PooledEngine(self._pool, engine) for _, engine in seen if engine is not None),
            gateways=(PooledGateway(self._pool, self._gateway.sample()),) if self._gateway else (),
        )


@dataclass(frozen=True, slots=True)
class _Node:
    agent: NodeAgent
    shipper: Shipper
    spool: Spool


class FleetAgents:
    """All agents of one fleet, driven beat by beat."""

    def __init__(self, log: Log, pool: PoolId, fleet: Fleet, folder: Path, clock: VirtualClock, seed: int) -> None:
        """`folder` takes the spools."""
        self._clock = clock
        self._appender = LogAppender(log)
        engines = list(fleet.engines.values())
        self._nodes = [
            self._node(pool, fleet, index, engines[at : at + GPUS_PER_NODE], folder, seed)
            for index, at in enumerate(range(0, len(engines), GPUS_PER_NODE))
        ]

    def _node(
        self, pool: PoolId, fleet: Fleet, index: int, engines: Sequence[Engine], folder: Path, seed: int
    ) -> _Node:
        name = AgentId(f"{pool}-node-{index}")
        gateway = GatewayProbe(fleet.gateway, GatewayId("gateway-0")) if index == 0 else None
        sampler = FleetSampler(pool, [Probe(engine, gpu) for gpu, engine in enumerate(engines)], gateway)
        spool = Spool(folder / name)
        shipper = Shipper(spool, random.Random(f"{seed} {name}"))
        agent = NodeAgent(
            agent=name,
            boot=BootId(f"{name}-{seed}"),
            samplers=[sampler],
            spool=spool,
            shipper=shipper,
            encode=encode_input,
        )
        return _Node(agent, shipper, spool)

    async def beat(self) -> None:
        """Sample, spool, ship."""
        for node in self._nodes:
            node.agent.tick(self._clock.now_s, self._clock.wall_s)
            await self._ship(node, self._clock.now_s)

    async def drain(self) -> None:
        """Ship what still waits. Raises `LogUnavailable` if the log does not take it."""
        for node in self._nodes:
            for beat in range(DRAIN_BEATS):
                if not node.spool.waiting:
                    break
                await self._ship(node, self._clock.now_s + beat)
            if node.spool.waiting:
                raise LogUnavailable(f"{node.spool.waiting} frames of {node.agent.agent} could not be shipped")

    def shipped(self) -> Shipped:
        """Where the frames of all nodes went."""
        return Shipped(
            sent=sum(node.shipper.attempts for node in self._nodes),
            dropped=sum(node.spool.accounting.dropped.total() for node in self._nodes),
        )

    async def _ship(self, node: _Node, now_s: float) -> None:
        batch = node.shipper.next_batch(now_s)
        if batch is not None:
            node.shipper.conclude(batch, await node.shipper.ship(self._appender, batch), now_s)
