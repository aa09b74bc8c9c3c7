"""What the laboratory's receivers stand on: a store that tells what is taken, and a gateway's table in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flyball_agents.gateway_adapter import GatewayReading, LanePlace
from flyball_agents.receiver_store import Held, ReceiverStore
from flyball_core.fencing import Version
from flyball_core.knobs import Value


class TellingStore(ReceiverStore):
    """The production store, which tells of each version that is taken before it says so to anybody.

    By then the version is on disk as being tried, and its values are set.
    """

    def __init__(self, folder: Path, taken: Callable[[Version, Mapping[str, Value]], None], *, durable: bool) -> None:
        super().__init__(folder, durable=durable)
        self._taken = taken
        self._version: Version | None = None

    def load(self) -> Held:
        """What is held."""
        held = super().load()
        self._version = held.version
        return held

    def save(self, held: Held) -> None:
        """Keep it; tell first if it is another version than before."""
        if held.version is not None and held.version != self._version:
            self._taken(held.version, dict(held.values))
        self.keep(held)
        self._version = held.version

    def keep(self, held: Held) -> None:
        """Put it on disk."""
        super().save(held)


@dataclass(slots=True)
class Table:
    """`GatewayControls` in memory."""

    weights: dict[str, int]
    caps: dict[str, int]
    lanes: dict[str, LanePlace] = field(default_factory=lambda: {"realtime": LanePlace(0, 60.0)})

    def read(self) -> GatewayReading:
        """The table."""
        return GatewayReading(dict(self.weights), dict(self.caps), dict(self.lanes))

    def set_weight(self, engine: str, weight: int) -> None:
        """An engine's share."""
        self.weights[engine] = weight

    def set_cap(self, engine: str, cap: int) -> None:
        """An engine's most in flight."""
        self.caps[engine] = cap

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """A lane's place."""
        self.lanes[lane] = LanePlace(priority, max_wait_s)
