"""Versions are positions in the log; fencing is their comparison.

An owner's claim has an offset in its partition: the epoch. A decision is caused
by an input, whose offset is the revision. Both come from the log's one order, so
no clock, lease store or counter decides who is right.
"""

from dataclasses import dataclass
from enum import Enum

from flyball_core.ids import LogId


class Fence(Enum):
    """How an offered version stands to the one held."""

    NEWER = "newer"
    """Strictly greater in the same partition of the same log: take it."""
    SAME = "same"
    """Exactly the held version: already taken, answer as before."""
    STALE = "stale"
    """Older than the held one: never apply."""
    FOREIGN_LOG = "foreign_log"
    """Of another log (wiped or exchanged): refuse until an audited rebase."""
    FOREIGN_PARTITION = "foreign_partition"
    """Of another partition of the same log: refuse until an audited handover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Where in which log something was decided.

    `epoch` is the offset of the owner's claim, `revision` the offset of the input
    that caused the decision; both in `partition` of the inputs of `log_id`.
    """

    log_id: LogId
    partition: int
    epoch: int
    revision: int

    def against(self, held: "Version | None") -> Fence:
        """Compare this version, as offered, with the one held (None: nothing held)."""
        if held is None:
            return Fence.NEWER
        if self.log_id != held.log_id:
            return Fence.FOREIGN_LOG
        if self.partition != held.partition:
            return Fence.FOREIGN_PARTITION
        offered, kept = (self.epoch, self.revision), (held.epoch, held.revision)
        if offered == kept:
            return Fence.SAME
        return Fence.NEWER if offered > kept else Fence.STALE

    def __str__(self) -> str:
        return f"{self.partition}:{self.epoch}:{self.revision}"
