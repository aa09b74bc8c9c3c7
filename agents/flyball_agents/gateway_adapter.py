"""A gateway's routing table as a surface: weights, in-flight caps and lanes under flat names.

The names are `weight:ENGINE`, `cap:ENGINE`, `priority:LANE` and `max_wait_s:LANE`, so that one
receiver library fences tables and settings alike. What HAProxy cannot do is not here.

- What a table does not name keeps its place: taking an engine out of traffic is said by weight 0.
- A table may name engines that the gateway does not know (yet, or any more): their entries wait
  and are set when the engine appears. Engines come and go; that must not cost the others a table.
- A table that would leave two or more known engines without any weight is refused: that is an outage.
- A cap of 0 is none. Easing treats it as standing above the greatest cap.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flyball_agents.offers import Offer
from flyball_agents.receiver import Receiver
from flyball_core.errors import Rejected
from flyball_core.ids import EngineId
from flyball_core.inputs import Ack
from flyball_core.knobs import KnobClass, KnobKind, KnobSpec, Setting, Value
from flyball_core.outputs import LaneRule, Route, RoutingTable

WEIGHT, CAP, PRIORITY, MAX_WAIT = "weight", "cap", "priority", "max_wait_s"
"""The four families of flat names."""

MOST_WEIGHT = 256
"""HAProxy's greatest weight."""

_MOST_NAME = 256


class LanePlace(NamedTuple):
    """A lane in the gateway's queue: lower priority goes first."""

    priority: int
    max_wait_s: float


_SAFE_LANE = LanePlace(0, 60.0)


class GatewayReading(NamedTuple):
    """What a gateway reads back; the keys of `weights` are the engines it knows. A cap of 0 is none."""

    weights: Mapping[str, int]
    caps: Mapping[str, int]
    lanes: Mapping[str, LanePlace]


class GatewayControls(Protocol):
    """What a gateway lets one change while it runs. Any call may raise."""

    def read(self) -> GatewayReading:
        """The effective table, read from the gateway."""
        ...

    def set_weight(self, engine: str, weight: int) -> None:
        """Set an engine's share of new requests, 0 to 256."""
        ...

    def set_cap(self, engine: str, cap: int) -> None:
        """Set an engine's most requests in flight; 0 is none."""
        ...

    def set_lane(self, lane: str, priority: int, max_wait_s: float) -> None:
        """Set a lane's place in the queue and its longest wait."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDefaults:
    """The operator's safe table, and the bounds of what a controller may ask for."""

    weight: int = 100
    cap: int = 0
    most_cap: int = 4096
    lane: LanePlace = _SAFE_LANE
    lanes: Mapping[str, LanePlace] = field(default_factory=dict)
    """Lanes with a safe place of their own."""
    most_wait_s: float = 3600.0


class TableSurface:
    """The routing table of one pool in one gateway."""

    def __init__(self, controls: GatewayControls, defaults: TableDefaults) -> None:
        self._controls = controls
        self._defaults = defaults
        self._known = frozenset(controls.read().weights)

    def specs(self) -> tuple[KnobSpec, ...]:
        """Two knobs for each engine and each lane that the gateway knows now."""
        reading = self._controls.read()
        names = [f"{family}:{engine}" for engine in sorted(reading.weights) for family in (WEIGHT, CAP)]
        names += [f"{family}:{lane}" for lane in sorted(reading.lanes) for family in (PRIORITY, MAX_WAIT)]
        return tuple(spec for name in names if (spec := self.spec(name)) is not None)

    def spec(self, name: str) -> KnobSpec | None:
        """The knob of that name; any engine and lane has one, whether known or not."""
        family, _, of = name.partition(":")
        if not of or len(of) > _MOST_NAME:
            return None
        safe = self._defaults
        lane = safe.lanes.get(of, safe.lane)
        if family == WEIGHT:
            return _spec(name, KnobKind.INTEGER, safe.weight, 0, MOST_WEIGHT, "share")
        if family == CAP:
            return _spec(name, KnobKind.INTEGER, safe.cap, 0, safe.most_cap, "requests")
        if family == PRIORITY:
            return _spec(name, KnobKind.INTEGER, lane.priority, -2047, 2047, "class")  # HAProxy's classes
        if family == MAX_WAIT:
            return _spec(name, KnobKind.REAL, lane.max_wait_s, 0.0, safe.most_wait_s, "seconds")
        return None

    def refuse(self, values: Setting) -> str | None:
        """A table after which no known engine would get work, unless there is only one."""
        weights = self._controls.read().weights
        after = [values.get(f"{WEIGHT}:{engine}", weight) for engine, weight in weights.items()]
        return "no engine would keep a weight above 0" if len(after) > 1 and not any(after) else None

    def apply(self, values: Setting) -> None:
        """Set lanes, then what lowers a cap, weights up, weights down, and what raises a cap.

        If one fails, those already set are put back as far as they let themselves.
        """
        was = self.read()
        known = frozenset(self._controls.read().weights)
        ready = {name: value for name, value in values.items() if not _of_engine(name) or _engine(name) in known}
        done: list[str] = []
        try:
            for name in sorted(ready, key=lambda name: (self._turn(name, was.get(name), ready[name]), name)):
                done.append(name)
                self._set(name, ready)
        except Exception:
            for name in reversed(done):
                with contextlib.suppress(Exception):  # the rest is put back, whatever this one does
                    self._set(name, was)
            raise

    def read(self) -> Setting:
        """The effective table under flat names."""
        reading = self._controls.read()
        flat: dict[str, Value] = {f"{WEIGHT}:{engine}": weight for engine, weight in reading.weights.items()}
        flat |= {f"{CAP}:{engine}": reading.caps.get(engine, 0) for engine in reading.weights}
        flat |= {f"{PRIORITY}:{lane}": place.priority for lane, place in reading.lanes.items()}
        flat |= {f"{MAX_WAIT}:{lane}": place.max_wait_s for lane, place in reading.lanes.items()}
        return flat

    def restart(self, values: Setting) -> None:
        """A gateway has no restart-class knobs: raises `Rejected`."""
        raise Rejected(f"a gateway is not restarted for {', '.join(sorted(values))}")

    def settle(self, values: Setting) -> None:
        """Set the entries of engines that have appeared, or come back, since the last look."""
        known = frozenset(self._controls.read().weights)
        fresh = known - self._known
        if fresh:
            self.apply({name: value for name, value in values.items() if _engine(name) in fresh})
        self._known = known

    def zero_is_none(self, name: str) -> bool:
        """A cap of 0 is none."""
        return name.startswith(f"{CAP}:")

    def _turn(self, name: str, was: Value | None, value: Value) -> int:
        """The order of setting: caps go down before and up after the weights, weights go up before down."""
        if not _of_engine(name):
            return 0
        if name.startswith(f"{WEIGHT}:"):
            return 2 if _height(name, value) >= _height(name, was or 0) else 3
        return 1 if _height(name, value) <= _height(name, was or 0) else 4

    def _set(self, name: str, values: Setting) -> None:
        family, _, of = name.partition(":")
        if family == WEIGHT:
            self._controls.set_weight(of, int(values[name]))
        elif family == CAP:
            self._controls.set_cap(of, int(values[name]))
        else:
            place = self._controls.read().lanes.get(of, self._defaults.lanes.get(of, self._defaults.lane))
            priority = values.get(f"{PRIORITY}:{of}", place.priority)
            max_wait_s = values.get(f"{MAX_WAIT}:{of}", place.max_wait_s)
            self._controls.set_lane(of, int(priority), float(max_wait_s))


def setting_of(table: RoutingTable) -> dict[str, Value]:
    """A routing table under flat names."""
    flat: dict[str, Value] = {}
    for route in table.routes:
        flat[f"{WEIGHT}:{route.engine}"] = route.weight
        flat[f"{CAP}:{route.engine}"] = route.in_flight_cap
    for lane in table.lanes:
        flat[f"{PRIORITY}:{lane.lane}"] = lane.priority
        flat[f"{MAX_WAIT}:{lane.lane}"] = lane.max_wait_s
    return flat


def routes_and_lanes(setting: Setting) -> tuple[tuple[Route, ...], tuple[LaneRule, ...]]:
    """The inverse of `setting_of`; raises `Rejected` for a name that is none or lacks its other half."""
    rows: dict[tuple[bool, str], dict[str, Value]] = {}
    for name, value in setting.items():
        family, _, of = name.partition(":")
        if family not in (WEIGHT, CAP, PRIORITY, MAX_WAIT) or not of:
            raise Rejected(f"{name!r} is no entry of a routing table")
        rows.setdefault((_of_engine(name), of), {})[family] = value
    if short := [of for (_, of), row in rows.items() if len(row) != len((WEIGHT, CAP))]:
        raise Rejected(f"the entries of {', '.join(sorted(short))} are not complete")
    routes = tuple(
        Route(engine=EngineId(of), weight=int(row[WEIGHT]), in_flight_cap=int(row[CAP]))
        for (engine, of), row in rows.items()
        if engine
    )
    lanes = tuple(
        LaneRule(lane=of, priority=int(row[PRIORITY]), max_wait_s=float(row[MAX_WAIT]))
        for (engine, of), row in rows.items()
        if not engine
    )
    return routes, lanes


def offer_table(receiver: Receiver, table: RoutingTable, *, now_s: float, wall_s: float) -> Ack:
    """Hand a routing table to its receiver."""
    offer = Offer(pool=table.pool, target=table.gateway, version=table.version, values=setting_of(table))
    return receiver.offer(offer, now_s=now_s, wall_s=wall_s)


def _spec(name: str, kind: KnobKind, safe: Value, low: float, high: float, unit: str) -> KnobSpec:
    return KnobSpec(name=name, knob_class=KnobClass.ROUTING, kind=kind, safe=safe, minimum=low, maximum=high, unit=unit)


def _of_engine(name: str) -> bool:
    return name.startswith((f"{WEIGHT}:", f"{CAP}:"))


def _engine(name: str) -> str | None:
    return name.partition(":")[2] if _of_engine(name) else None


def _height(name: str, value: Value) -> float:
    """A value's place in order: a cap of 0 stands above all others."""
    return float("inf") if value == 0 and name.startswith(f"{CAP}:") else float(value)
