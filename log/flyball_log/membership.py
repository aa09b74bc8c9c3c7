"""Who owns which partitions: everybody through Kafka's group, or alone.

An embedded log has one writer, so its controller owns everything. Ownership here is
only an invitation: what decides is the claim in the log.
"""

from typing import Protocol, runtime_checkable

from flyball_log.interface import Log, Membership


@runtime_checkable
class Grouped(Protocol):
    """A log whose partitions are shared out by a group."""

    async def join(self) -> Membership:
        """Take a place in the group."""
        ...


class SoleMember:
    """The only member there can be: owns every partition until it leaves."""

    def __init__(self, partitions: int) -> None:
        self._assigned = frozenset(range(partitions))

    def assigned(self) -> frozenset[int]:
        """Every partition; none after `close`."""
        return self._assigned

    @property
    def joined(self) -> bool:
        """Until `close`: there is nobody to wait for."""
        return bool(self._assigned)

    async def close(self) -> None:
        """Own nothing any more."""
        self._assigned = frozenset()


async def join(log: Log) -> Membership:
    """Take a place among the controllers of `log`; with an embedded log it is the only one."""
    return await log.join() if isinstance(log, Grouped) else SoleMember(log.partitions)
