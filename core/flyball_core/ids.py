"""Identities, each a distinct type so that one cannot be passed for another."""

from typing import NewType

AgentId = NewType("AgentId", str)
"""A node agent: stable across its restarts, named by the operator or the node's name."""

BootId = NewType("BootId", str)
"""One life of an agent process; sequence numbers start again with each boot."""

PoolId = NewType("PoolId", str)
"""Engines that serve the same model and can stand in for each other."""

EngineId = NewType("EngineId", str)
"""One serving replica: stable over restarts, never a pod's random name."""

GatewayId = NewType("GatewayId", str)
"""One gateway process in front of pools."""

Incarnation = NewType("Incarnation", str)
"""One start of an engine or gateway; new at every start."""

LogId = NewType("LogId", str)
"""UUID made with the topics: tells one log from another, or from a wiped one."""

OwnerId = NewType("OwnerId", str)
"""One controller process, as it names itself in its claims."""

UNASSIGNED = PoolId("_unassigned")
"""The pool of GPUs that no engine uses."""

FLEET = PoolId("_fleet")
"""The key of what concerns several pools: budget, spill, shared nodes."""
