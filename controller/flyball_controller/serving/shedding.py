"""Which telemetry is kept out, and when: before the append, so that decisions never pay for it.

An agent has a rate. Beside it counts what was appended and not read yet, in samples, for that is what reading
takes its time for, and how late the owner's tick is: as they grow, first the backlog is kept out, then what
an agent sends beyond its live frames, then everything. What is kept out stays in its agent's spool, and is
counted here. Acks, attaches and orders do not come this way. Pure: time is the caller's.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum

from flyball_service.rates import Buckets

FRAMES_PER_S = 200.0
"""Frames of one agent a second: one a second of each pool and 50 of its backlog are a fraction of it."""
MAX_FRAMES_AT_ONCE = 1_000
"""Frames that one agent may send after a rest."""
LIVE_PER_S = 20.0
"""Frames of one agent a second while the owner is far behind."""
MAX_LIVE_AT_ONCE = 40
"""As above, after a rest."""
MAX_AGENTS_RATED = 10_000
"""Agents with a rate of their own at a time; those beyond share one."""

MAX_SAMPLES_WAITING = 16_384
"""Samples of one partition under way to the disk, or on it and not read by their owner yet."""
BACKLOG_WAITING = MAX_SAMPLES_WAITING // 4
SHARE_WAITING = MAX_SAMPLES_WAITING // 2
BACKLOG_LATE_S, SHARE_LATE_S, ALL_LATE_S = 2.0, 4.0, 8.0
"""The same by how late the partition's tick is."""

FRAME_SAMPLES = 4
"""What reading a frame takes beside its samples, as so many more."""

RATE = "rate"
BACKLOG = "backlog"
SHARE = "share"
BEHIND = "behind"
REASONS = (RATE, BACKLOG, SHARE, BEHIND)
"""Why frames were kept out: their agent's rate; the owner lags behind, and this is backlog, is beyond its
agent's share, is telemetry at all."""


class Level(IntEnum):
    """What is kept out."""

    NOTHING = 0
    ITS_BACKLOG = 1
    BEYOND_ITS_SHARE = 2
    EVERYTHING = 3


def level_of(waiting: int, more: int, late_s: float) -> Level:
    """What is kept out of a partition with so many samples waiting, so many more asked for, and a tick so late."""
    if waiting + more > MAX_SAMPLES_WAITING or late_s > ALL_LATE_S:
        return Level.EVERYTHING
    if waiting > SHARE_WAITING or late_s > SHARE_LATE_S:
        return Level.BEYOND_ITS_SHARE
    if waiting > BACKLOG_WAITING or late_s > BACKLOG_LATE_S:
        return Level.ITS_BACKLOG
    return Level.NOTHING


@dataclass(slots=True)
class Unread:
    """What was appended for one partition and its owner has not read, in samples."""

    under_way: int = 0
    _kept: deque[tuple[int, int]] = field(default_factory=deque)
    """Last offset and samples of each append."""
    _total: int = 0

    def kept(self, last_offset: int, samples: int) -> None:
        """So many of those under way are in the log, up to this offset."""
        self.under_way -= samples
        self._kept.append((last_offset, samples))
        self._total += samples

    def waiting(self, next_offset: int) -> int:
        """How many wait, given where their owner reads next. Appends end in any order, and are read in the log's."""
        while self._kept and self._kept[0][0] < next_offset:
            self._total -= self._kept.popleft()[1]
        return self.under_way + self._total


class Shedding:
    """The rates of all agents."""

    def __init__(self) -> None:
        self._frames: Buckets[str] = Buckets(per_s=FRAMES_PER_S, at_once=MAX_FRAMES_AT_ONCE, most=MAX_AGENTS_RATED)
        self._live: Buckets[str] = Buckets(per_s=LIVE_PER_S, at_once=MAX_LIVE_AT_ONCE, most=MAX_AGENTS_RATED)

    def unseen(self, agent: str, frames: int, level: Level, now_s: float) -> str:
        """Why so many frames of an agent are kept out, before any of them is read; empty if they are not."""
        if level is Level.EVERYTHING:
            return BEHIND
        return "" if self._frames.of(agent, now_s).holds(frames, now_s) else RATE

    def seen(self, agent: str, frames: int, level: Level, now_s: float, *, backlog: bool) -> str:
        """The same, once they are read and it is known whether any is backlog; what is let in is counted against it."""
        if level is Level.EVERYTHING:
            return BEHIND
        if level >= Level.ITS_BACKLOG and backlog:
            return BACKLOG
        if not self._frames.of(agent, now_s).holds(frames, now_s):
            return RATE
        if level >= Level.BEYOND_ITS_SHARE and not self._live.of(agent, now_s).take(frames, now_s):
            return SHARE
        self._frames.of(agent, now_s).take(frames, now_s)
        return ""
