"""A node in memory: samplers over settable sources, an encoder, and a log that can fail."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import PooledEngine, PooledGateway, Reading
from flyball_agents.shipper import Batch, Shipment, Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits
from flyball_core.errors import LogUnavailable, Rejected
from flyball_core.frames import BandwidthSource, EngineSample, Frame, GatewaySample, GpuSample
from flyball_core.ids import AgentId, BootId, EngineId, GatewayId, Incarnation, PoolId

CHAT, CODE = PoolId("chat"), PoolId("code")


_Sample = TypeVar("_Sample", GpuSample, EngineSample, GatewaySample)


def _with(sample: _Sample, numbers: Mapping[str, float | None]) -> _Sample:
    fields: dict[str, Any] = dict(numbers)
    return sample._replace(**fields)


def gpu(index: int = 0, **numbers: float | None) -> GpuSample:
    """A GPU of the node."""
    empty = GpuSample(index, f"GPU-{index}", BandwidthSource.NONE, 0)
    source = BandwidthSource.GPM if "hbm_bandwidth_ratio" in numbers else BandwidthSource.NONE
    return _with(empty._replace(hbm_bandwidth_source=source), numbers)


def engine(name: str = "e1", gpus: tuple[int, ...] = (0,), rank: int = 0, **numbers: float | None) -> EngineSample:
    """An engine on the node."""
    return _with(EngineSample(EngineId(name), Incarnation("i1"), rank, gpus, "flash"), numbers)


def gateway(name: str = "g1", lane: str = "", **numbers: float | None) -> GatewaySample:
    """A gateway on the node."""
    return _with(GatewaySample(GatewayId(name), Incarnation("i1"), lane), numbers)


class Source:
    """A sampler whose reading is whatever `gpus` and `engines` are set to; it raises while `broken`."""

    def __init__(self, name: str = "source") -> None:
        self._name = name
        self.gpus: tuple[GpuSample, ...] = ()
        self.engines: tuple[PooledEngine, ...] = ()
        self.gateways: tuple[PooledGateway, ...] = ()
        self.broken = False
        self.age_s = 0.0

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def sample(self, now_s: float) -> Reading:
        """The reading, `age_s` old."""
        if self.broken:
            raise RuntimeError("broken")
        return Reading(now_s - self.age_s, self.gpus, self.engines, self.gateways)


def chat_source() -> Source:
    """One engine of the pool `chat` on GPU 0."""
    source = Source()
    source.gpus = (gpu(0, power_w=300.0),)
    source.engines = (PooledEngine(CHAT, engine(requests_running=3.0)),)
    return source


def encode(frame: Frame) -> tuple[bytes, bytes]:
    """A frame as text, live and as backlog, padded to something like its size in life."""
    live, backlog = ([*frame[:6], late] for late in (False, True))
    return json.dumps(live).encode() + b" " * 200, json.dumps(backlog).encode() + b" " * 200


class FakeLog:
    """What arrived, in order; `down` refuses retryably, `amnesia` writes and then says it does not know."""

    def __init__(self) -> None:
        self.got: list[Shipment] = []
        self.down = False
        self.amnesia = False
        self.refuses: set[int] = set()

    def take(self, shipments: Sequence[Shipment]) -> None:
        """Append, or raise as told."""
        if self.down:
            raise LogUnavailable("down")
        if any(shipment.seq in self.refuses for shipment in shipments):
            raise Rejected("too large")
        self.got.extend(shipments)
        if self.amnesia:
            raise LogUnavailable("no answer")

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Append as an appender does."""
        self.take(shipments)

    @property
    def seqs(self) -> list[int]:
        """Sequence numbers in order of arrival."""
        return [shipment.seq for shipment in self.got]


class Node:
    """An agent, its spool, its shipper and a log, driven by hand in virtual time."""

    def __init__(
        self,
        folder: Path,
        *,
        boot: str = "b1",
        source: Source | None = None,
        spool: SpoolLimits | None = None,
        shipper: ShipperLimits | None = None,
    ) -> None:
        self.source = source or chat_source()
        self.spool = Spool(folder, spool)
        self.shipper = Shipper(self.spool, random.Random(1), shipper)
        self.log = FakeLog()
        self.now_s = 1000.0
        self.wall_s = 1.7e9
        self.agent = NodeAgent(
            agent=AgentId("n1"),
            boot=BootId(boot),
            samplers=(self.source,),
            spool=self.spool,
            shipper=self.shipper,
            encode=encode,
        )

    def tick(self, count: int = 1, *, ship: bool = True, period_s: float = 1.0) -> None:
        """So many beats: sample, then ship until there is nothing to ship."""
        for _ in range(count):
            self.now_s += period_s
            self.wall_s += period_s
            self.agent.tick(self.now_s, self.wall_s)
            while ship and self.ship() is not None:
                pass
            self.check()

    def ship(self) -> Batch | None:
        """One batch, if there is one."""
        batch = self.shipper.next_batch(self.now_s)
        if batch is None:
            return None
        try:
            self.log.take(batch.shipments)
        except (LogUnavailable, Rejected) as error:
            self.shipper.conclude(batch, error, self.now_s)
        else:
            self.shipper.conclude(batch, None, self.now_s)
        return batch

    def check(self) -> None:
        """The account is exact and the disk within its bound."""
        account = self.spool.accounting
        dropped = sum(account.dropped.values())
        assert account.taken + account.recovered == account.delivered + dropped + self.spool.waiting
        on_disk = sum(path.stat().st_size for path in self.spool.folder.iterdir())
        assert on_disk == self.spool.bytes_on_disk <= self.spool.limits.most_bytes
