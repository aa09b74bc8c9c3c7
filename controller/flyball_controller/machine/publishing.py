"""From what is wanted to what is told: directives, routing tables, and their order.

Lowering goes to the gateways first and then to the engine, raising the other way round, so
that at no time more work is sent than an engine takes. A refused version is never sent
again; the next one waits with back-off. What is published is the full setting, every time.
"""

import math
from collections.abc import Iterator

from flyball_controller.machine.state import (
    RELAUNCHING,
    SERVING,
    WARMING,
    EngineState,
    GatewayState,
    Holding,
    PoolState,
)
from flyball_core.fencing import Version
from flyball_core.ids import EngineId, GatewayId, Incarnation, PoolId
from flyball_core.knobs import BATCH_CAP, VARIANT, KnobClass, Value
from flyball_core.outputs import Directive, LaneRule, Output, Route, RoutingTable, Tombstone, compacted_key
from flyball_policies.document import PolicyDocument

WAIT_FOR_GATEWAYS_S = 3.0
"""How long a lowered cap waits for the gateways before the engine is told all the same."""

MAX_WEIGHT = 256


def publish(
    pool: PoolState, document: PolicyDocument, version: Version, decision: str, now_s: float, *, takeover: bool
) -> list[Output]:
    """What this tick tells receivers. `takeover`: everything, under the new epoch."""
    outputs: list[Output] = []
    for gateway in _attached_gateways(pool):
        outputs.extend(_table(pool, gateway, document, version, decision, now_s, takeover=takeover))
    for name in sorted(pool.engines):
        engine = pool.engines[name]
        values = _directive_values(pool, engine, now_s)
        if takeover or not _told_just_that(engine, values):
            outputs.extend(_directive(pool, engine, values, version, decision, now_s, takeover=takeover))
    return outputs


def _told_just_that(engine: EngineState, values: dict[str, Value]) -> bool:
    """Whether there is nothing to tell, which is what most engines are told at most ticks."""
    last = engine.published
    return (
        last is not None
        and last.values == values
        and last.capability_hash == engine.capability_hash
        and not engine.holding.must_publish
    )


def withdraw(holding: Holding) -> Iterator[Tombstone]:
    """Take back a compacted key: of an older epoch, or of a target that is gone."""
    if holding.key:
        yield Tombstone(key=holding.key)
        holding.key = ""


def _attached_gateways(pool: PoolState) -> list[GatewayState]:
    return [pool.gateways[name] for name in sorted(pool.gateways) if pool.gateways[name].attached]


def _take_key(holding: Holding, key: str) -> Iterator[Tombstone]:
    if holding.key != key:
        yield from withdraw(holding)
        holding.key = key


def _due(holding: Holding, now_s: float, *, changed: bool, takeover: bool) -> bool:
    if not (changed or takeover or holding.must_publish):
        return False
    return takeover or now_s >= holding.not_before_s


def _directive(
    pool: PoolState,
    engine: EngineState,
    values: dict[str, Value],
    version: Version,
    decision: str,
    now_s: float,
    *,
    takeover: bool,
) -> Iterator[Output]:
    if not engine.attached or not values:
        return
    holding, last = engine.holding, engine.published
    changed = last is None or last.values != values or last.capability_hash != engine.capability_hash
    if (
        last is None
        and not holding.must_publish
        and values == {name: engine.holding.effective.get(name) for name in values}
    ):
        changed = False  # it holds all that as it is; there is nothing to say yet
    if not _due(holding, now_s, changed=changed, takeover=takeover and last is not None):
        return
    directive = Directive(
        pool=PoolId(pool.pool),
        engine=EngineId(engine.engine),
        incarnation=Incarnation(engine.incarnation if VARIANT in values else ""),
        capability_hash=engine.capability_hash,
        version=version,
        values=values,
        decision=holding.decision or decision,
    )
    engine.published = directive
    yield directive
    yield from _published(holding, compacted_key(directive), version, now_s)


def _published(holding: Holding, key: str, version: Version, now_s: float) -> Iterator[Tombstone]:
    holding.version, holding.published_s, holding.must_publish = version, now_s, False
    yield from _take_key(holding, key)


def _directive_values(pool: PoolState, engine: EngineState, now_s: float) -> dict[str, Value]:
    """The full live setting the engine should hold now, and a variant while it is to relaunch."""
    values = {
        name: value
        for name, value in engine.wanted.items()
        if (spec := engine.knobs.get(name)) is not None and spec.knob_class is KnobClass.LIVE
    }
    cap, held = values.get(BATCH_CAP), engine.holding.effective.get(BATCH_CAP)
    if isinstance(cap, int) and isinstance(held, int) and cap < held and not _gateways_below(pool, engine, cap, now_s):
        values[BATCH_CAP] = held
    if engine.phase == RELAUNCHING and VARIANT in engine.wanted:
        values[VARIANT] = engine.wanted[VARIANT]
    return values


def _gateways_below(pool: PoolState, engine: EngineState, cap: int, now_s: float) -> bool:
    """Whether the gateways together send the engine no more than `cap`, or have had their time."""
    gateways = _attached_gateways(pool)
    if not gateways or now_s - engine.changed_s.get(BATCH_CAP, -math.inf) >= WAIT_FOR_GATEWAYS_S:
        return True
    shares = [gateway.holding.effective.get(f"cap:{engine.engine}") for gateway in gateways]
    numbers = [share for share in shares if isinstance(share, int) and not isinstance(share, bool) and share > 0]
    return len(numbers) == len(shares) and sum(numbers) <= cap


def _table(
    pool: PoolState,
    gateway: GatewayState,
    document: PolicyDocument,
    version: Version,
    decision: str,
    now_s: float,
    *,
    takeover: bool,
) -> Iterator[Output]:
    last, holding = gateway.published, gateway.holding
    routes = _routes(pool, gateway, last.routes if last is not None else ())
    lanes = tuple(
        LaneRule(lane=lane.name, priority=lane.priority, max_wait_s=lane.longest_wait_s) for lane in document.lanes
    )
    changed = last is None or last.routes != routes or last.lanes != lanes
    if not _due(holding, now_s, changed=changed, takeover=takeover):
        return
    table = RoutingTable(
        pool=PoolId(pool.pool),
        gateway=GatewayId(gateway.gateway),
        version=version,
        routes=routes,
        lanes=lanes,
        decision=decision,
    )
    gateway.published = table
    yield table
    yield from _published(holding, compacted_key(table), version, now_s)


def _routes(pool: PoolState, gateway: GatewayState, last: tuple[Route, ...]) -> tuple[Route, ...]:
    """One gateway's routes by engine; a route that is as it was `last` is that very object."""
    gateways = _attached_gateways(pool)
    place, count = gateways.index(gateway), len(gateways)
    kept = {route.engine: route for route in last}
    routes = []
    for name in sorted(pool.engines):
        engine = pool.engines[name]
        if engine.gone_s is not None:
            continue
        weight, cap = _weight(engine), share(_in_flight_cap(engine), place, count)
        route = kept.get(EngineId(name))
        if route is None or route.weight != weight or route.in_flight_cap != cap:
            route = Route(engine=EngineId(name), weight=weight, in_flight_cap=cap)
        routes.append(route)
    return tuple(routes)


def _weight(engine: EngineState) -> int:
    if engine.phase == WARMING:
        return max(1, engine.weight // 4)  # a trickle, so that there is telemetry to go by
    return min(engine.weight, MAX_WEIGHT) if engine.phase == SERVING else 0


def _in_flight_cap(engine: EngineState) -> int:
    """The cap all gateways together keep to: raised only once the engine holds the raise."""
    wanted, held = engine.wanted.get(BATCH_CAP), engine.holding.effective.get(BATCH_CAP)
    if not isinstance(wanted, int):
        return 0
    if not isinstance(held, int) or wanted <= held:
        return wanted
    spec = engine.knobs.get(BATCH_CAP)
    return held if spec is not None and spec.knob_class is KnobClass.LIVE else wanted


def share(cap: int, place: int, count: int) -> int:
    """One gateway's share of an engine's cap: they add up to it, and each has at least one.

    0 means no cap. With more gateways than the cap the sum exceeds it: a gateway that may
    send nothing would starve its clients.
    """
    if cap <= 0:
        return 0
    return max(1, cap // count + (1 if place < cap % count else 0))
