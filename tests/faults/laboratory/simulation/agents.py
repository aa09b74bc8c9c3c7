"""Node agents: the product's agent, spool and shipper, on a disk that can be full, forget, or change a byte.

Spools lie in real files, so that what is cut off and what is damaged is what it would be; nothing is ever synced.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from flyball_agents.accounting import Key
from flyball_agents.log_appender import LogAppender
from flyball_agents.node_agent import NodeAgent
from flyball_agents.sampling import Reading
from flyball_agents.segments import scan
from flyball_agents.shipper import Shipper, ShipperLimits
from flyball_agents.spool import Spool, SpoolLimits, Ticket
from flyball_core.ids import AgentId, BootId
from flyball_proto.codec import encode_frame
from harness.scripted_pool import WALL_S
from laboratory.record import Sampled
from laboratory.simulation.faulty_log import FaultyLog, Way
from laboratory.simulation.kernel import Process, Signal, pause, wait_for
from laboratory.simulation.stage import Stage, change_byte

BEAT_S = 1.0
SYNC_S = 1.0
SPOOL = SpoolLimits(most_bytes=24 << 10, segment_bytes=3 << 10, fresh_bytes=1 << 10)
"""Small, so that a short outage fills segments and a longer one their bound."""
SHIPPER = ShipperLimits(most_pause_s=2.0)

Fate = Literal["made", "synced", "dropped"]
Write = Callable[[Fate, str, str, int, str], None]
"""What became of a frame: what, boot, pool, seq, reason."""


class WatchedSpool(Spool):
    """The product's spool, which says what it drops and knows what a power failure would leave of it."""

    def __init__(self, folder: Path, write: Write) -> None:
        self._write = write
        self.room_bytes: int | None = None
        """Of a disk that is full: what the spool may take up all the same, because it does already."""
        self._synced: dict[Path, int] = {}
        self._told: set[Key] = set()
        super().__init__(folder, SPOOL)

    def drop(self, ticket: Ticket, reason: str) -> None:
        """Give a frame up, on record."""
        known = ticket.key in self._tickets
        super().drop(ticket, reason)
        if known:
            self._write("dropped", *ticket.key, reason)

    def sync(self) -> None:
        """What has been written is on disk, whatever happens."""
        for descriptor in self.unsynced():
            os.close(descriptor)
        self._synced = {segment.path: segment.size for segment in self._segments.values()}
        for ticket in self._tickets.values():
            if ticket.segment is not None and ticket.key not in self._told:
                self._told.add(ticket.key)
                self._write("synced", *ticket.key, "")

    def crash(self, random: Random | None) -> None:
        """The process is gone; with `random` the machine too, and of what was not synced only some is left."""
        for segment in [*self._segments.values(), *self._sealed]:
            segment.close()
            kept = self._synced.get(segment.path, 0)
            if random is not None and kept < segment.size and segment.path.exists():
                os.truncate(segment.path, random.randint(kept, segment.size))

    def _drop_segment(self, segment: Any, reason: str) -> None:
        # What is young may still be sent from memory; but it lies on no disk any more, and a kill would end it.
        for boot, pool, seq in sorted(segment.left):
            self._write("dropped", boot, pool, seq, reason)
        super()._drop_segment(segment, reason)

    def _writable(self, size: int) -> Any:
        if self.room_bytes is not None and self.bytes_on_disk + size > self.room_bytes:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super()._writable(size)


@dataclass(frozen=True, slots=True)
class _Sampler:
    name: str
    sample: Callable[[float], Reading]


class Agent:
    """One agent, over its lives."""

    def __init__(self, stage: Stage, name: str, sample: Callable[[float], Reading]) -> None:
        """`sample` reads the node."""
        self.name = name
        self.process = Process(stage.kernel, name)
        self.way = Way()
        self.clock_s = 0.0
        """By how much its wall clock is wrong."""
        self.resting = False
        """Whether it samples no more, so that the last frames can get through."""
        self.made = 0
        self._appender = LogAppender(FaultyLog(stage.brokers, self.way))
        self._sampler = _Sampler(name, sample)
        self._record = stage.record
        self._folder = stage.folder / name
        self._random = stage.random(name)
        self._spool: WatchedSpool | None = None

    @property
    def _now_s(self) -> float:
        return self.process.kernel.now_s

    @property
    def waiting(self) -> int:
        """Frames in its spool."""
        return self._spool.waiting if self._spool is not None else 0

    def start(self) -> None:
        """Begin a life."""
        self.process.start()
        spool = self._spool = WatchedSpool(self._folder, self._write)
        shipper, fresh = Shipper(spool, self._random, SHIPPER), Signal()
        agent = NodeAgent(
            agent=AgentId(self.name),
            boot=BootId(f"{self.name}-{self.process.life}"),
            samplers=[self._sampler],
            spool=spool,
            shipper=shipper,
            encode=encode_frame,
        )
        self.process.spawn(self._beat(agent, fresh))
        self.process.spawn(self._ship(shipper, fresh))
        self.process.spawn(self._sync(spool))

    def kill(self) -> None:
        """End it; every other time its machine loses power as well."""
        self.process.kill()
        if self._spool is not None:
            self._spool.crash(self._random if self._random.random() < 0.5 else None)
            self._spool = None

    def fill_disk(self, *, full: bool) -> None:
        """Others have taken up the disk, or made room."""
        if self._spool is not None:
            self._spool.room_bytes = self._spool.bytes_on_disk if full else None

    def corrupt(self, place: float) -> None:
        """Change one byte of what lies on its disk; the frame that it belongs to is lost by that."""
        changed = change_byte(sorted(self._folder.glob("*.seg")), place, self._random)
        if changed is None:
            return
        _, at, before = changed
        for one in scan(before).records:
            if one.offset <= at < one.offset + one.size:
                self._write("dropped", one.boot, one.pool, one.seq, "a byte of it was changed on disk")

    async def _beat(self, agent: NodeAgent, fresh: Signal) -> None:
        due_s = self._now_s
        while not self.resting:
            for frame in agent.tick(self._now_s, WALL_S + self._now_s + self.clock_s):
                self.made += 1
                self._write("made", frame.boot, frame.pool, frame.seq, "")
            fresh.ring()
            due_s = max(due_s + BEAT_S, self._now_s)
            await pause(due_s - self._now_s)

    async def _ship(self, shipper: Shipper, fresh: Signal) -> None:
        while True:
            batch = shipper.next_batch(self._now_s)
            if batch is None:
                await wait_for(fresh, shipper.wait_s(self._now_s))
                continue
            error = await shipper.ship(self._appender, batch)
            shipper.conclude(batch, error, self._now_s)

    async def _sync(self, spool: WatchedSpool) -> None:
        while True:
            await pause(SYNC_S)
            spool.sync()

    def _write(self, what: Fate, boot: str, pool: str, seq: int, reason: str) -> None:
        self._record.add(
            Sampled(at_s=self._now_s, what=what, agent=self.name, boot=boot, pool=pool, seq=seq, reason=reason)
        )
