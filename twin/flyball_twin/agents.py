"""TEMPORARY direct agents."""
from dataclasses import dataclass
from pathlib import Path
from flyball_core.frames import Frame, GatewaySample
from flyball_core.ids import AgentId, BootId, PoolId
from flyball_log.interface import Entry, Log, Topic
from flyball_proto.codec import encode_input
from flyball_twin.doors import Probe
from flyball_twin.fleet import Fleet
from flyball_twin.seats import VirtualClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What one fleet's agents sent."""

    sent: int
    dropped: int


class FleetAgents:
    """x"""

    def __init__(self, log: Log, pool: PoolId, fleet: Fleet, folder: Path, clock: VirtualClock, seed: int) -> None:
        self._log, self._pool, self._clock = log, pool, clock
        names = list(fleet.engines.values())
        self._nodes = [[Probe(e, i % 2) for i, e in enumerate(names[k : k + 2])] for k in (0, 2)]
        self._seq = 0
        self._gw = fleet.gateway

    async def beat(self) -> None:
        out = []
        for k, probes in enumerate(self._nodes):
            got = [p.sample(self._clock.now_s) for p in probes]
            f = Frame(AgentId(f"{self._pool}-node-{k}"), BootId("b0"), self._pool, self._seq, self._clock.wall_s, self._clock.now_s, False, tuple(g for g, _ in got), tuple(e for _, e in got if e), (GatewaySample('gateway-0','gateway-0-1','',self._gw.queued,sum(self._gw.in_flight(e) for e in self._gw.engines),self._gw._entered),) if k==0 else ())
            out.append(Entry(self._pool.encode(), encode_input(f)))
        self._seq += 1
        await self._log.append(Topic.INPUTS, self._log.partition_of(self._pool), out)

    async def drain(self) -> None:
        pass

    def shipped(self) -> Shipped:
        return Shipped(sent=self._seq * 2, dropped=0)
