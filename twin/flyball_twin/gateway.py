"""The twin's gateway: the small gateway's own rules, over the twin's requests.

HAProxy's health checks take a few seconds to notice a stopped engine; here the fleet says it
at once. What the rules are stands in `flyball_agents.gateway.balancing`.
"""

from flyball_agents.gateway.balancing import MAX_CAP, MAX_PRIORITY, MAX_WAIT_S, MAX_WEIGHT, START_WEIGHT, Balancer
from flyball_twin.workload import Request

__all__ = ["MAX_CAP", "MAX_PRIORITY", "MAX_WAIT_S", "MAX_WEIGHT", "START_WEIGHT", "Gateway"]


class Gateway(Balancer[Request]):
    """Routes the requests of one fleet; starts with equal weights, no caps and the given lanes."""
