"""The time of a run, and the time that a node believes it is. Nothing here reads a machine's clock."""

from collections.abc import Sequence

from flyball_twin.fleet.faults import Fault
from flyball_twin.governed.nodes import NodeFaults


class VirtualClock:
    """The time of a run: monotonic seconds from 0, and a wall time that runs along."""

    def __init__(self, wall_at_start_s: float) -> None:
        self.now_s = 0.0
        self._wall_at_start_s = wall_at_start_s

    @property
    def wall_s(self) -> float:
        """Unix seconds."""
        return self._wall_at_start_s + self.now_s


class NodeClock:
    """The run's time as one node has it: its wall clock may be off, and it may be cut off from the log."""

    def __init__(self, clock: VirtualClock, node: str, faults: Sequence[Fault] = ()) -> None:
        self._clock = clock
        self._faults = NodeFaults(node, faults)

    @property
    def now_s(self) -> float:
        """Monotonic seconds; no fault touches them."""
        return self._clock.now_s

    @property
    def wall_s(self) -> float:
        """Unix seconds as the node believes."""
        return self._clock.wall_s + self._faults.skew_s(self._clock.now_s)

    @property
    def cut_off(self) -> bool:
        """Whether the node's agent reaches no log now."""
        return self._faults.cut_off(self._clock.now_s)
