"""Schedules of faults: what breaks, when, for how long. The same ones are simulated and played on real processes.

A schedule is data and a function of its seed. It refuses to know how a fault is brought about.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from random import Random
from typing import Any


class FaultKind(Enum):
    """What can happen to a part."""

    KILL = "kill"
    """It ends at once, as by SIGKILL, and is started again when the fault is over."""
    FREEZE = "freeze"
    """It stands still, as by SIGSTOP, and goes on when the fault is over."""
    CUT = "cut"
    """It reaches nobody and nobody reaches it."""
    DELAY = "delay"
    """What it says and hears comes `by` seconds later."""
    DISK_FULL = "disk_full"
    """Its disk takes nothing more."""
    CLOCK = "clock"
    """Its wall clock is wrong by `by` seconds."""
    CORRUPT = "corrupt"
    """One byte of what it keeps on disk is another, while it is down; it is then started again."""


LOG = "log"
"""The target that stands for the log: the broker, or the disk of an embedded one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that breaks."""

    at_s: float
    """Seconds after the schedule's beginning."""
    kind: FaultKind
    target: str
    """A name of the cast, or `LOG`."""
    for_s: float
    by: float = 0.0
    """Seconds, of a delay or a clock; a place between 0 and 1 for a byte."""

    def __str__(self) -> str:
        size = f" by {self.by:g}" if self.by else ""
        return f"{self.at_s:.1f} s: {self.kind.value} {self.target}{size} for {self.for_s:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """The parts that faults may strike, by name."""

    controllers: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    log: bool = False
    """Whether the log itself may be struck."""


MEANT_FOR: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.KILL: ("controllers", "agents", "engines", "gateways", "log"),
    FaultKind.FREEZE: ("controllers", "agents", "engines", "gateways", "log"),
    FaultKind.CUT: ("agents", "engines", "gateways"),
    FaultKind.DELAY: ("agents", "engines", "gateways"),
    FaultKind.DISK_FULL: ("agents",),
    FaultKind.CLOCK: ("agents",),
    FaultKind.CORRUPT: ("agents", "engines"),
}
"""Which parts a kind of fault can strike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What breaks within `length_s`; all faults are over by then."""

    seed: int
    length_s: float
    faults: tuple[Fault, ...]
    """In the order of their beginnings."""

    def to_json(self) -> str:
        """As one line, for a record or a message."""
        faults = [{**asdict(fault), "kind": fault.kind.value} for fault in self.faults]
        return json.dumps({"seed": self.seed, "length_s": self.length_s, "faults": faults})

    @classmethod
    def from_json(cls, text: str) -> "Schedule":
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        said: dict[str, Any] = json.loads(text)
        faults = tuple(Fault(**{**one, "kind": FaultKind(one["kind"])}) for one in said["faults"])
        return cls(seed=said["seed"], length_s=said["length_s"], faults=faults)


def draw(
    seed: int, cast: Cast, length_s: float, *, kinds: Sequence[FaultKind] = tuple(FaultKind), every_s: float = 10.0
) -> Schedule:
    """The schedule of a seed: on average one fault each `every_s`, none on a part that is still struck.

    The last fifth is left in peace, so that what recovers can be seen to. Kinds that nobody of the cast can
    suffer are left out.
    """
    random = Random(seed)
    open_to = [kind for kind in kinds if _targets(cast, kind)]
    peace_s = length_s * 0.8
    free_at_s: dict[str, float] = {}
    faults: list[Fault] = []
    at_s = random.expovariate(1.0 / every_s)
    while open_to and at_s < peace_s:
        kind = random.choice(open_to)
        target = random.choice(_targets(cast, kind))
        for_s = min(random.uniform(0.05, 1.0) ** 2 * length_s / 2, peace_s - at_s)
        if free_at_s.get(target, 0.0) <= at_s:
            faults.append(Fault(at_s=at_s, kind=kind, target=target, for_s=for_s, by=_size(kind, random)))
            free_at_s[target] = at_s + for_s
        at_s += random.expovariate(1.0 / every_s)
    return Schedule(seed=seed, length_s=length_s, faults=tuple(faults))


def _targets(cast: Cast, kind: FaultKind) -> list[str]:
    groups = {"controllers": cast.controllers, "agents": cast.agents, "engines": cast.engines}
    groups |= {"gateways": cast.gateways, "log": (LOG,) if cast.log else ()}
    return [name for group in MEANT_FOR[kind] for name in groups[group]]


def _size(kind: FaultKind, random: Random) -> float:
    if kind is FaultKind.CLOCK:
        return random.choice((-3600.0, -5.0, 5.0, 3600.0))
    if kind is FaultKind.DELAY:
        return random.uniform(0.05, 2.0)
    return random.random() if kind is FaultKind.CORRUPT else 0.0
