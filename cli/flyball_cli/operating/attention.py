"""What of a fleet needs an operator's attention, each thing once and with its remedy where there is one.

What an operator ordered (a pause, an override, `observe`) is no trouble, and neither is an
engine on its way: only what will not come right by itself or hides something is told here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flyball_cli.operating.merging import FleetStatus, Owned
from flyball_cli.wording import span
from flyball_log.limits import MAX_PARTITIONS
from flyball_proto.v1.common_pb2 import MODE_CONTROL, TARGET_KIND_GATEWAY
from flyball_proto.v1.services_pb2 import TargetStatus

TICK_LATE_S = 10.0
"""A pool without a tick for so long is governed by nobody; owners tick every second or so."""

NOT_ATTACHED, STALE = "not attached", "stale"
"""Troubles that are looked at more closely here: whether they are any depends on the mode and the phase."""

_LOOKED_AT = ("", NOT_ATTACHED, STALE)
_HERE = ("", "serving")
"""Phases in which a receiver has no reason to be away."""

FOREIGN_LOG = ("holds another log", "nack: foreign_log")
"""How the trouble of a receiver begins that is bound to another log: by a version, or by what it refused since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing that needs attention. `pool` and `target` are empty where it concerns none."""

    pool: str = ""
    target: str = ""
    what: str
    remedy: str = ""
    """The command that helps; empty if none does."""


def concerns(fleet: FleetStatus) -> list[Concern]:
    """Everything that needs attention: first the controllers, then pool by pool."""
    found = list(_controllers(fleet))
    for pool in fleet.pools.values():
        found.extend(_pool(pool))
    return found


def _controllers(fleet: FleetStatus) -> Iterator[Concern]:
    for silence in fleet.silences:
        yield Concern(what=f"controller at {silence.address} does not answer: {silence.why}")
    for answer in fleet.answers:
        status = answer.status
        for what in status.waiting_for:
            yield Concern(what=f"controller {status.controller} waits for {what}")
        if not status.ready and not status.waiting_for:
            yield Concern(what=f"controller {status.controller} is not ready")
    logs = sorted({answer.status.log_id for answer in fleet.answers})
    if len(logs) > 1:
        yield Concern(what=f"the controllers read different logs: {', '.join(logs)}")
        return
    partitions = max((answer.status.partitions for answer in fleet.answers), default=0)
    owned = {one.partition for answer in fleet.answers for one in answer.status.owned}
    for partition in sorted(set(range(min(partitions, MAX_PARTITIONS))) - owned):
        yield Concern(what=f"partition {partition} is owned by none of the controllers that answered")


def _pool(owned: Owned) -> Iterator[Concern]:
    pool = owned.status
    for other in owned.others:
        yield Concern(pool=pool.pool, what=f"{other} still speaks of it with an older epoch")
    age_s = owned.tick_age_s
    if age_s is None:
        yield Concern(pool=pool.pool, what="it had no tick yet")
    elif age_s > TICK_LATE_S:
        yield Concern(pool=pool.pool, what=f"no tick for {span(age_s)}: nobody decides for it")
    for policy, why in sorted(pool.quarantined.items()):
        remedy = f"flyball policy reset {pool.pool} {policy}"
        yield Concern(pool=pool.pool, what=f"policy {policy} is quarantined: {why}", remedy=remedy)
    for agent in pool.agents:
        if agent.stale:
            silent = f"silent for {span(agent.age_s)}" if agent.HasField("age_s") else "never heard from"
            yield Concern(pool=pool.pool, target=agent.agent, what=f"agent {silent}")
        elif agent.clock:
            yield Concern(pool=pool.pool, target=agent.agent, what=f"clock_skew: {agent.clock}")
    for target in pool.targets:
        yield from _target(owned, target)


def _target(owned: Owned, target: TargetStatus) -> Iterator[Concern]:
    what = trouble_of(owned, target)
    if not what:
        return
    pool = owned.status.pool
    foreign = what.startswith(FOREIGN_LOG)
    remedy = f"flyball rebase {pool} --target {target.target} --reason WHY" if foreign else ""
    yield Concern(pool=pool, target=target.target, what=what, remedy=remedy)


def trouble_of(owned: Owned, target: TargetStatus) -> str:
    """What is wrong with an engine or gateway, in words; empty if nothing is."""
    found = [] if target.trouble in _LOOKED_AT else [target.trouble]
    # Outside `control` nothing is pushed, so nobody need be there to take it; and who relaunches is away.
    if owned.status.mode == MODE_CONTROL and not target.attached and target.phase in _HERE and not found:
        found.append(NOT_ATTACHED)
    if target.stale and target.kind != TARGET_KIND_GATEWAY:
        found.append("stale: no telemetry of it")
    if target.degraded:
        found.append("degraded: slower than its peers at the same mix")
    return "; ".join(found)
