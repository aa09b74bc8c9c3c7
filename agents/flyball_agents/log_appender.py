"""The way from a shipper into the log, without a controller between."""

from collections.abc import Sequence

from flyball_agents.shipper import Shipment
from flyball_log.interface import Entry, Log, Topic


class LogAppender:
    """Appends frames to the inputs, each to its pool's partition."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def append(self, shipments: Sequence[Shipment]) -> None:
        """Append, in order within a pool; returns once all are durable. Raises as the log does."""
        by_partition: dict[int, list[Entry]] = {}
        for shipment in shipments:
            entries = by_partition.setdefault(self._log.partition_of(shipment.pool), [])
            entries.append(Entry(shipment.pool.encode(), shipment.payload))
        for partition, entries in sorted(by_partition.items()):
            await self._log.append(Topic.INPUTS, partition, entries)
