"""What came out of the log of what agents had sampled: each frame by name, when it came, and what never did.

A reader of its own, beside all controllers; it knows nothing of them.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flyball_core.errors import LogUnavailable
from flyball_core.frames import Frame
from flyball_log import Log, Topic, open_log
from flyball_proto.codec import decode_input
from laboratory.record import Record, Sampled

Identity = tuple[str, str, str, int]
"""Agent, boot, pool, sequence number."""
_WAIT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One copy of a frame."""

    at_s: float
    """Wall time at which it was read."""
    wall_s: float
    """Wall time at which it was sampled."""
    backlog: bool

    @property
    def late_s(self) -> float:
        """How long it was under way."""
        return self.at_s - self.wall_s


@dataclass(slots=True)
class Arrived:
    """All frames that were read so far."""

    copies: dict[Identity, list[Arrival]] = field(default_factory=lambda: defaultdict(list))

    @property
    def doubles(self) -> int:
        """Copies beyond the first."""
        return sum(map(len, self.copies.values())) - len(self.copies)

    def missing(self, record: Record, *what: str) -> list[Sampled]:
        """What is on record as one of these ("made", "synced") and neither came nor was dropped by name."""
        dropped = {line.identity for line in record.sampled if line.what == "dropped"}
        lines = {line.identity: line for line in record.sampled if line.what in what}
        return [line for name, line in lines.items() if name not in dropped and not self.copies.get(name)]

    def unexpected(self, record: Record) -> list[Identity]:
        """What came and was never made."""
        made = {line.identity for line in record.sampled if line.what == "made"}
        return [name for name in self.copies if name not in made]

    def take(self, value: bytes, at_s: float) -> None:
        """One record of the inputs."""
        body = decode_input(0, value).body
        if isinstance(body, Frame):
            arrival = Arrival(at_s=at_s, wall_s=body.wall_s, backlog=body.backlog)
            self.copies[body.agent, body.boot, body.pool, body.seq].append(arrival)


async def _follow(log: Log, partition: int, arrived: Arrived) -> None:
    at = 0
    while True:
        try:
            records = await log.read(Topic.INPUTS, partition, at, wait_s=_WAIT_S)
        except LogUnavailable:
            await asyncio.sleep(_WAIT_S / 5)
            continue
        now_s = time.time()
        for record in records:
            arrived.take(record.value or b"", now_s)
            at = record.offset + 1
        if not records:
            await asyncio.sleep(_WAIT_S / 10)


@asynccontextmanager
async def arriving(where: str) -> AsyncIterator[Arrived]:
    """The frames of a log from its beginning, and then as they come, until the end of the block."""
    log = await open_log(where, read_only=True)
    arrived = Arrived()
    readers = [asyncio.create_task(_follow(log, partition, arrived)) for partition in range(log.partitions)]
    try:
        yield arrived
        for reader in readers:
            if reader.done():
                reader.result()
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await log.close()


def agent_file(
    folder: Path, name: str, *, log: str = "", controllers: Sequence[str] = (), http: str = "127.0.0.1:0"
) -> Path:
    """An agent's configuration, with no sources of its own: it sends to a log in Kafka, or to controllers."""
    lines = [f"log: {log or 'log'}", f"state: {name}", "tls: none", "agent:", f"  name: {name}", f"  http: {http}"]
    lines += ["  gpus: none", "  engines: []"]
    lines += [f"  controllers: [{', '.join(controllers)}]"] if controllers else []
    file = folder / f"{name}.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file
