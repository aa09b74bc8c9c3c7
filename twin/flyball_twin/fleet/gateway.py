"""The twin's gateway: the small gateway's own rules, over the twin's requests.

What the rules are stands in `flyball_agents.gateway.balancing` and `flyball_agents.gateway.choosing`. Health checks,
retries and time are the fleet's.
"""

from collections.abc import Iterable, Mapping

from flyball_agents.gateway.balancing import MAX_CAP, MAX_PRIORITY, MAX_WAIT_S, MAX_WEIGHT, START_WEIGHT, Balancer
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.outputs import LaneRule
from flyball_twin.traffic.seam import NEVER
from flyball_twin.workload import Request

__all__ = ["MAX_CAP", "MAX_PRIORITY", "MAX_WAIT_S", "MAX_WEIGHT", "START_WEIGHT", "Gateway"]


class Gateway(Balancer[Request]):
    """Routes the requests of one pool; starts with equal weights, no caps and the given lanes."""

    def __init__(
        self,
        engines: Iterable[EngineId],
        lanes: Iterable[LaneRule],
        balance: str = "leastconn",
        *,
        seed: int = 0,
        timeouts_s: Mapping[str, float] | None = None,
    ) -> None:
        """`balance`: `leastconn`, `roundrobin`, `random(n)` (drawn by `seed`) or `hash` (of the session).

        `timeouts_s`: how long a lane's requests stay in the queue until they are answered 503 (`timeout queue`, which
        `http-request set-timeout queue` sets by lane); a lane that is not named waits for good.
        Raises `Rejected` as `Balancer`, and for a timeout that is not above 0 or of no lane.
        """
        super().__init__(engines, lanes, balance, key=_session if balance == "hash" else None, seed=seed)
        self._timeouts_s = dict(timeouts_s or {})
        for lane, timeout_s in self._timeouts_s.items():
            self.rule(lane)
            if not timeout_s > 0.0:
                raise Rejected(f"a timeout of lane {lane} is longer than {timeout_s!r} s")

    def timeout_s(self, lane: str) -> float:
        """How long a request of that lane stays in the queue at most; infinity: for good."""
        return self._timeouts_s.get(lane, NEVER)


def _session(request: Request) -> str:
    return request.session
