"""Which node holds which engines, and what is wrong with a node's link and clock.

A scenario may name nodes; engines that name none are put on nodes of two GPUs, in their order.
The gateway stands on the first node. Faults here are those of the control plane alone: they
touch no request, only what agents and receivers on the node can say and believe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from flyball_core.errors import Rejected
from flyball_core.ids import EngineId, PoolId
from flyball_twin.fleet.faults import Fault, FaultKind
from flyball_twin.scenario.model import EnginePlan, PoolPlan

GPUS_PER_NODE = 2

OF_NODES = (FaultKind.TELEMETRY_LOSS, FaultKind.CLOCK_SKEW)
"""Faults whose target is a node; of the others it is an engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One engine on its node, and the node's GPUs that it runs on."""

    pool: PoolId
    engine: EngineId
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One host and the engines on it; one agent sees them all."""

    name: str
    places: tuple[Place, ...]


def nodes_of(pools: Sequence[PoolPlan]) -> tuple[Node, ...]:
    """The nodes of these pools, in the order in which they first occur.

    An engine that names no node shares one named `node-N` with its neighbour if both fit on
    `GPUS_PER_NODE` GPUs; one of more GPUs has a node to itself.
    """
    named = {engine.node for pool in pools for engine in pool.engines}
    fresh = (name for name in (f"node-{index}" for index in count()) if name not in named)
    held: dict[str, list[Place]] = {}
    taken: dict[str, int] = {}
    open_node, room = "", 0
    for pool in pools:
        for engine in pool.engines:
            name = engine.node
            if not name:
                if room < engine.tensor_parallel:
                    open_node, room = next(fresh), GPUS_PER_NODE
                name, room = open_node, room - engine.tensor_parallel
            held.setdefault(name, []).append(_place(pool.pool, engine, taken.get(name, 0)))
            taken[name] = taken.get(name, 0) + engine.tensor_parallel
    return tuple(Node(name=name, places=tuple(places)) for name, places in held.items())


def _place(pool: PoolId, engine: EnginePlan, first_gpu: int) -> Place:
    return Place(pool=pool, engine=engine.engine, gpus=tuple(range(first_gpu, first_gpu + engine.tensor_parallel)))


class NodeFaults:
    """What is wrong with one node, and when; times are seconds of virtual time."""

    def __init__(self, node: str, faults: Sequence[Fault]) -> None:
        """Those of `faults` that strike this node."""
        mine = [fault for fault in faults if fault.target == node]
        self._losses = tuple(fault for fault in mine if fault.kind is FaultKind.TELEMETRY_LOSS)
        self._skews = tuple(fault for fault in mine if fault.kind is FaultKind.CLOCK_SKEW)

    def cut_off(self, now_s: float) -> bool:
        """Whether its agent reaches no log now."""
        return any(fault.from_s <= now_s < fault.to_s for fault in self._losses)

    def skew_s(self, now_s: float) -> float:
        """How far its wall clock is off now; skews that overlap add up."""
        if not self._skews:
            return 0.0
        return sum(fault.skew_s for fault in self._skews if fault.from_s <= now_s < fault.to_s)


def check_node_faults(nodes: Sequence[Node], faults: Sequence[Fault]) -> None:
    """Raise `Rejected` for a fault of a node that there is not."""
    names = [node.name for node in nodes]
    for fault in faults:
        if fault.kind in OF_NODES and fault.target not in names:
            raise Rejected(f"{fault.kind} strikes {fault.target!r}, which is no node; there is {', '.join(names)}")
