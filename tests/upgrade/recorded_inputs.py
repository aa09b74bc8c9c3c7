"""What the inputs of a log say of receivers and frames, whoever wrote them: the record that tests judge."""

from collections import defaultdict
from dataclasses import dataclass, field

from flyball_core.fencing import Version
from flyball_core.frames import Frame
from flyball_core.inputs import Ack, AckStatus, Attach, Input
from flyball_log import open_log, scan
from flyball_log.interface import Topic
from flyball_proto.codec import decode_input


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What one receiver said: that it attached, holding something, or that it took a version."""

    incarnation: str
    version: Version | None
    attach: bool


@dataclass(slots=True)
class Recorded:
    """What the inputs of a log say of receivers and frames, in their order."""

    heard: dict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))
    """By target."""
    frames: dict[tuple[str, str, str], dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    """By agent, boot and pool: the offset at which each sequence number first stands."""

    def went_back(self) -> list[str]:
        """Where a receiver took an older version after a newer one, or came back with an older one."""
        found = []
        for target, said in self.heard.items():
            last = (-1, -1)
            for one in said:
                place = (-1, -1) if one.version is None else (one.version.epoch, one.version.revision)
                if place < last:
                    found.append(f"{target} {'held' if one.attach else 'took'} {place} after {last}")
                last = max(last, place)
        return found

    def holes(self) -> list[str]:
        """Sequence numbers that are missing below the highest of their boot."""
        return [
            f"{place}: {sorted(set(range(max(seen) + 1)) - seen.keys())}"
            for place, seen in self.frames.items()
            if len(seen) != max(seen) + 1
        ]


async def read_recorded(where: str) -> Recorded:
    """Read all inputs of a log, whoever writes it meanwhile."""
    found = Recorded()
    log = await open_log(where, read_only=True)
    try:
        for partition in range(log.partitions):
            async for records in scan(log, Topic.INPUTS, partition):
                for record in records:
                    _note(found, decode_input(record.offset, record.value))
    finally:
        await log.close()
    return found


def _note(found: Recorded, item: Input) -> None:
    body = item.body
    if isinstance(body, Ack) and body.status is not AckStatus.NACK:
        found.heard[body.target].append(Heard(incarnation=body.incarnation, version=body.version, attach=False))
    elif isinstance(body, Attach) and body.attached:
        found.heard[body.target].append(Heard(incarnation=body.incarnation, version=body.held, attach=True))
    elif isinstance(body, Frame):
        found.frames[body.agent, body.boot, body.pool].setdefault(body.seq, item.offset)
