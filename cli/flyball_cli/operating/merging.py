"""One picture of a fleet from what its controllers answer.

Several controllers may speak of one pool, while an owner that lost it has not noticed yet.
Of each pool the answer with the greatest epoch is believed, and nothing is mixed from two.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flyball_cli.wording import nearest
from flyball_core.errors import Rejected
from flyball_proto.v1.services_pb2 import PoolStatus, StatusResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one controller said."""

    address: str
    status: StatusResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A controller that gave no answer, and why."""

    address: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """One pool, as its owner tells of it."""

    address: str
    """Where that owner answers; orders go there."""
    controller: str
    status: PoolStatus
    wall_s: float
    """Wall time of the answer."""
    others: tuple[str, ...] = ()
    """Controllers that speak of the pool with an older epoch."""

    @property
    def tick_age_s(self) -> float | None:
        """How long ago the last tick was; None if there was none yet."""
        return max(0.0, self.wall_s - self.status.wall_s) if self.status.wall_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetStatus:
    """Everything the controllers said, each pool once."""

    answers: tuple[Answer, ...]
    silences: tuple[Silence, ...]
    pools: Mapping[str, Owned]

    def pool(self, name: str) -> Owned:
        """The pool of that name; `Rejected`, with the nearest, if nobody owns one."""
        found = self.pools.get(name)
        if found is not None:
            return found
        silent = ", ".join(one.address for one in self.silences)
        unheard = f" (no answer from {silent}, which may own it)" if silent else ""
        raise Rejected(f"no controller owns a pool {name!r}{unheard}: {nearest(name, self.pools)}")


def merge(answers: Iterable[Answer], silences: Iterable[Silence]) -> FleetStatus:
    """The fleet's status; a controller that answers under two addresses counts once."""
    heard: dict[tuple[str, str], Answer] = {}
    for answer in answers:
        heard.setdefault((answer.status.log_id, answer.status.controller), answer)
    told: dict[str, list[Owned]] = {}
    for answer in heard.values():
        for pool in answer.status.pools:
            one = Owned(
                address=answer.address,
                controller=answer.status.controller,
                status=pool,
                wall_s=answer.status.wall_s,
            )
            told.setdefault(pool.pool, []).append(one)
    pools = {name: _believed(told[name]) for name in sorted(told)}
    return FleetStatus(answers=tuple(heard.values()), silences=tuple(silences), pools=pools)


def _believed(told: list[Owned]) -> Owned:
    best = max(told, key=lambda one: one.status.epoch)
    others = tuple(one.controller for one in told if one is not best)
    return Owned(
        address=best.address, controller=best.controller, status=best.status, wall_s=best.wall_s, others=others
    )
